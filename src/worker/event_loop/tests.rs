//! Whole loops, without a supervisor: with connections that a test hands them, and both drivers.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::*;
use crate::config::{self, Networks, Options};
use crate::content::{
    Answer, Body, FileSpan, Handler, Job, Kept, Outcome, Pending, Piece, Reply, ResponseOf, Site,
    Stream,
};
use crate::control::{GenerationNumber, Received, Report};
use crate::http::{Request, Response};
use crate::observe::ledger::Ledger;
use crate::sys::socket::packet_pair;
use crate::worker::context::clients::Clients;
use crate::worker::driver::{epoll, io_uring};
use crate::worker::{self, Generation};

/// Has `test` do something with a loop in this accept mode, the supervisor's end of its control socket, and the
/// ledger, of which it has the first block.
pub(super) fn with_loop(accept: Accept, test: impl FnOnce(&mut EventLoop<'_>, &Control, &Ledger)) {
    let driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    with_loop_of(driver, &Site::new(&[], &Default::default()), accept, test);
}

fn with_loop_of(
    driver: Driver,
    site: &Site,
    accept: Accept,
    test: impl FnOnce(&mut EventLoop<'_>, &Control, &Ledger),
) {
    let mut config = config::load(&Options::default()).expect("the defaults").config;
    config.workers.accept = accept;
    let ledger = Arc::new(Ledger::new(1).expect("a ledger"));
    let generation =
        Generation::new(GenerationNumber::FIRST, config, Arc::new([]), Arc::clone(&ledger), None);
    let config = &generation.config;
    let limits = worker::limits(config);
    let (ours, theirs) = packet_pair().expect("a pair");
    let (control, theirs) = (Control::new(ours), Control::new(theirs));
    let context = Context::new(site, &limits, config, &ledger, 0);
    let mut event_loop =
        EventLoop::new(WorkerNumber(1), config, driver, &control, context, None).expect("a loop");
    test(&mut event_loop, &theirs, &ledger);
}

/// What the loop has reported, if it has.
pub(super) fn next_report(supervisor: &Control) -> Option<WorkerEvent> {
    match supervisor.receive::<Report>() {
        Received::Message(report, _) => Some(report.event),
        Received::Nothing => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_that_can_not_be_watched_counts_as_taken_and_rejected_and_not_as_open() {
    with_loop(Accept::Reuseport, |event_loop, _, ledger| {
        // epoll refuses what has no readiness.
        event_loop.adopt(File::open("/dev/null").expect("a file").into());
        let counters = ledger.block(0);
        assert_eq!((counters.accepted(), counters.open()), (1, 0));
        assert_eq!(counters.cells().rejected.at(RejectedFor::Unwatched).get(), 1);
    });
}

#[test]
fn a_connection_that_is_no_proxys_counts_as_taken_and_rejected_and_not_as_open() {
    with_loop(Accept::Reuseport, |event_loop, _, ledger| {
        event_loop.context.are_introduced = true;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // Without a list of proxies none is trusted; with one, none that isn't in it.
        for clients in [None, Some(Clients::new(Networks::default()))] {
            event_loop.context.clients = clients;
            let mut client = connect(event_loop, &listener);
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
        }
        let counters = ledger.block(0);
        assert_eq!((counters.accepted(), counters.open()), (2, 0));
        assert_eq!(counters.cells().rejected.at(RejectedFor::Untrusted).get(), 2);
    });
}

/// Every driver that there is here: the kernel may be too old for io_uring, or forbid it.
fn drivers() -> impl Iterator<Item = Driver> {
    let epoll = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    let io_uring = io_uring::Driver::new().ok();
    let io_uring = io_uring.map(|driver| Driver::IoUring(Box::new(driver)));
    [Some(epoll), io_uring].into_iter().flatten()
}

/// A client of the loop's.
fn connect(event_loop: &mut EventLoop<'_>, listener: &TcpListener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().expect("an address"));
    let (accepted, _) = listener.accept().expect("a connection");
    accepted.set_nonblocking(true).expect("nonblocking");
    event_loop.adopt(accepted.into());
    client.expect("a connection")
}

fn turn_until_all_are_closed(event_loop: &mut EventLoop<'_>) {
    while event_loop.context.counters.open() > 0 {
        event_loop.turn().expect("a turn");
    }
}

/// Answers with a file, which another thread has to open first.
struct Opened {
    response: Response,
    span: FileSpan,
}

impl Handler for Opened {
    fn answer(&self, _: &Request<'_>, _: &Kept) -> Answer<'_> {
        let job = Open { of: self, thread: None };
        Answer::Known(Outcome::Pending(Pending::Job(Box::new(job))))
    }
}

struct Open<'s> {
    of: &'s Opened,
    thread: Option<thread::JoinHandle<FileSpan>>,
}

impl<'s> Job<'s> for Open<'s> {
    fn begin(&mut self, waker: std::task::Waker) {
        let span = self.of.span.clone();
        self.thread = Some(thread::spawn(move || {
            let opened = span;
            waker.wake();
            opened
        }));
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let span = self.thread.expect("it was begun").join().expect("it ends");
        let response = ResponseOf::Site(&self.of.response);
        Outcome::Ready(Reply { response, body: Body::File(Box::new(span)) })
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

/// Asks as often for a file, and reads it every time.
fn fetch(mut stream: TcpStream, times: usize, expected: &[u8]) {
    for _ in 0..times {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("room");
        let (mut head, mut body) = (Vec::new(), vec![0; expected.len()]);
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        stream.read_exact(&mut body).expect("a body");
        assert!(body == expected, "other bytes than the file's");
    }
}

#[test]
fn a_job_comes_back_to_its_connection_and_a_file_is_sent_whole_by_either_driver() {
    const CLIENTS: usize = 3;
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&content).expect("space");
    let span = FileSpan::new(Arc::new(file), 4, content.len() as u64 - 8);
    let response = Response::new(200, [], None);
    let site = Site::of(Box::new(Opened { response, span }));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for driver in drivers() {
        with_loop_of(driver, &site, Accept::Reuseport, |event_loop, _, ledger| {
            thread::scope(|scope| {
                for _ in 0..CLIENTS {
                    let (stream, expected) = (connect(event_loop, &listener), &content);
                    scope.spawn(move || fetch(stream, 2, &expected[4..expected.len() - 4]));
                }
                turn_until_all_are_closed(event_loop);
            });
            let counts = ledger.block(0).counts();
            assert_eq!((counts.responses(), counts.aborted()), (2 * CLIENTS as u64, 0));
        });
    }
}

/// Answers by the path: with a file that another thread opens, with pieces that it makes, or at once.
struct Mixed {
    opened: Opened,
}

impl Handler for Mixed {
    fn answer(&self, request: &Request<'_>, kept: &Kept) -> Answer<'_> {
        let response = ResponseOf::Site(&self.opened.response);
        let body = match &*request.target.path {
            b"/file" => return self.opened.answer(request, kept),
            b"/pieces" => Body::Stream(Box::new(Made { pieces: None })),
            b"/large" => Body::Shared(&[b'z'; 100_000]),
            _ => Body::Shared(b"at once"),
        };
        Answer::Known(Outcome::Ready(Reply { response, body }))
    }
}

/// Pieces that come from another thread.
struct Made {
    pieces: Option<mpsc::Receiver<Vec<u8>>>,
}

const PIECE: &[u8] = &[b'x'; 10_000];
const PIECES: usize = 20;

impl Stream for Made {
    fn length(&self) -> Option<u64> {
        Some((PIECE.len() * PIECES) as u64)
    }

    fn begin(&mut self, waker: std::task::Waker) {
        let (sender, pieces) = mpsc::channel();
        self.pieces = Some(pieces);
        thread::spawn(move || {
            for number in 0..PIECES {
                let _ = sender.send(PIECE.to_vec());
                waker.wake_by_ref();
                if number % 3 == 0 {
                    thread::yield_now();
                }
            }
        });
    }

    fn next(&mut self) -> Piece<'_> {
        match self.pieces.as_ref().expect("it was begun").try_recv() {
            Ok(piece) => Piece::Bytes(piece.into()),
            Err(_) => Piece::Later,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

/// What a client sends, whether it ends its side behind that, and how many responses and bytes of content it gets.
fn conversation(mut stream: TcpStream, requests: &[u8], is_ended: bool, expected: (usize, usize)) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut writer = stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(requests).expect("room");
            if is_ended {
                writer.shutdown(Shutdown::Write).expect("a connection");
            }
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("responses, and the end");
        let heads = received.windows(4).filter(|bytes| bytes == b"\r\n\r\n").count();
        let first = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        assert_eq!(heads, expected.0);
        assert!(received.len() > expected.1 + first, "{} of {}", received.len(), expected.1);
    });
}

#[test]
fn clients_that_end_their_side_or_send_much_get_all_they_asked_for_by_either_driver() {
    let content = vec![b'y'; 3_000_000];
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&content).expect("space");
    let span = FileSpan::new(Arc::new(file), 0, content.len() as u64);
    let site = Site::of(Box::new(Mixed {
        opened: Opened { response: Response::new(200, [], None), span },
    }));
    let get = |path: &str, field: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n");
    let close = "Connection: close\r\n";
    let (of_file, of_pieces) = (content.len(), PIECE.len() * PIECES);
    let many = get("/", "").repeat(3_000);
    let cases: Vec<(String, bool, (usize, usize))> = ["/file", "/pieces", "/"]
        .into_iter()
        .zip([of_file, of_pieces, 7])
        .flat_map(|(path, length)| {
            [
                (get(path, ""), true, (1, length)),
                (get(path, close), false, (1, length)),
                (get(path, close), true, (1, length)),
                (get(path, "").repeat(3), true, (3, 3 * length)),
                (get(path, "") + &many + &get(path, close), false, (3_002, 2 * length)),
                (get(path, "") + &many + &get(path, ""), true, (3_002, 2 * length)),
                (format!("GET {path} HTTP/1.0\r\n\r\n"), false, (1, length)),
                (format!("GET {path} HTTP/1.0\r\n\r\n"), true, (1, length)),
            ]
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for driver in drivers() {
        with_loop_of(driver, &site, Accept::Reuseport, |event_loop, _, ledger| {
            thread::scope(|scope| {
                for (requests, is_ended, expected) in &cases {
                    let stream = connect(event_loop, &listener);
                    scope.spawn(|| conversation(stream, requests.as_bytes(), *is_ended, *expected));
                }
                turn_until_all_are_closed(event_loop);
            });
            let counts = ledger.block(0).counts();
            let responses: usize = cases.iter().map(|case| case.2.0).sum();
            assert_eq!((counts.responses(), counts.aborted()), (responses as u64, 0));
            assert_eq!(event_loop.context.held_bytes, 0);
        });
    }
}

#[test]
fn what_is_sent_at_once_comes_behind_what_the_same_turn_was_to_send() {
    let file = tempfile::tempfile().expect("a file");
    let opened = Opened {
        response: Response::new(200, [], None),
        span: FileSpan::new(Arc::new(file), 0, 0),
    };
    let site = Site::of(Box::new(Mixed { opened }));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    for driver in drivers() {
        with_loop_of(driver, &site, Accept::Reuseport, |event_loop, _, _| {
            let mut stream = connect(event_loop, &listener);
            let key = event_loop.connections.keys().next().expect("a connection");
            for path in ["/", "/large"] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                event_loop.work(key, None, |connection, _, lane| {
                    let ready = Ready { readable: true, ..Ready::quiet(key.to_token()) };
                    connection.on_ready(
                        ready,
                        &mut Input::new(Some(request.as_bytes()), None),
                        lane,
                    )
                });
            }
            stream.shutdown(Shutdown::Write).expect("an end");
            turn_until_all_are_closed(event_loop);
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("responses");
            let (small, large) = (text.find("at once"), text.find("zzz"));
            assert!(small.is_some() && small < large, "{small:?}, {large:?}");
        });
    }
}

/// A job that is never woken, and whose end fails.
struct FailsAtItsEnd;

impl Drop for FailsAtItsEnd {
    fn drop(&mut self) {
        panic!("the end of a job");
    }
}

impl<'s> Job<'s> for FailsAtItsEnd {
    fn begin(&mut self, _: std::task::Waker) {}

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        unreachable!("its client goes before")
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

impl Handler for FailsAtItsEnd {
    fn answer(&self, _: &Request<'_>, _: &Kept) -> Answer<'_> {
        Answer::Known(Outcome::Pending(Pending::Job(Box::new(FailsAtItsEnd))))
    }
}

#[test]
fn what_fails_with_the_end_of_its_connection_costs_no_other() {
    // The handler's own end would fail, too.
    let site = std::mem::ManuallyDrop::new(Site::of(Box::new(FailsAtItsEnd)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    with_loop_of(driver, &site, Accept::Reuseport, |event_loop, supervisor, ledger| {
        let mut stream = connect(event_loop, &listener);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("room");
        while ledger.block(0).cells().requests.get() == 0 {
            event_loop.turn().expect("a turn");
        }
        let keys: Vec<Key> = event_loop.connections.keys().collect();
        keys.into_iter().for_each(|key| event_loop.close(key));
        assert_eq!((event_loop.connections.len(), ledger.block(0).open()), (0, 0));
        let report = next_report(supervisor);
        assert!(matches!(report, Some(WorkerEvent::RequestPanicked(_))), "{report:?}");
    });
}
