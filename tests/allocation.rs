//! What DESIGN.md says of the heap, held to: a request that came whole and is answered with a fixed response
//! allocates nothing, from its bytes to its response and its next deadline, and an idle connection holds nothing.
//!
//! The allocator counts by thread, so that neither libtest nor the test beside this one is counted.

mod samples;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use laneway::config::{self, AccessFormat, Config};
use laneway::internals::content::{Answer, Kept, Outcome, Site};
use laneway::internals::control::{Command, Control, DrainKind, Order, WorkerNumber};
use laneway::internals::http::Version;
use laneway::internals::http::h1::{DATE_LINE_BYTES, Receiver, Recipient, Step, Writer};
use laneway::internals::observe::access::Access;
use laneway::internals::observe::access::ring::Rings;
use laneway::internals::observe::ledger::Ledger;
use laneway::internals::worker::connection::{Connection, Next};
use laneway::internals::worker::context::Context;
use laneway::internals::worker::driver::{Input, Sent, transmit};
use laneway::internals::worker::event_loop::EventLoop;
use laneway::internals::worker::event_loop::timers::Timers;
use laneway::internals::worker::open_driver;
use laneway::internals::{Ready, packet_pair, route};
use samples::{BROWSER, By, LIMITS, MINIMAL, head, pipelined};

/// How long a peer may stay silent before its test fails.
const DEADLINE: Duration = Duration::from_secs(20);
/// Header fields that fit in a head without heap.
const FIELDS_ON_STACK: usize = 24;
const ROUTES: usize = 10_000;

/// How often `work` asks the allocator for memory; growing a buffer counts too.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

fn configuration() -> Config {
    let mut options = config::Options::default();
    options.file = Some("/dev/null".into());
    config::load(&options).expect("an empty configuration").config
}

