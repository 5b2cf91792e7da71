//! What must hold for any input, however it comes: shared by the table of cases, the property tests and the
//! fuzz targets (`fuzz/`).

pub(crate) mod chunks;
pub(crate) mod connection;
pub(crate) mod engine;

use super::http::{self, Limits};
use connection::Then;
use engine::{Seen, feed};

/// Limits small enough that short inputs reach them.
pub(crate) const TIGHT: Limits =
    Limits { request_line: 64, header_bytes: 256, headers: 8, body: 512, merge_slashes: true };

/// A stream comes to the same whole and in pieces, and what was accepted is what another reader reads.
pub(crate) fn check_stream(stream: &[u8], places: &[usize]) {
    let whole = feed([stream], &TIGHT);
    assert_eq!(feed(cut(stream, places), &TIGHT), whole, "it depends on the pieces");
    if let Some(Seen::Head { line, .. }) = whole.first() {
        check_head(stream, line);
    }
}

/// httparse, used for all of the head, reads the same request, or none: bytes beyond ASCII in a target and
/// HTTP/1.2 are nothing to it.
fn check_head(stream: &[u8], line: &str) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    if let Ok(httparse::Status::Complete(_)) = head.parse(stream)
        && let (Some(method), Some(path)) = (head.method, head.path)
    {
        assert_eq!(line, format!("{method} {path}"), "the request was misread");
    }
}

/// A chunked body ends where a second decoder says that it ends, with the content that it finds.
pub(crate) fn check_chunks(body: &[u8], places: &[usize]) {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let places: Vec<usize> =
        places.iter().map(|place| HEAD.len() + place % (body.len() + 1)).collect();
    let stream = [HEAD, body].concat();
    let whole = feed([&stream[..]], &TIGHT);
    assert_eq!(feed(cut(&stream, &places), &TIGHT), whole, "it depends on the pieces");
    let end = whole.iter().position(|seen| *seen == Seen::End);
    let Some((content, length)) = end.and(chunks::decode(body)) else {
        assert!(end.is_none(), "only one of two decoders finds an end");
        return;
    };
    let read = match &whole[1] {
        Seen::Body(read) => &read[..],
        _ => &[],
    };
    assert_eq!(read, content, "two decoders find different contents");
    let alone = [HEAD, &body[..length]].concat();
    let seen = feed([&alone[..]], &TIGHT);
    assert_eq!(seen.last(), Some(&Seen::End), "two decoders find different ends");
}

/// A connection answers the same to a stream whole and in pieces, and what it answers is what its requests ask for. So
/// does its session alone.
pub(crate) fn check_connection(stream: &[u8], places: &[usize]) {
    let of_session = connection::session(&cut(stream, places));
    let of_connection = connection::converse(&[stream], Then::Ends);
    assert_eq!(
        String::from_utf8_lossy(&of_session),
        String::from_utf8_lossy(&of_connection),
        "a session answers something else than its connection"
    );
    for then in [Then::Ends, Then::IsSilent] {
        let whole = connection::converse(&[stream], then);
        check_answers(stream, then, &whole);
        let in_pieces = connection::converse(&cut(stream, places), then);
        assert_eq!(
            String::from_utf8_lossy(&in_pieces),
            String::from_utf8_lossy(&whole),
            "the answers depend on the pieces"
        );
    }
}

/// The answers to a stream are whole responses, at most one for each request in it; none to a HEAD has a body, even
/// if it was refused, or was not finished in time. Interim responses don't count.
fn check_answers(stream: &[u8], then: Then, answers: &[u8]) {
    let seen = feed([stream], &TIGHT);
    // Of a message that is refused within its body, one response answers both.
    let mut is_head: Vec<bool> = Vec::new();
    let mut has_answer = false;
    for step in &seen {
        match step {
            Seen::Head { request, has_body, .. } => {
                is_head.push(request.starts_with("HEAD "));
                has_answer = *has_body;
            }
            Seen::End => has_answer = false,
            Seen::Refused { is_head: head, .. } | Seen::Unfinished { is_head: head }
                if !has_answer =>
            {
                is_head.push(*head);
            }
            Seen::Refused { .. } | Seen::Unfinished { .. } | Seen::Body(_) => {}
        }
    }
    let mut says_close = false;
    let mut is_head = is_head.into_iter();
    let mut rest = answers;
    while !rest.is_empty() && rest != http::h1::GOAWAY {
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&rest[..end]).expect("a head in ASCII");
        rest = &rest[end + 4..];
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line").split(' ').next();
        if status == Some("100") {
            continue;
        }
        assert!(!says_close, "an answer behind the last one");
        says_close = head.lines().any(|line| line == "Connection: close");
        let is_head = is_head.next().expect("a request for each response");
        if !is_head && status != Some("204") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            assert!(length <= rest.len(), "a body is not whole");
            rest = &rest[length..];
        }
    }
    // A 408, or the last answer to a request before.
    let is_late = then == Then::IsSilent && matches!(seen.last(), Some(Seen::Unfinished { .. }));
    assert!(!is_late || says_close, "a request that was not finished in time is not refused");
}

/// Cuts a stream at these places, which need not be in order or within it.
fn cut<'b>(stream: &'b [u8], places: &[usize]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (stream.len() + 1)).collect();
    places.sort_unstable();
    let ends = places.into_iter().chain([stream.len()]);
    let mut start = 0;
    ends.map(|end| &stream[std::mem::replace(&mut start, end)..end]).collect()
}
