//! Connections over a pair of sockets, without a loop: content that comes piece by piece, and what a connection costs.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::config::{self, Config, Options};
use crate::content::{
    Answer, Body, FileSpan, Handler, Job, Kept, Outcome, Pending, Piece, Reply, ResponseOf, Site,
    Stream,
};
use crate::http::{Limits, Request, Response};
use crate::observe::ledger::labels::RefusedFor;
use crate::observe::ledger::{self, Ledger};
use crate::worker::driver::epoll;
use crate::worker::{self, context};

/// Content in pieces: how often this one, and what length is stated.
struct Pieces {
    response: Response,
    piece: Vec<u8>,
    count: usize,
    length: Option<u64>,
    /// What it comes to behind them, if not the end.
    end: Option<fn() -> Piece<'static>>,
    /// How many were asked for.
    asked: Arc<AtomicUsize>,
}

impl Handler for Pieces {
    fn answer(&self, _: &Request<'_>, _: &Kept) -> Answer<'_> {
        let stream = Box::new(Under { of: self, left: self.count });
        let (response, body) = (ResponseOf::Site(&self.response), Body::Stream(stream));
        Answer::Known(Outcome::Ready(Reply { response, body }))
    }
}

struct Under<'s> {
    of: &'s Pieces,
    left: usize,
}

impl Stream for Under<'_> {
    fn length(&self) -> Option<u64> {
        self.of.length
    }

    fn next(&mut self) -> Piece<'_> {
        let Some(left) = self.left.checked_sub(1) else {
            return self.of.end.map_or(Piece::End, |end| end());
        };
        self.left = left;
        self.of.asked.fetch_add(1, Ordering::Relaxed);
        Piece::Bytes(Cow::Borrowed(&self.of.piece))
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

/// A site whose every response is `count` times this piece; how many of them were asked for is counted.
fn pieces(piece: &[u8], count: usize, length: Option<u64>) -> (Site, Arc<AtomicUsize>) {
    pieces_and(piece, count, length, None)
}

/// The same, and what comes behind them.
fn pieces_and(
    piece: &[u8],
    count: usize,
    length: Option<u64>,
    end: Option<fn() -> Piece<'static>>,
) -> (Site, Arc<AtomicUsize>) {
    let asked = Arc::default();
    let response = Response::new(200, [("A", "b")], None);
    let handler =
        Pieces { response, piece: piece.into(), count, length, end, asked: Arc::clone(&asked) };
    (Site::of(Box::new(handler)), asked)
}

struct Lane {
    config: Config,
    limits: Limits,
    ledger: Ledger,
}

impl Lane {
    fn new() -> Lane {
        let config = config::load(&Options::default()).expect("the defaults").config;
        Lane { limits: worker::limits(&config), config, ledger: Ledger::new(1).expect("a ledger") }
    }

    fn serve<'s>(&'s self, site: &'s Site) -> Pair<'s> {
        let (client, connection) = connect();
        Pair {
            client,
            connection,
            driver: Driver::Epoll(epoll::Driver::new().expect("a driver")),
            context: Context::new(site, &self.limits, &self.config, &self.ledger, 0),
        }
    }
}

/// A connection with its client, in one thread.
struct Pair<'s> {
    client: UnixStream,
    connection: Connection<'s>,
    context: Context<'s>,
    driver: Driver,
}

/// A client's end, and the connection at the other.
fn connect<'s>() -> (UnixStream, Connection<'s>) {
    let (client, server) = UnixStream::pair().expect("a pair");
    client.set_nonblocking(true).expect("nonblocking");
    server.set_nonblocking(true).expect("nonblocking");
    (client, Connection::new(server.into()))
}

/// One turn of a loop, in which a connection has something to read, or room to send.
fn turn<'s>(
    connection: &mut Connection<'s>,
    lane: &mut Context<'s>,
    driver: &mut Driver,
    readable: bool,
) -> Next {
    let ready = Ready { readable, writable: true, ..Ready::quiet(0) };
    connection.set_queued(false);
    step(connection, lane, driver, |connection, input, lane| {
        connection.on_ready(ready, input, lane)
    })
}

/// One step of a connection, as a loop takes it.
fn step<'s>(
    connection: &mut Connection<'s>,
    lane: &mut Context<'s>,
    driver: &mut Driver,
    step: impl FnOnce(&mut Connection<'s>, &mut Input<'_>, &mut Context<'s>) -> Next,
) -> Next {
    let mut buffer = [0; 1024];
    let mut input = Input::new(None, Some(&mut buffer));
    let attempt = panic::catch_unwind(AssertUnwindSafe(|| step(connection, &mut input, lane)));
    let next = attempt.unwrap_or_else(|_| connection.on_panic(&mut input, lane));
    connection.end_turn(next, driver, 0, lane)
}

