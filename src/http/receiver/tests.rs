//! The receiver, fed by hand.

use super::*;
use crate::http::{Method, Version};

const LIMITS: Limits = Limits { request_line: 64, header_bytes: 128, headers: 4, body: 32 };

/// What a stream of requests came to, with borrowed pieces made whole.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request(String),
    Body(String),
    End,
    Refused(u16),
}

/// Feeds `input` in pieces that end at `cuts`, as the worker does: what isn't consumed is kept, and
/// offered again with the next piece behind it.
fn feed(input: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut receiver = Receiver::default();
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([input.len()]) {
        kept.extend_from_slice(&input[from..to]);
        from = to;
        let mut position = 0;
        loop {
            let (consumed, step) = receiver.step(&kept[position..], &LIMITS);
            position += consumed;
            match step {
                Step::Incomplete => break,
                Step::Head(head) => {
                    let path = String::from_utf8_lossy(&head.target.path).into_owned();
                    seen.push(Seen::Request(format!("{} {path}", head.method.name())));
                }
                Step::Body(piece) => {
                    let piece = String::from_utf8_lossy(piece);
                    // How a body is cut into pieces is the network's doing, not the message's.
                    if let Some(Seen::Body(body)) = seen.last_mut() {
                        body.push_str(&piece);
                    } else {
                        seen.push(Seen::Body(piece.into_owned()));
                    }
                }
                Step::End => seen.push(Seen::End),
                Step::Refused(refusal) => {
                    seen.push(Seen::Refused(refusal.status));
                    return seen;
                }
            }
        }
        kept.drain(..position);
    }
    seen
}

/// Feeds `input` whole, cut in two at every place, and byte by byte; it must come to the same.
fn outcome(input: &[u8]) -> Vec<Seen> {
    let whole = feed(input, &[]);
    for cut in 0..=input.len() {
        assert_eq!(feed(input, &[cut]), whole, "cut at {cut}: {}", input.escape_ascii());
    }
    let every: Vec<usize> = (1..input.len()).collect();
    assert_eq!(feed(input, &every), whole, "byte by byte: {}", input.escape_ascii());
    whole
}

fn request(text: &str) -> Seen {
    Seen::Request(text.into())
}

#[test]
fn pipelined_requests_come_in_order() {
    let one = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let two = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let three = b"\r\nHEAD /c HTTP/1.0\r\n\r\n";
    let all = [&one[..], two, three].concat();
    let body = Seen::Body("abc".into());
    let expected = [request("GET /a"), request("POST /b"), body, Seen::End, request("HEAD /c")];
    assert_eq!(outcome(&all), expected);
}

#[test]
fn chunked_bodies_are_decoded() {
    let bodies = [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("000A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", "0123456789x"),
        (
            "5;a=b;c;d=\"e \\\" f\"\r\nhello\r\n0;last\r\nT: v\r\nContent-Length: 50\r\n\r\n",
            "hello",
        ),
    ];
    for (body, expected) in bodies {
        let input = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let expected =
            [request("POST /"), Seen::Body(expected.into()), Seen::End, request("GET /next")];
        assert_eq!(outcome(input.as_bytes()), expected, "{body}");
    }
}

#[test]
fn malformed_chunks_are_refused_and_what_follows_is_never_parsed() {
    let bodies = [
        "0x5",
        "+5",
        "-5",
        "5_0",
        " 5",
        "5 ",
        "",
        "G",
        "FFFFFFFFFFFFFFFF0",
        "5;",
        "5;a\rb",
        "5;a =b",
        "5\nhello",
        "5\r\nhelloXX",
        "5\r\nhello0\r\n",
        "0\r\nbad trailer: v",
        "0\r\nT: \x01",
    ];
    for body in bodies {
        let input = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\nhello\r\n0\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let outcome = outcome(input.as_bytes());
        assert_eq!(outcome.last(), Some(&Seen::Refused(400)), "{body:?}");
        assert!(!outcome.contains(&request("GET /canary")), "{body:?}");
    }
}