fn with_fields(count: usize) -> Vec<u8> {
    let fields: String = (1..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn an_allocation_is_counted() {
    let text = black_box("a");
    assert_eq!(allocations(|| drop(black_box(text.to_owned()))), 1);
    let mut buffer = Vec::with_capacity(1);
    buffer.push(0_u8);
    assert_eq!(allocations(|| buffer.extend_from_slice(black_box(&[0; 64]))), 1, "growth");
    let elsewhere = || thread::scope(|scope| scope.spawn(|| vec![0_u8; 64]).join().is_ok());
    let started = allocations(|| assert!(elsewhere()));
    let twice = || thread::scope(|scope| scope.spawn(|| [vec![0_u8; 64], vec![1]]).join().is_ok());
    assert_eq!(allocations(|| assert!(twice())), started, "what another thread does");
}

#[test]
fn parsing_a_head_allocates_nothing() {
    let most_fields = with_fields(FIELDS_ON_STACK);
    for request in [MINIMAL, BROWSER, &most_fields] {
        let count = allocations(|| drop(black_box(head(black_box(request)))));
        assert_eq!(count, 0, "{}", request.escape_ascii());
    }
    let one_more = with_fields(FIELDS_ON_STACK + 1);
    assert_eq!(allocations(|| drop(black_box(head(&one_more)))), 1, "one field more");
}

#[test]
fn parsing_a_head_that_comes_byte_by_byte_allocates_nothing() {
    let mut receiver = Receiver::default();
    let count = allocations(|| {
        for length in 1..BROWSER.len() {
            let step = receiver.step(&BROWSER[..length], &LIMITS);
            assert_eq!(step, (0, Step::Incomplete));
        }
        assert!(matches!(receiver.step(BROWSER, &LIMITS), (_, Step::Head(_))));
    });
    assert_eq!(count, 0);
}

#[test]
fn routing_over_ten_thousand_routes_allocates_nothing() {
    for by in By::ALL {
        let site = by.site(ROUTES);
        let (hit, miss) = (by.request(ROUTES - 1), by.request(ROUTES));
        let (hit, miss) = (head(&hit), head(&miss));
        let count = allocations(|| {
            assert_eq!(site.find(&hit.request).0, Some(ROUTES - 1));
            assert_eq!(site.find(&miss.request).0, None);
        });
        assert_eq!(count, 0, "{by:?}");
    }
}

#[test]
fn a_host_in_capitals_is_found_without_heap() {
    let site = By::Host.site(2);
    let request = b"GET / HTTP/1.1\r\nHost: SHOP1.Example.ORG.\r\n\r\n";
    let head = head(request);
    assert_eq!(allocations(|| assert_eq!(site.find(&head.request).0, Some(1))), 0);
}

#[test]
fn encoding_a_fixed_response_allocates_nothing() {
    let site = By::Exact.site(1);
    let request = By::Exact.request(0);
    let head = head(&request);
    let (date, kept) = ([b'.'; DATE_LINE_BYTES], Kept::default());
    let mut output = Vec::with_capacity(1024);
    for version in [Version::Http11, Version::Http10] {
        for keep_alive in [true, false] {
            let to = Recipient { version, is_head: false, keep_alive };
            let count = allocations(|| {
                let found = site.find(&head.request).1;
                let Answer::Known(Outcome::Ready(reply)) = found.answer(&head.request, &kept)
                else {
                    panic!("a fixed response");
                };
                let length = Some(reply.body.bytes().len() as u64);
                let (mut writer, _) =
                    Writer::begin(&mut output, &reply.response, length, to, &date);
                writer.put(&mut output, reply.body.bytes());
                assert!(writer.is_over());
                output.clear();
            });
            assert_eq!(count, 0, "{to:?}");
        }
    }
}

#[test]
fn arming_rearming_and_expiring_deadlines_allocates_nothing() {
    const CONNECTIONS: u32 = 10_000;
    const KEEP_ALIVE_MS: u64 = 75_000;
    let mut timers = Timers::default();
    // The most connections that were ever open have made room for as many.
    timers.arm(CONNECTIONS - 1, 1);
    timers.disarm(CONNECTIONS - 1);
    let count = allocations(|| {
        (0..CONNECTIONS).for_each(|index| timers.arm(index, KEEP_ALIVE_MS));
        for now_ms in 1..1_000 {
            assert_eq!(timers.expire(now_ms), None);
            (0..CONNECTIONS).step_by(7).for_each(|index| timers.arm(index, now_ms + KEEP_ALIVE_MS));
        }
        let expired = std::iter::from_fn(|| timers.expire(1_000 + KEEP_ALIVE_MS)).count();
        assert_eq!(expired, CONNECTIONS as usize);
        timers.disarm(0);
    });
    assert_eq!(count, 0);
}

/// A connection with its client and its lane, in one thread: the test decides which of them does what.
struct Pair<'s> {
    client: UnixStream,
    connection: Connection<'s>,
    lane: Context<'s>,
    input: Box<[u8]>,
}

const READABLE: Ready =
    Ready { token: 0, readable: true, writable: true, read_closed: false, broken: false };

impl<'s> Pair<'s> {
    fn new(site: &'s Site, ledger: &'s Ledger) -> Pair<'s> {
        let lane = Context::new(site, &LIMITS, &configuration(), ledger, 0);
        let (client, connection) = Self::connect();
        Pair { client, connection, lane, input: vec![0; 64 << 10].into() }
    }

    fn connect() -> (UnixStream, Connection<'s>) {
        let (client, server) = UnixStream::pair().expect("a pair of sockets");
        server.set_nonblocking(true).expect("a socket that doesn't block");
        client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        (client, Connection::new(OwnedFd::from(server)))
    }

    /// Sends `bytes`, lets the connection work on them as the event loop does, and counts the responses.
    fn exchange(&mut self, bytes: &[u8]) -> usize {
        self.client.write_all(bytes).expect("a connection that takes requests");
        self.lane.begin_turn();
        let mut input = Input::new(None, Some(&mut self.input));
        let next = self.connection.on_ready(READABLE, &mut input, &mut self.lane);
        let (bytes, body) = self.lane.output.unsent();
        assert_eq!(transmit(self.connection.socket(), bytes, body), Sent::Bytes(bytes.len()));
        let length = bytes.len();
        drop(self.lane.output.advance(length));
        assert!(matches!(next, Next::WaitUntil(_) | Next::Wait), "{next:?}");
        let mut responses = [0; 16 << 10];
        self.client.set_nonblocking(true).expect("a socket that doesn't block");
        let length = self.client.read(&mut responses).unwrap_or_default();
        self.client.set_nonblocking(false).expect("a socket that blocks");
        responses[..length].windows(12).filter(|window| *window == b"HTTP/1.1 200").count()
    }
}

#[test]
fn a_connection_allocates_nothing_for_requests_that_come_whole() {
    let (site, ledger) = (By::Host.site(ROUTES), Ledger::new(1).expect("a ledger"));
    let mut pair = Pair::new(&site, &ledger);
    let request = By::Host.request(ROUTES - 1);
    for depth in [1, 16] {
        let batch = pipelined(&request, depth);
        assert_eq!(pair.exchange(&batch), depth, "warm-up");
        let count = allocations(|| {
            for _ in 0..100 {
                assert_eq!(pair.exchange(&batch), depth);
                assert!(pair.connection.is_idle());
            }
        });
        assert_eq!(count, 0, "{depth} at once");
    }
}