impl Pair<'_> {
    fn ask(&mut self, request: &str) -> Next {
        self.client.write_all(request.as_bytes()).expect("room");
        self.turn(true)
    }

    fn turn(&mut self, readable: bool) -> Next {
        let next = turn(&mut self.connection, &mut self.context, &mut self.driver, readable);
        assert!(self.context.output.is_empty(), "it is left for another connection");
        next
    }

    /// Everything that is there for the client.
    fn received(&mut self) -> Vec<u8> {
        let (mut received, mut buffer) = (Vec::new(), [0; 64 << 10]);
        loop {
            match self.client.read(&mut buffer) {
                Ok(0) => return received,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return received,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Turns until the connection waits for its client to send more, and says what that has received.
    fn conversation(&mut self, request: &str) -> String {
        let mut next = self.ask(request);
        let mut received = self.received();
        while self.connection.transport.is_blocked() || matches!(next, Next::Again(_)) {
            next = self.turn(false);
            received.extend(self.received());
        }
        String::from_utf8(received).expect("text")
    }
}

#[test]
fn content_of_unknown_length_leaves_in_chunks_and_the_connection_goes_on() {
    let (site, lane) = (pieces(b"0123456789abcdef", 3, None).0, Lane::new());
    let mut pair = lane.serve(&site);
    for _ in 0..2 {
        let text = pair.conversation("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n"));
        let chunk = "10\r\n0123456789abcdef\r\n";
        assert!(text.ends_with(&format!("\r\n\r\n{}0\r\n\r\n", chunk.repeat(3))), "{text}");
        assert!(pair.connection.is_idle());
    }
    let text = pair.conversation("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n") && text.ends_with("\r\n\r\n"));
    assert_eq!(text.matches("\r\n\r\n").count(), 1, "{text}");
    assert!(pair.connection.is_idle());
}

#[test]
fn requests_behind_a_stream_are_answered_after_it() {
    let (site, lane) = (pieces(b"x", 2, None).0, Lane::new());
    let text = lane.serve(&site).conversation(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3);
    assert_eq!(text.matches("\r\n\r\n1\r\nx\r\n1\r\nx\r\n0\r\n\r\n").count(), 3, "{text}");
}

#[test]
fn content_of_unknown_length_ends_with_the_connection_in_http_1_0() {
    let (site, lane) = (pieces(b"x", 3, None).0, Lane::new());
    let mut pair = lane.serve(&site);
    let text = pair.conversation("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(text.ends_with("\r\nConnection: close\r\n\r\nxxx"), "{text}");
    assert!(!text.contains("Transfer-Encoding"), "{text}");
    assert!(matches!(pair.connection.stage, Stage::Lingering(_)));
}

#[test]
fn content_that_is_shorter_than_was_stated_ends_its_connection() {
    for (count, is_whole) in [(3, false), (4, true)] {
        let (site, lane) = (pieces(b"x", count, Some(4)).0, Lane::new());
        let mut pair = lane.serve(&site);
        let text = pair.conversation("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(text.contains("\r\nContent-Length: 4\r\n"), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\n{}", "x".repeat(count))), "{text}");
        assert_eq!(pair.connection.is_idle(), is_whole);
        assert_eq!(matches!(pair.connection.stage, Stage::Lingering(_)), !is_whole);
        assert_eq!((ended(&lane).0, ended(&lane).1), (is_whole.into(), (!is_whole).into()));
    }
}

#[test]
fn a_stream_is_made_no_faster_than_its_client_reads_it() {
    const PIECE_BYTES: usize = 16 << 10;
    const COUNT: usize = 1_000;
    let (site, asked) = pieces(&vec![b'x'; PIECE_BYTES], COUNT, Some((PIECE_BYTES * COUNT) as u64));
    let lane = Lane::new();
    let mut pair = lane.serve(&site);
    let mut next = pair.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while !pair.connection.transport.is_blocked() {
        assert!(matches!(next, Next::Again(_)), "{next:?}");
        next = pair.turn(false);
    }
    let (before, held) = (asked.load(Ordering::Relaxed), pair.connection.held_bytes());
    assert!(before < COUNT / 2, "{before} pieces of {COUNT}, of which none was read");
    let held_max = 2 * (context::output::OUTPUT_BYTES_MAX + PIECE_BYTES);
    let unsent = pair.connection.transport.unsent_bytes();
    assert!((unsent..held_max).contains(&held), "{held} bytes are held for {unsent}");
    for _ in 0..10 {
        assert!(matches!(pair.turn(false), Next::WaitUntil(_)));
    }
    assert_eq!(asked.load(Ordering::Relaxed), before, "the client has read nothing");
    let mut length = 0;
    while pair.connection.transport.is_blocked() || matches!(next, Next::Again(_)) {
        length += pair.received().len();
        next = pair.turn(false);
    }
    length += pair.received().len();
    assert!(length > PIECE_BYTES * COUNT && length < PIECE_BYTES * COUNT + 1024, "{length}");
    assert!(pair.connection.is_idle());
}

