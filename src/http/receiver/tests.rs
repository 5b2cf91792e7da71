//! The receiver, fed by hand: order, limits, and what a head says. Which inputs are refused is the table of
//! `tests/cases/`.

use super::*;
use crate::http::{self, Method, Version};

#[path = "../../../tests/oracle/engine.rs"]
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
        Seen::Head { request, .. } => request,
        Seen::Body(body) => String::from_utf8_lossy(&body).into_owned(),
        Seen::End => "end".into(),
        Seen::Refused(status) => status.to_string(),
    };
    whole.into_iter().map(in_words).collect()
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
    for bad in ["/a/../..", "/..%2fx", "/a%00b"] {
        let text = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(outcome(text), ["400"], "{bad}");
    }
}
