//! The receiver, fed by hand: order, limits, and what a head says. Which inputs are refused is the table of
//! `tests/cases/`.

use super::*;
use crate::http::{self, Version};

#[path = "../../../../tests/oracle/engine.rs"]
mod engine;
use engine::{Seen, feed};

const LIMITS: Limits =
    Limits { request_line: 64, header_bytes: 128, headers: 4, body: 32, merge_slashes: true };

/// What `input` comes to, in words. Fed whole, cut in two at every place, and byte by byte, it must come to
/// the same.
fn outcome(input: impl AsRef<[u8]>) -> Vec<String> {
    let input = input.as_ref();
    let whole = feed([input], &LIMITS);
    for at in 0..=input.len() {
        let (first, second) = input.split_at(at);
        assert_eq!(feed([first, second], &LIMITS), whole, "cut at {at}: {}", input.escape_ascii());
    }
    assert_eq!(feed(input.chunks(1), &LIMITS), whole, "byte by byte: {}", input.escape_ascii());
    let in_words = |seen| match seen {
        Seen::Head { request, .. } => Some(request),
        Seen::Body(body) => Some(String::from_utf8_lossy(&body).into_owned()),
        Seen::End => Some("end".into()),
        Seen::Refused { status, .. } => Some(status.to_string()),
        Seen::Unfinished { .. } => None,
    };
    whole.into_iter().filter_map(in_words).collect()
}

#[test]
fn pipelined_requests_come_in_order() {
    let one = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let two = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let three = b"\r\nHEAD /c HTTP/1.0\r\n\r\n";
    let all = [&one[..], two, three].concat();
    assert_eq!(outcome(&all), ["GET /a", "POST /b", "abc", "end", "HEAD /c"]);
}

#[test]
fn limits_hold_at_n_and_n_plus_1() {
    let line = |bytes: usize| {
        let path = "a".repeat(bytes - "GET / HTTP/1.1".len());
        format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    assert!(outcome(line(64))[0].starts_with("GET /a"));
    assert_eq!(outcome(line(65)), ["414"]);

    let fields = |bytes: usize| {
        let value = "v".repeat(bytes - "Host: a\r\nX: \r\n".len());
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    assert_eq!(outcome(fields(128)), ["GET /"]);
    assert_eq!(outcome(fields(129)), ["431"]);

    let count =
        |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(lines - 1));
    assert_eq!(outcome(count(4)), ["GET /"]);
    assert_eq!(outcome(count(5)), ["431"]);

    let sized = |bytes: usize| {
        let body = "b".repeat(bytes);
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}")
    };
    assert_eq!(outcome(sized(32)).len(), 3);
    assert_eq!(outcome(sized(33)), ["413"]);

    let chunked = |bytes: usize| {
        let body = "b".repeat(bytes);
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            bytes
        )
    };
    assert_eq!(outcome(chunked(24)).last().unwrap(), "end");
    assert_eq!(outcome(chunked(25)).last().unwrap(), "413");
}

#[test]
fn a_limit_is_enforced_before_the_line_ends() {
    let mut receiver = Receiver::default();
    let endless = [b'a'; 66];
    let (_, step) = receiver.step(&endless, &LIMITS);
    assert_eq!(step, Step::Refused(Refusal::REQUEST_LINE_TOO_LONG));
    let [most, too_many] =
        [128, 129].map(|bytes: usize| format!("GET / HTTP/1.1\r\n{:v<bytes$}", "X: "));
    let mut receiver = Receiver::default();
    assert_eq!(receiver.step(most.as_bytes(), &LIMITS), (0, Step::Incomplete));
    let (_, step) = receiver.step(too_many.as_bytes(), &LIMITS);
    assert_eq!(step, Step::Refused(Refusal::FIELDS_TOO_LARGE));
}