#[test]
fn an_idle_connection_holds_no_heap_whatever_it_did_before() {
    const ECHO: &[u8] = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let mut config = configuration();
    let path = config::RoutePath::Exact("/echo".into());
    config.routes.push(route(path, None, config::Content::EchoBody));
    let (site, ledger) =
        (Site::new(&config.routes, &config.files), Ledger::new(1).expect("a ledger"));
    let mut pair = Pair::new(&site, &ledger);
    let work = |pair: &mut Pair<'_>| {
        assert_eq!(pair.exchange(MINIMAL), 1);
        assert_eq!(pair.exchange(&MINIMAL[..20]), 0, "half a head");
        assert_eq!(pair.exchange(&MINIMAL[20..]), 1);
        assert_eq!(pair.exchange(&ECHO[..ECHO.len() - 2]), 0, "half a body");
        assert_eq!(pair.exchange(&ECHO[ECHO.len() - 2..]), 1);
        assert!(pair.connection.is_idle());
    };
    work(&mut pair);
    // One that is dropped meanwhile would be counted against what the new one holds.
    let (client, connection) = Pair::connect();
    let first = std::mem::replace(&mut pair.connection, connection);
    pair.client = client;
    let heap = measure(|| work(&mut pair));
    assert!(heap.count_total > 0, "what came in halves was kept meanwhile");
    assert_eq!((heap.count_current, heap.bytes_current), (0, 0));
    drop(first);
}

/// How often a lane allocates in its whole life, in which one client sends `batches` batches of requests over
/// one connection.
fn allocations_of_a_lane(
    asked: config::Driver,
    log: Option<AccessFormat>,
    batch: &[u8],
    depth: usize,
    batches: usize,
) -> u64 {
    let (config, ledger) = (configuration(), Arc::new(Ledger::new(1).expect("a ledger")));
    // Small enough for its ring, so that no writer has to empty it.
    let rings = Arc::new(Rings::new(1).expect("a ring"));
    let site = By::Exact.site(ROUTES);
    let (ours, theirs) = packet_pair().expect("a pair of sockets");
    let (supervisor, control) = (Control::new(ours), Control::new(theirs));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("a socket that doesn't block");
    let address = listener.local_addr().expect("its address");
    thread::scope(|scope| {
        let lane = scope.spawn(|| {
            let access = log.map(|format| Access::new(&rings, format, 0, &ledger, 0));
            let mut context = Context::new(&site, &LIMITS, &config, &ledger, 0);
            if let Some(access) = &access {
                context.log_to(access, true);
            }
            let mut workers = config.workers.clone();
            workers.driver = asked;
            let (driver, _) = open_driver(&workers).expect("a driver");
            let mut event_loop =
                EventLoop::new(WorkerNumber(0), &config, driver, &control, context, None)
                    .expect("an event loop");
            allocations(|| event_loop.run().expect("a lane that runs"))
        });
        let take = Command::To(WorkerNumber(0), Order::Take { lane: 0, files: 1 });
        supervisor.send_or_fail(&take, &[listener.as_fd()]).expect("a lane that hears");
        let mut client = TcpStream::connect(address).expect("a lane that accepts");
        client.set_nodelay(true).expect("a socket that sends at once");
        client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut responses = vec![0; 64 << 10];
        for _ in 0..batches {
            client.write_all(batch).expect("a lane that takes requests");
            read_responses(&mut client, &mut responses, depth);
        }
        // The lane lets go of the connection in the same turn, so what follows finds it gone.
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("as above");
        client.read_to_end(&mut responses).expect("an end of stream");
        supervisor.send_or_fail(&Command::Drain(DrainKind::Stop), &[]).expect("a lane that hears");
        lane.join().expect("a lane that doesn't panic")
    })
}

/// Reads until so many responses are there; each ends with the body that all routes have.
fn read_responses(client: &mut TcpStream, buffer: &mut [u8], depth: usize) {
    const END: &[u8] = b"Hello from laneway\n";
    let mut length = 0;
    loop {
        let count = client.read(&mut buffer[length..]).expect("a lane that answers");
        assert!(count > 0, "the lane closed the connection");
        length += count;
        let got = &buffer[..length];
        if got.ends_with(END) && got.windows(END.len()).filter(|end| *end == END).count() == depth {
            return;
        }
    }
}

#[test]
fn the_event_loop_allocates_no_more_for_a_thousand_requests_than_for_one() {
    assert_allocates_no_more(None, 1_000);
}

#[test]
fn nor_does_it_with_an_access_log() {
    for format in [AccessFormat::Json, AccessFormat::Combined] {
        // What the ring has room for.
        assert_allocates_no_more(Some(format), 300);
    }
}

fn assert_allocates_no_more(log: Option<AccessFormat>, most: usize) {
    let request = By::Exact.request(ROUTES - 1);
    for depth in [1, 16] {
        let batch = pipelined(&request, depth);
        for driver in [config::Driver::Epoll, config::Driver::Auto] {
            let [few, many] =
                [1, most].map(|batches| allocations_of_a_lane(driver, log, &batch, depth, batches));
            assert_eq!(many, few, "{depth} at once, {driver:?}, {log:?}");
        }
    }
}
