//! HTTP/1.1 on the wire: where one message ends and the next begins, whatever the pieces it comes in.
//!
//! Single inputs, refused and served, are the table of `http_cases.rs`; here is what takes a conversation.

mod harness;

use harness::{Client, Mode, Server, Setup, in_every_mode, skipped};
use std::process::Command;
use std::time::Duration;

in_every_mode!(
    ten_pipelined_requests_are_answered_in_order,
    a_delayed_response_keeps_its_place_in_a_pipeline,
    a_request_split_at_every_position_is_answered,
    a_chunked_body_split_at_every_position_is_echoed,
    a_request_that_comes_byte_by_byte_is_answered,
    chunk_extensions_and_trailers_are_not_part_of_the_body,
    http_1_0_closes_unless_it_asks_to_keep_alive,
    connection_close_ends_the_connection_after_the_response,
    a_client_that_expects_100_is_told_to_continue,
    an_absolute_target_overrides_the_host_field,
    a_body_that_no_route_wants_is_never_taken_for_a_request,
    a_half_closed_connection_is_answered_and_closed,
    a_client_of_http_2_is_told_to_go_away_in_its_own_words,
    curl_understands_that_http_2_is_not_spoken_here,
);
harness::in_may!(
    ten_pipelined_requests_are_answered_in_order,
    a_delayed_response_keeps_its_place_in_a_pipeline,
    a_request_split_at_every_position_is_answered,
    http_1_0_closes_unless_it_asks_to_keep_alive,
    an_absolute_target_overrides_the_host_field,
);

const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: a\r\n\r\n";
const CANARY_BODY: &str = "the canary sings";

const ROUTES: &str = r#"
[[route]]
path = "/echo"
echo = "body"
[[route]]
path = "/canary"
text = "the canary sings"
[[route]]
path = "/slow"
text = "slow"
delay = "300ms"
[[route]]
path = "/hosted"
host = "b.example"
text = "host b"
"#;

/// One lane, so that an answer on another connection proves that the loop has read what came before.
fn server(mode: Mode) -> Server {
    Setup::new(mode).lanes(1).routes(ROUTES).start()
}

/// Sends the pieces so that the server reads them one at a time: between two, it answers a request on
/// another connection of the same lane.
fn send_apart<'a>(
    client: &mut Client,
    pacer: &mut Client,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) {
    for piece in pieces {
        // The server may have refused what it has, and closed; what it answered is read afterwards.
        if client.try_send(piece).is_err() {
            return;
        }
        assert_eq!(pacer.get("/").status, 200);
    }
}

fn responses_in(mut stream: &[u8]) -> Vec<String> {
    // Only status lines are wanted; the bodies of these tests contain nothing that looks like one.
    let mut found = Vec::new();
    while let Some(at) = stream.windows(9).position(|window| window == b"HTTP/1.1 ") {
        let line = &stream[at + 9..];
        found.push(String::from_utf8_lossy(&line[..line.len().min(3)]).into_owned());
        stream = line;
    }
    found
}

fn ten_pipelined_requests_are_answered_in_order(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    let request = |number: usize| {
        let body = format!("request {number}");
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    client.send((0..10).map(request).collect::<String>());
    for number in 0..10 {
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, &*format!("request {number}")));
    }
}

fn a_delayed_response_keeps_its_place_in_a_pipeline(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    client.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n{CANARY}"));
    assert_eq!(client.response().text(), "slow");
    assert_eq!(client.response().text(), CANARY_BODY);
}

fn a_request_split_at_every_position_is_answered(mode: Mode) {
    let server = server(mode);
    let (mut client, mut pacer) = (server.connect(), server.connect());
    let request = CANARY.as_bytes();
    for at in 1..request.len() {
        let (first, second) = request.split_at(at);
        send_apart(&mut client, &mut pacer, [first, second]);
        assert_eq!(client.response().text(), CANARY_BODY, "split at {at}");
    }
}

const CHUNKED: &[u8] = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                         5\r\nhello\r\n1;x=y\r\n,\r\n00A\r\n two\r\nline\r\n0\r\nTrailer: x\r\n\r\n";
const CHUNKED_BODY: &str = "hello, two\r\nline";

fn a_chunked_body_split_at_every_position_is_echoed(mode: Mode) {
    let server = server(mode);
    let (mut client, mut pacer) = (server.connect(), server.connect());
    for at in 1..CHUNKED.len() {
        let (first, second) = CHUNKED.split_at(at);
        send_apart(&mut client, &mut pacer, [first, second]);
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, CHUNKED_BODY), "split at {at}");
    }
}

fn a_request_that_comes_byte_by_byte_is_answered(mode: Mode) {
    let server = server(mode);
    let (mut client, mut pacer) = (server.connect(), server.connect());
    for request in [CANARY.as_bytes(), CHUNKED] {
        send_apart(&mut client, &mut pacer, request.chunks(1));
        assert_eq!(client.response().status, 200);
    }
}

fn chunk_extensions_and_trailers_are_not_part_of_the_body(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    // A trailer never frames anything (RFC 9110 §6.5.1), or the canary would be its body.
    let trailer = "Content-Length: 50\r\n";
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    client.send(format!("{head}5;a=b;c=\"d\"\r\nhello\r\n0\r\n{trailer}\r\n{CANARY}"));
    assert_eq!(client.response().text(), "hello");
    assert_eq!(client.response().text(), CANARY_BODY);
}