#[test]
fn a_head_says_what_the_connection_should_do() {
    let head = |text: &str| {
        let text = format!("{text}\r\n\r\n");
        let mut receiver = Receiver::default();
        let (_, step) = receiver.step(text.as_bytes(), &LIMITS);
        let Step::Head(head) = step else {
            panic!("{text:?} came to {step:?}");
        };
        (head.request.version, head.keep_alive, head.is_last, head.expects_continue)
    };
    use Version::{Http10, Http11};
    let kept = (Http11, true, false, false);
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a"), kept);
    assert_eq!(head("POST / HTTP/1.1\r\nHost: a"), kept);
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nAbcdefghij: close"), kept);
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nAbcdef: 100-continue"), kept);
    let last = (Http11, false, true, false);
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close"), last);
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive"), last);
    assert_eq!(head("GET / HTTP/1.0"), (Http10, false, true, false));
    assert_eq!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive"), (Http10, true, false, false));
    assert_eq!(
        head("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue"),
        (Http11, true, false, true)
    );
    assert_eq!(head("GET / HTTP/1.0\r\nExpect: 100-continue"), (Http10, false, true, false));
    // Where its end is not known, nothing behind it is a request, and something may come.
    assert_eq!(head("POST / HTTP/1.0"), (Http10, false, false, false));
    assert_eq!(head("POST / HTTP/1.0\r\nConnection: Keep-Alive"), (Http10, false, false, false));
    let with_length = "POST / HTTP/1.0\r\nContent-Length: 0";
    assert_eq!(head(with_length), (Http10, false, true, false));
    assert_eq!(
        head(&format!("{with_length}\r\nConnection: keep-alive")),
        (Http10, true, false, false)
    );
}

#[test]
fn paths_are_decoded_once_and_lose_their_dot_segments() {
    let path = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let seen = outcome(text);
        match &seen[..] {
            [line] => line.strip_prefix("GET ").unwrap().to_owned(),
            other => panic!("{target} came to {other:?}"),
        }
    };
    assert_eq!(path("/a/./b/../c?d=/../e"), "/a/c");
    assert_eq!(path("/a/%2e%2E/b"), "/b");
    assert_eq!(path("/a/.."), "/");
    assert_eq!(path("/a/."), "/a/");
    assert_eq!(path("/%252e%252e/x"), "/%2e%2e/x");
    assert_eq!(path("/.hidden"), "/.hidden");
    assert_eq!(path("/a//b"), "/a/b");
    assert_eq!(path("http://b?q"), "/");
    assert_eq!(path("http://b"), "/");
    assert_eq!(path("http://b/x//y?q"), "/x/y");
    for bad in ["/a/../..", "/..%2fx", "/a%00b"] {
        let text = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(text), ["400"], "{bad}");
    }
}

#[test]
fn noise_is_refused_at_its_first_byte() {
    for byte in (0..=u8::MAX).filter(|byte| !is_token_byte(*byte) && *byte != b'\r') {
        let noise = [byte];
        let (_, step) = Receiver::default().step(&noise, &LIMITS);
        assert!(matches!(step, Step::Refused(Refusal { status: 400, .. })), "{byte:#x}");
    }
    // A CR may become an empty line; once it can't, it is noise too.
    let mut receiver = Receiver::default();
    assert_eq!(receiver.step(b"\r", &LIMITS), (0, Step::Incomplete));
    assert!(matches!(receiver.step(b"\rG", &LIMITS), (_, Step::Refused(_))));
}