#[test]
fn a_stream_that_its_client_reads_at_once_leaves_others_their_turn() {
    let (site, asked) = pieces(&[b'x'; 64], 100_000, None);
    let lane = Lane::new();
    let mut pair = lane.serve(&site);
    let next = pair.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(pair.connection.transport.is_blocked() || matches!(next, Next::Again(_)), "{next:?}");
    assert!(asked.load(Ordering::Relaxed) < 10_000);
}

#[test]
fn a_stream_that_fails_is_not_taken_for_whole() {
    for length in [None, Some(9)] {
        let (site, lane) = (pieces_and(b"x", 2, length, Some(|| Piece::Failed)).0, Lane::new());
        let mut pair = lane.serve(&site);
        let text = pair.conversation("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(text.ends_with("xx") || text.ends_with("x\r\n1\r\nx\r\n"), "{text}");
        assert!(matches!(pair.connection.stage, Stage::Lingering(_)));
        assert_eq!(ended(&lane), (0, 1, text.len() as u64), "what is cut is no response");
    }
    // Where the end of the connection is the end of the content, a reset alone tells.
    let (site, lane) = (pieces_and(b"x", 2, None, Some(|| Piece::Failed)).0, Lane::new());
    assert_eq!(lane.serve(&site).ask("GET / HTTP/1.0\r\n\r\n"), Next::Close);
}

#[test]
fn a_stream_that_panics_ends_its_connection_without_another_response() {
    let end: fn() -> Piece<'static> = || panic!("a stream");
    // It panics at the first thing that its connection does in a turn.
    let count = STEPS_PER_TURN * context::output::PIECES_PER_FILL;
    let (site, lane) = (pieces_and(&[b'x'; 16], count, None, Some(end)).0, Lane::new());
    let mut pair = lane.serve(&site);
    let mut next = pair.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut received = Vec::new();
    let (mut other_client, mut other) = connect();
    while pair.connection.transport.is_blocked() || matches!(next, Next::Again(_)) {
        received.extend(pair.received());
        // Its lane has worked for another connection in the meantime.
        other_client.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("room");
        turn(&mut other, &mut pair.context, &mut pair.driver, true);
        next = pair.turn(false);
    }
    received.extend(pair.received());
    assert_eq!(next, Next::Close);
    let text = String::from_utf8(received).expect("text");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1);
    assert!(!text.ends_with("0\r\n\r\n"));
    let before = ended(&lane);
    pair.connection.abandon(&mut pair.context);
    assert_eq!((ended(&lane).0, ended(&lane).1), (before.0, before.1 + 1));
}

/// Answers as a function says.
struct Answers(for<'s> fn(&'s Answers) -> Answer<'s>);

impl Handler for Answers {
    fn answer(&self, _: &Request<'_>, _: &Kept) -> Answer<'_> {
        (self.0)(self)
    }
}

#[test]
fn a_request_is_counted_before_it_is_answered() {
    let (site, lane) = (Site::of(Box::new(Answers(|_| panic!("a handler")))), Lane::new());
    let mut pair = lane.serve(&site);
    let text = pair.conversation("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
    let counters = lane.ledger.block(0);
    assert_eq!((counters.cells().requests.get(), counters.doing()), (1, ledger::Doing::Route(0)));
}

#[test]
fn a_full_lane_takes_no_reply_that_holds_memory() {
    const HELD: usize = 1 << 20;
    fn reply<'s>() -> Reply<'s> {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        Reply { response, body: Body::Owned(vec![b'x'; HELD]) }
    }
    fn ready(_: &Answers) -> Answer<'_> {
        Answer::Known(Outcome::Ready(reply()))
    }
    fn late(_: &Answers) -> Answer<'_> {
        Answer::Known(Outcome::Pending(Pending::Delay(Duration::from_secs(60), reply())))
    }
    let upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    for (answer, request) in [
        (late as for<'s> fn(&'s Answers) -> Answer<'s>, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (ready, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (ready, upload),
    ] {
        let (site, lane) = (Site::of(Box::new(Answers(answer))), Lane::new());
        let mut refused = 0;
        for (room, is_refused) in [(HELD, false), (HELD - 1, true)] {
            let mut pair = lane.serve(&site);
            pair.context.held_elsewhere = context::HELD_BYTES_MAX - room;
            pair.ask(request);
            let text = String::from_utf8(pair.received()).expect("text");
            assert_eq!(text.starts_with("HTTP/1.1 503 "), is_refused, "{request:?}: {room}");
            refused += u64::from(is_refused);
            let counted = lane.ledger.block(0).counts().refused(RefusedFor::Overloaded);
            assert_eq!(counted, refused, "{request:?}: {room}");
        }
    }
}