fn http_1_0_closes_unless_it_asks_to_keep_alive(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    let response = client.request("GET /canary HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.text()), (200, CANARY_BODY));
    client.expect_end();

    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.request("GET /canary HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let connection = response.header("connection").unwrap_or_default();
        assert!(connection.eq_ignore_ascii_case("keep-alive"), "it must be told: {response:?}");
    }
}

fn connection_close_ends_the_connection_after_the_response(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    client.send(format!("GET /canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{CANARY}"));
    let response = client.response();
    assert_eq!(response.text(), CANARY_BODY);
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
}

fn a_client_that_expects_100_is_told_to_continue(mode: Mode) {
    let server = server(mode);
    let expecting = |version: &str| {
        format!(
            "POST /echo HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = server.connect();
    let interim = client.request(expecting("1.1"));
    assert_eq!((interim.status, interim.header("content-length")), (100, None));
    let response = client.request("hello");
    assert_eq!((response.status, response.text()), (200, "hello"));

    // HTTP/1.0 has no interim responses, so the first thing it hears is the answer.
    let mut client = server.in_flight(expecting("1.0"));
    assert!(!client.hears_within(Duration::from_millis(1)));
    assert_eq!(client.request("hello").text(), "hello");
}

fn an_absolute_target_overrides_the_host_field(mode: Mode) {
    let server = server(mode);
    let mut client = server.connect();
    let response = client.request("GET http://b.example/hosted?x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.text()), (200, "host b"));
    let other = client.request("GET http://c.example/hosted HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(other.status, 404);
}

fn a_body_that_no_route_wants_is_never_taken_for_a_request(mode: Mode) {
    let server = server(mode);
    let length = CANARY.len();
    for (head, status) in
        [("GET / HTTP/1.1", 200), ("POST / HTTP/1.1", 405), ("POST /missing HTTP/1.1", 404)]
    {
        let chunked =
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{CANARY}\r\n0\r\n\r\n");
        for body in [format!("Content-Length: {length}\r\n\r\n{CANARY}"), chunked] {
            let mut client = server.connect();
            client.send(format!("{head}\r\nHost: a\r\n{body}"));
            client.send("GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let stream = client.rest();
            let seen = responses_in(&stream);
            // What follows is either skipped and the next request answered, or the connection closed.
            assert_eq!(seen[0], status.to_string(), "{head} {body:?}");
            let text = String::from_utf8_lossy(&stream);
            assert!(!text.contains(CANARY_BODY), "{head} {body:?} let the canary sing");
            let closed_early =
                seen.len() == 1 && text.to_ascii_lowercase().contains("connection: close");
            assert!(closed_early || text.ends_with("slow"), "{head} {body:?} got {text}");
        }
    }
}

/// What a client of HTTP/2 begins with: its preface, empty settings, and a stream that it opens.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x04\x01\x05\0\0\0\x01\x82\x84\x86\x41";

fn a_client_of_http_2_is_told_to_go_away_in_its_own_words(mode: Mode) {
    let server = server(mode);
    let mut pacer = server.connect();
    let mut check = |pieces: &[&[u8]]| {
        let mut client = server.connect();
        send_apart(&mut client, &mut pacer, pieces.iter().copied());
        client.send("more of what it may send before it hears");
        let frames = client.rest();
        // Frames are a length in 3 bytes, a type, flags, a stream in 4 (RFC 9113 §4.1). Settings first, and empty.
        assert_eq!(&frames[..9], b"\0\0\0\x04\0\0\0\0\0", "{frames:?}");
        let goaway = &frames[9..];
        assert_eq!(&goaway[..2], b"\0\0", "{frames:?}");
        assert_eq!(usize::from(goaway[2]), goaway.len() - 9, "the length of the frame");
        // GOAWAY: nothing was looked at, HTTP_1_1_REQUIRED.
        assert_eq!(&goaway[3..17], b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d", "{frames:?}");
        assert!(!client.was_reset());
    };
    check(&[PREFACE]);
    check(&PREFACE.chunks(1).collect::<Vec<_>>());
    for at in 1..PREFACE.len() {
        let (first, second) = PREFACE.split_at(at);
        check(&[first, second]);
    }
    // Anything else of HTTP/2.0 comes from a client of HTTP/1.
    for line in ["PRI / HTTP/2.0", "GET * HTTP/2.0", "PRI * HTTP/2.1"] {
        let response = server.connect().request(format!("{line}\r\n\r\n"));
        assert_eq!(response.status, 505, "{line}");
    }
}

fn curl_understands_that_http_2_is_not_spoken_here(mode: Mode) {
    let about = Command::new("curl").arg("--version").output();
    if !about.is_ok_and(|about| String::from_utf8_lossy(&about.stdout).contains("HTTP2")) {
        return skipped("there is no curl that speaks HTTP/2");
    }
    let server = server(mode);
    let url = format!("http://{}/", server.address());
    let mut curl = Command::new("curl");
    let output = curl.args(["-sv", "--http2-prior-knowledge", &url]).output().expect("run curl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("GOAWAY, error=13"), "{said}");
}

fn a_half_closed_connection_is_answered_and_closed(mode: Mode) {
    let server = server(mode);
    for path in ["/canary", "/slow"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.end_of_sending();
        assert_eq!(client.response().status, 200, "{path}");
        client.expect_end();
    }
}