#[test]
fn each_refusal_has_its_status_and_its_repaired_twin_is_served() {
    // (bad, status, repaired); Host is added where no Host is at stake.
    let cases: &[(&str, u16, &str)] = &[
        ("GET /\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/1\r\nHost: a", 400, "GET / HTTP/1.2\r\nHost: a"),
        ("GET / HTTP/01.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / http/1.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/1.1 x\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/9.9\r\nHost: a", 505, "GET / HTTP/1.1\r\nHost: a"),
        ("GET  / HTTP/1.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET\t/ HTTP/1.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET /a b HTTP/1.1\r\nHost: a", 400, "GET /a%20b HTTP/1.1\r\nHost: a"),
        ("GET /\0 HTTP/1.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("FOO / HTTP/1.1\r\nHost: a", 501, "PUT / HTTP/1.1\r\nHost: a"),
        ("get / HTTP/1.1\r\nHost: a", 501, "GET / HTTP/1.1\r\nHost: a"),
        ("GET * HTTP/1.1\r\nHost: a", 400, "OPTIONS * HTTP/1.1\r\nHost: a"),
        ("GET a/b HTTP/1.1\r\nHost: a", 400, "GET /a/b HTTP/1.1\r\nHost: a"),
        ("CONNECT a: HTTP/1.1\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a", 501, "GET / HTTP/1.1\r\nHost: a"),
        ("GET /#f HTTP/1.1\r\nHost: a", 400, "GET /?f HTTP/1.1\r\nHost: a"),
        ("GET http:/// HTTP/1.1\r\nHost: a", 400, "GET http://b/ HTTP/1.1\r\nHost: a"),
        ("GET /%zz HTTP/1.1\r\nHost: a", 400, "GET /%41 HTTP/1.1\r\nHost: a"),
        ("GET /% HTTP/1.1\r\nHost: a", 400, "GET /%25 HTTP/1.1\r\nHost: a"),
        ("GET /../x HTTP/1.1\r\nHost: a", 400, "GET /a/../x HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/1.1\r\nX: y", 400, "GET / HTTP/1.0\r\nX: y"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/1.1\r\nHost: a b", 400, "GET / HTTP/1.1\r\nHost: a.b:80"),
        ("GET / HTTP/1.1\r\nHost: a:x", 400, "GET / HTTP/1.1\r\nHost: a:"),
        ("GET / HTTP/1.1\r\nHost: a:65536", 400, "GET / HTTP/1.1\r\nHost: a:65535"),
        ("GET / HTTP/1.1\r\nHost: [::1", 400, "GET / HTTP/1.1\r\nHost: [::1]:1"),
        ("GET / HTTP/1.1\r\nHost: u@a", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : v", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: v"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: a b"),
        ("GET / HTTP/1.1\r\nHost: a\nX: v", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: v"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb", 400, "GET / HTTP/1.1\r\nHost: a\r\nX: ab"),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a", 400, "\r\nGET / HTTP/1.1\r\nHost: a"),
        ("\x16\x03\x01\x02", 400, "GET / HTTP/1.1\r\nHost: a"),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: x", 417, "GET / HTTP/1.0\r\nExpect: x"),
    ];
    for (bad, status, repaired) in cases {
        let bad = format!("{bad}\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(bad.as_bytes()), [Seen::Refused(*status)], "{bad:?}");
        let repaired = format!("{repaired}\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n");
        let outcome = outcome(repaired.as_bytes());
        assert_eq!(outcome.len(), 2, "{repaired:?} came to {outcome:?}");
        assert_eq!(outcome[1], request("GET /canary"));
    }
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    let cases: &[(&str, u16)] = &[
        ("Content-Length: -1", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: ", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 99999999999999999999", 413),
        ("Content-Length: 33", 413),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding: chunked\0", 400),
        ("Transfer-Encoding: ", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked;a=b", 400),
    ];
    for (field, status) in cases {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n0\r\n\r\n");
        assert_eq!(outcome(input.as_bytes()), [Seen::Refused(*status)], "{field}");
    }
    let http10 = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(outcome(http10), [Seen::Refused(400)]);
    let leading_zeros = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello";
    assert_eq!(outcome(leading_zeros)[1], Seen::Body("hello".into()));
}

#[test]
fn limits_hold_at_n_and_n_plus_1() {
    let line = |bytes: usize| {
        let path = "a".repeat(bytes - "GET / HTTP/1.1".len());
        format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    assert!(matches!(outcome(line(64).as_bytes())[0], Seen::Request(_)));
    assert_eq!(outcome(line(65).as_bytes()), [Seen::Refused(414)]);

    let fields = |bytes: usize| {
        let value = "v".repeat(bytes - "Host: a\r\nX: \r\n".len());
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    assert_eq!(outcome(fields(128).as_bytes()), [request("GET /")]);
    assert_eq!(outcome(fields(129).as_bytes()), [Seen::Refused(431)]);

    let count =
        |lines: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(lines - 1));
    assert_eq!(outcome(count(4).as_bytes()), [request("GET /")]);
    assert_eq!(outcome(count(5).as_bytes()), [Seen::Refused(431)]);

    let sized = |bytes: usize| {
        let body = "b".repeat(bytes);
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}")
    };
    assert_eq!(outcome(sized(32).as_bytes()).len(), 3);
    assert_eq!(outcome(sized(33).as_bytes()), [Seen::Refused(413)]);

    let chunked = |bytes: usize| {
        let body = "b".repeat(bytes);
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            bytes
        )
    };
    assert_eq!(outcome(chunked(24).as_bytes()).last(), Some(&Seen::End));
    assert_eq!(outcome(chunked(25).as_bytes()).last(), Some(&Seen::Refused(413)));
}

#[test]
fn a_limit_is_enforced_before_the_line_ends() {
    let mut receiver = Receiver::default();
    let endless = [b'a'; 66];
    let (_, step) = receiver.step(&endless, &LIMITS);
    assert_eq!(step, Step::Refused(Refusal::REQUEST_LINE_TOO_LONG));
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
        assert_eq!(head.method, Method::Get);
        (head.version, head.keep_alive, head.expects_continue)
    };
    use Version::{Http10, Http11};
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a"), (Http11, true, false));
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close"), (Http11, false, false));
    assert_eq!(head("GET / HTTP/1.0"), (Http10, false, false));
    assert_eq!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive"), (Http10, true, false));
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue"), (Http11, true, true));
    assert_eq!(head("GET / HTTP/1.0\r\nExpect: 100-continue"), (Http10, false, false));
}

#[test]
fn paths_are_decoded_once_and_lose_their_dot_segments() {
    let path = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let seen = outcome(text.as_bytes());
        match &seen[..] {
            [Seen::Request(line)] => line.strip_prefix("GET ").unwrap().to_owned(),
            other => panic!("{target} came to {other:?}"),
        }
    };
    assert_eq!(path("/a/./b/../c?d=/../e"), "/a/c");
    assert_eq!(path("/a/%2e%2E/b"), "/b");
    assert_eq!(path("/a/.."), "/");
    assert_eq!(path("/a/."), "/a/");
    assert_eq!(path("/%252e%252e/x"), "/%2e%2e/x");
    assert_eq!(path("/.hidden"), "/.hidden");
    assert_eq!(path("/a//b"), "/a//b");
    assert_eq!(path("http://b?q"), "/");
    for bad in ["/a/../..", "/..%2fx", "/a%00b"] {
        let text = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), [Seen::Refused(400)], "{bad}");
    }
}