#[test]
fn no_more_is_asked_of_a_stream_than_was_stated_and_little_at_once_of_one_that_is_empty() {
    let (site, asked) = pieces(b"x", usize::MAX, Some(4));
    let lane = Lane::new();
    let mut pair = lane.serve(&site);
    let text = pair.conversation("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.ends_with("\r\n\r\nxxxx"), "{text}");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert!(pair.connection.is_idle());

    let (site, asked) = pieces(b"", usize::MAX, None);
    let next = lane.serve(&site).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(next, Next::Again(_)), "{next:?}");
    assert!(asked.load(Ordering::Relaxed) < 10_000);
}

#[test]
fn streams_behind_each_other_leave_others_their_turn() {
    const PIECE_BYTES: usize = 60 << 10;
    let (site, asked) = pieces(&[b'x'; PIECE_BYTES], 1, None);
    let lane = Lane::new();
    let mut pair = lane.serve(&site);
    let next = pair.ask(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    assert!(pair.connection.transport.is_blocked() || matches!(next, Next::Again(_)), "{next:?}");
    assert!(asked.load(Ordering::Relaxed) <= 4 * STEPS_PER_TURN);
    let mut length = pair.received().len();
    while pair.connection.transport.is_blocked() || !pair.connection.is_idle() {
        pair.turn(false);
        length += pair.received().len();
    }
    assert!(length > 20 * PIECE_BYTES, "{length}");
}

/// Responses that have left, requests that were aborted, and bytes of responses.
fn ended(lane: &Lane) -> (u64, u64, u64) {
    let counts = lane.ledger.block(0).counts();
    (counts.responses(), counts.aborted(), counts.response_bytes())
}

#[test]
fn a_request_is_over_when_the_last_byte_of_its_response_has_left() {
    const BYTES: usize = 16 << 20;
    let (site, lane) = (pieces(&vec![b'x'; BYTES / 16], 16, Some(BYTES as u64)).0, Lane::new());
    let mut pair = lane.serve(&site);
    let mut next = pair.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut length = 0;
    while pair.connection.transport.is_blocked() || matches!(next, Next::Again(_)) {
        assert_eq!((ended(&lane).0, ended(&lane).1), (1, 0), "the HEAD alone");
        length += pair.received().len();
        next = pair.turn(false);
    }
    length += pair.received().len();
    assert_eq!(ended(&lane), (2, 0, length as u64));
    // What is refused is answered, too.
    length += pair.conversation("GET / HTTP/1.1\r\n\r\n").len();
    assert_eq!(ended(&lane), (3, 0, length as u64));
    pair.connection.abandon(&mut pair.context);
    assert_eq!(ended(&lane), (3, 0, length as u64));
}

#[test]
fn what_is_in_flight_when_its_connection_is_closed_is_aborted() {
    let (site, lane) = (pieces(&[b'x'; 1024], 10_000, None).0, Lane::new());
    let mut aborted = 0;
    for (request, responses) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell", 0),
    ] {
        let mut pair = lane.serve(&site);
        pair.ask(request);
        pair.connection.abandon(&mut pair.context);
        aborted += 1;
        assert_eq!((ended(&lane).0, ended(&lane).1), (responses, aborted), "{request}");
    }
    // Nothing is in flight between two requests, or within a head.
    for request in ["", "GET / HTTP/1.1\r\n"] {
        let mut pair = lane.serve(&site);
        pair.ask(request);
        pair.connection.abandon(&mut pair.context);
        assert_eq!((ended(&lane).0, ended(&lane).1), (0, aborted), "{request}");
    }
}

#[test]
fn what_exists_per_connection_is_small() {
    assert_eq!(size_of::<Connection<'_>>(), 80);
    assert_eq!(size_of::<Option<Connection<'_>>>(), 80, "a place for one");
    assert_eq!(size_of::<Session<'_>>(), 56);
}

mod files;
mod introduction;
mod jobs;
mod waiting;
