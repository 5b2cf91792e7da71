//! What must hold for any input, with inputs made at random from what requests are made of. The fuzz targets
//! (`fuzz/`) hold the same for longer, and look for inputs themselves.

mod oracle;

use std::fmt;

use laneway::internals::http;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What requests, good and bad, are made of.
const FRAGMENTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /late HTTP/1.1\r\n",
    "HEAD /big HTTP/1.1\r\n",
    "HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "HEAD /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PURGE /request HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET //%2Fbig HTTP/1.1\r\nHost: %61\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
    "GET /big HTTP/1.1\r\n",
    "POST /echo HTTP/1.1\r\n",
    "POST /request HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://b/../x?%41 HTTP/1.0\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 600\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\n",
    "\r",
    "hello",
    "5\r\nhello\r\n",
    "A;x=\"y\"\r\n0123456789\r\n",
    "5 ; a = b\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    " ",
    ":",
    "\0",
    "%2e%2e/",
];

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => select(FRAGMENTS).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ]
}

/// Bytes that a failure shows as text.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

fn stream() -> impl Strategy<Value = Bytes> {
    vec(fragment(), 0..16).prop_map(|fragments| Bytes(fragments.concat()))
}

fn chunked_body() -> impl Strategy<Value = Bytes> {
    let parts = select(
        &[
            "5",
            "0",
            "A",
            "\r\n",
            "\r\n",
            "hello",
            "0123456789",
            ";a=b",
            "X: y",
            ";",
            "\n",
            " ",
            "=b",
            "00000000",
        ][..],
    );
    vec(parts, 0..24).prop_map(|parts| Bytes(parts.concat().into_bytes()))
}

fn places() -> impl Strategy<Value = Vec<usize>> {
    vec(any::<usize>(), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_comes_to_the_same_in_any_pieces((stream, places) in (stream(), places())) {
        oracle::check_stream(&stream.0, &places);
    }

    #[test]
    fn two_decoders_agree_on_a_chunked_body((body, places) in (chunked_body(), places())) {
        oracle::check_chunks(&body.0, &places);
    }

    #[test]
    fn a_connection_answers_the_same_to_any_pieces((stream, places) in (stream(), places())) {
        oracle::check_connection(&stream.0, &places);
    }
}

/// A conversation that the oracle holds with a connection, and no more than what it should come to.
#[test]
fn the_oracle_waits_for_delays_and_deadlines() {
    use oracle::connection::{Then, converse};
    let said = |stream: &str, then| {
        String::from_utf8(converse(&[stream.as_bytes()], then)).expect("heads and texts in ASCII")
    };
    let late = said("GET /late HTTP/1.1\r\nHost: a\r\n\r\n", Then::Ends);
    assert!(late.starts_with("HTTP/1.1 200 ") && late.ends_with("\r\n\r\nlate"), "{late:?}");
    let within = "/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell";
    for (rest, method) in [(" /", "GET"), (" /", "HEAD"), (within, "POST "), (within, "HEAD ")] {
        let stream = format!("{method}{rest}");
        let answer = said(&stream, Then::IsSilent);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{stream:?}: {answer:?}");
        assert_eq!(answer.ends_with("\r\n\r\n"), method.starts_with("HEAD"), "{answer:?}");
        assert_eq!(said(&stream, Then::Ends), "", "{stream:?}");
    }
    assert_eq!(said("\r\n", Then::IsSilent), "");
}