#[test]
fn empty_lines_are_taken_as_they_come_and_leave_it_idle() {
    let mut receiver = Receiver::default();
    for _ in 0..4 {
        assert_eq!(receiver.step(b"\r", &LIMITS), (0, Step::Incomplete));
        assert!(!receiver.is_idle(), "half a line is the start of something");
        assert_eq!(receiver.step(b"\r\n\r\n", &LIMITS), (4, Step::Incomplete));
        assert!(receiver.is_idle());
    }
    let refused = receiver.step(b"\r\n", &LIMITS);
    assert!(matches!(refused, (0, Step::Refused(Refusal { status: 400, .. }))), "{refused:?}");
    // Each request has as many before it.
    let lines = "\r\n".repeat(8);
    let request = format!("{lines}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(outcome(request.repeat(2)), ["GET /", "GET /"]);
}

#[test]
fn it_is_idle_between_two_requests_and_in_a_body_within_one() {
    let mut receiver = Receiver::default();
    let mut seen = Vec::new();
    let mut see = |receiver: &Receiver| seen.push((receiver.is_idle(), receiver.is_in_body()));
    see(&receiver);
    let sized = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    receiver.step(&sized[..4], &LIMITS);
    see(&receiver);
    receiver.step(sized, &LIMITS);
    see(&receiver);
    assert_eq!(receiver.step(b"", &LIMITS), (0, Step::Incomplete));
    assert_eq!(receiver.step(b"ab", &LIMITS), (2, Step::Body(b"ab")));
    assert_eq!(receiver.step(b"", &LIMITS), (0, Step::End));
    see(&receiver);
    receiver.step(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &LIMITS);
    see(&receiver);
    assert_eq!(receiver.step(b"0\r\n\r\n", &LIMITS), (5, Step::End));
    see(&receiver);
    let (idle, head, body) = ((true, false), (false, false), (false, true));
    assert_eq!(seen, [idle, head, body, idle, body, idle]);
}

#[test]
fn a_head_request_is_known_by_its_first_word() {
    let is_head = |input: &str| {
        let mut receiver = Receiver::default();
        receiver.step(input.as_bytes(), &LIMITS);
        receiver.is_head()
    };
    let whole = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    for input in [whole, "HEAD ", "\r\nHEAD /", "HEAD / HTTP/9.9\r\n\r\n", "HEAD / x\n"] {
        assert!(is_head(input), "{input:?}");
    }
    for input in
        ["", "HEAD", "HEADER / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n", "head /"]
    {
        assert!(!is_head(input), "{input:?}");
    }
    let mut receiver = Receiver::default();
    let with_body = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    receiver.step(with_body, &LIMITS);
    receiver.step(b"x", &LIMITS);
    assert!(receiver.is_head(), "its body is still its own");
    receiver.step(b"", &LIMITS);
    receiver.step(b"GET ", &LIMITS);
    assert!(!receiver.is_head());
}

#[test]
fn trailers_and_extensions_may_be_as_many_as_their_limits() {
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |rest: &str| outcome(format!("{CHUNKED}{rest}")).pop().unwrap_or_default();
    let trailers = |count: usize| body(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    assert_eq!((trailers(4), trailers(5)), ("end".into(), "431".into()));
    let trailer = |bytes: usize| {
        let value = "v".repeat(bytes - "X: \r\n".len());
        body(&format!("0\r\nX: {value}\r\n\r\n"))
    };
    assert_eq!((trailer(128), trailer(129)), ("end".into(), "431".into()));
    // Over all chunks of a message; too long to be cut everywhere.
    let extension = "a".repeat(2047);
    let chunks = |more: &str| {
        let rest = format!("1;{extension}\r\nx\r\n1;{extension}{more}\r\nx\r\n0\r\n\r\n");
        feed([CHUNKED, &rest].map(str::as_bytes), &LIMITS).pop()
    };
    assert_eq!(
        (chunks(""), chunks("a")),
        (Some(Seen::End), Some(Seen::Refused { status: 400, is_head: false }))
    );
}

#[test]
fn fields_keep_their_order_and_lose_the_white_space_around_them() {
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nX:y\r\nEmpty:\r\nX: \t b c \t\r\n\r\n";
    let (_, step) = Receiver::default().step(text, &LIMITS);
    let Step::Head(head) = step else {
        panic!("a head");
    };
    let fields: Vec<_> = head.request.fields.iter().collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"Host", b"a"), (b"X", b"y"), (b"Empty", b""), (b"X", b"b c")];
    assert_eq!(fields, expected);
}

#[test]
fn slashes_stay_where_they_are_not_to_be_merged() {
    let limits = Limits { merge_slashes: false, ..LIMITS };
    let path = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        match feed([text.as_bytes()], &limits).pop() {
            Some(Seen::Head { request, .. }) => request,
            other => panic!("{target} came to {other:?}"),
        }
    };
    assert_eq!(path("//a///b//"), "GET //a///b//");
    assert_eq!(path("/%2fa"), "GET //a");
    // As RFC 3986 §5.2.4 has it: an empty segment is one to climb from.
    assert_eq!(path("/a//./b"), "GET /a//b");
    assert_eq!(path("/a//../b"), "GET /a/b");
}
