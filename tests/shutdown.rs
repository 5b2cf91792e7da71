//! Leaving: what is in flight is finished, what is idle is let go, and nothing stays behind.

mod harness;

use harness::{
    Client, GREETING, Mode, Server, Setup, Traffic, eventually, in_every_mode, is_refused,
    private_loopback,
};
use nix::sys::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signal};
use nix::sys::stat;
use nix::unistd::mkfifo;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

in_every_mode!(
    a_request_in_flight_is_answered_before_the_server_leaves,
    term_int_and_quit_drain_alike,
    a_request_body_on_its_way_is_awaited,
    a_response_on_its_way_is_sent_whole,
    an_idle_connection_does_not_hold_up_the_drain,
    a_request_that_crosses_the_close_of_an_idle_connection_is_not_reset,
    a_full_lane_does_not_hold_up_the_drain,
    who_waits_while_all_lanes_are_full_is_served_before_the_server_leaves,
    a_stop_under_traffic_refuses_connections_and_resets_none,
    new_connections_are_refused_as_soon_as_the_queue_is_empty,
    requests_read_before_the_drain_are_answered_in_order,
    what_outlasts_the_drain_timeout_is_closed,
    a_second_signal_ends_the_server_at_once,
    a_stop_that_is_delayed_serves_until_then,
    a_second_signal_ends_a_stop_that_is_delayed,
    the_port_is_free_for_the_next_instance,
    a_log_that_nobody_reads_holds_up_nothing_and_says_what_it_lost,
);
harness::in_may!(
    a_request_in_flight_is_answered_before_the_server_leaves,
    term_int_and_quit_drain_alike,
    a_request_body_on_its_way_is_awaited,
    a_response_on_its_way_is_sent_whole,
    an_idle_connection_does_not_hold_up_the_drain,
    a_request_that_crosses_the_close_of_an_idle_connection_is_not_reset,
    a_full_lane_does_not_hold_up_the_drain,
    new_connections_are_refused_as_soon_as_the_queue_is_empty,
    what_outlasts_the_drain_timeout_is_closed,
    a_second_signal_ends_the_server_at_once,
    a_second_signal_ends_a_stop_that_is_delayed,
    the_port_is_free_for_the_next_instance,
    a_log_that_nobody_reads_holds_up_nothing_and_says_what_it_lost,
);

const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_STUCK: &str = "GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n";

/// Idle connections are closed within a second of a drain; anything near this took a timeout instead.
const PROMPT: Duration = Duration::from_secs(8);

/// One lane, so that a request is known to be in flight; the drain may take far longer than it should.
fn setup(mode: Mode) -> Setup {
    Setup::new(mode)
        .lanes(1)
        .route("/slow", "text = \"slow\"\ndelay = \"500ms\"")
        .route("/stuck", "text = \"stuck\"\ndelay = \"600s\"")
        .route("/large", "bytes = \"16MiB\"")
        .route("/echo", "echo = \"body\"")
        .set("supervisor.drain_timeout", "60s")
}

/// Signals the server and waits until it drains.
fn begin_drain(server: &Server, signal: Signal) {
    server.signal(signal);
    let started = server.journal.wait_for("drain started");
    assert_eq!(started.text("reason"), signal.as_str());
}

/// Asserts that the server leaves gracefully, with nothing left.
fn assert_left(server: &mut Server) {
    assert_eq!(server.wait_exit(), 0);
    server.journal.wait_for("drain done");
    assert_eq!(server.journal.wait_for("stopped").number("code"), 0);
    assert!(server.journal.named("drain deadline").is_empty());
    assert!(server.journal.named("worker restarting").is_empty());
    assert!(is_refused(server.address()));
    server.wait_gone();
}

fn a_request_in_flight_is_answered_before_the_server_leaves(mode: Mode) {
    let mut server = setup(mode).start();
    let mut client = server.in_flight(GET_SLOW);
    begin_drain(&server, SIGTERM);
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "slow"));
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
    assert_left(&mut server);
}

fn term_int_and_quit_drain_alike(mode: Mode) {
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        let mut server = setup(mode).start();
        let mut client = server.in_flight(GET_SLOW);
        begin_drain(&server, signal);
        assert_eq!(client.response().text(), "slow", "{signal}");
        assert_left(&mut server);
    }
}

fn a_request_body_on_its_way_is_awaited(mode: Mode) {
    let mut server = setup(mode).start();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let mut client = server.in_flight(format!("{head}hello"));
    begin_drain(&server, SIGTERM);
    let response = client.request("world");
    assert_eq!((response.status, response.text()), (200, "helloworld"));
    assert_left(&mut server);
}

fn a_response_on_its_way_is_sent_whole(mode: Mode) {
    let mut server = setup(mode).start();
    let mut client = Client::connect_with_small_buffer(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.sip(1) > 0);
    begin_drain(&server, SIGTERM);
    assert_eq!(client.response().body.len(), 16 << 20);
    client.expect_end();
    assert_left(&mut server);
}

fn an_idle_connection_does_not_hold_up_the_drain(mode: Mode) {
    let mut server = setup(mode).set("workers.count", 2).start();
    let mut idle = server.served_connections(20);
    // Accepted, but never heard of.
    idle.push(server.connect());
    let start = Instant::now();
    begin_drain(&server, SIGTERM);
    for client in &mut idle {
        client.expect_end();
    }
    assert_left(&mut server);
    assert!(start.elapsed() < PROMPT, "it took {:?}", start.elapsed());
}

fn a_stop_under_traffic_refuses_connections_and_resets_none(mode: Mode) {
    for _ in 0..4 {
        let mut server = setup(mode).lanes(2).start();
        let traffic = Traffic::start(server.address(), 8, "/", &[GREETING]);
        traffic.wait_answers(200);
        begin_drain(&server, SIGTERM);
        assert_left(&mut server);
        let tally = traffic.stop();
        assert!(tally.refused > 0, "{tally:?}");
        assert_eq!(tally.failures(), tally.refused, "{tally:?}");
    }
}

fn a_request_that_crosses_the_close_of_an_idle_connection_is_not_reset(mode: Mode) {
    let mut server = setup(mode).start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    // Keeps the server from being gone before the request is sent.
    let _stuck = server.in_flight(GET_STUCK);
    begin_drain(&server, SIGTERM);
    assert!(client.hears_within(PROMPT), "an idle connection is closed");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    assert!(!client.was_reset());
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 1);
}

fn a_full_lane_does_not_hold_up_the_drain(mode: Mode) {
    let mut server = setup(mode).set("workers.max_connections", "1").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    let start = Instant::now();
    begin_drain(&server, SIGTERM);
    client.expect_end();
    assert_left(&mut server);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

fn who_waits_while_all_lanes_are_full_is_served_before_the_server_leaves(mode: Mode) {
    let mut server = setup(mode)
        // Longer than a worker that might have something to hand over is waited for, unless it is asked.
        .route("/long", "text = \"long\"\ndelay = \"1500ms\"")
        .set("workers.max_connections", "2")
        .start();
    let mut in_flight = server.served_connections(2);
    for client in &mut in_flight {
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let waiting = [0; 3].map(|_| {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    });
    begin_drain(&server, SIGTERM);
    let start = Instant::now();
    for mut client in in_flight.into_iter().chain(waiting) {
        assert_eq!(client.response().status, 200);
    }
    assert_left(&mut server);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

fn new_connections_are_refused_as_soon_as_the_queue_is_empty(mode: Mode) {
    let mut server = setup(mode).start();
    let _client = server.in_flight(GET_STUCK);
    begin_drain(&server, SIGTERM);
    eventually("a connection is refused", || is_refused(server.address()).then_some(()));
    assert!(server.journal.named("drain done").is_empty(), "the drain should still go on");
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 1);
}

fn requests_read_before_the_drain_are_answered_in_order(mode: Mode) {
    let mut server = setup(mode).start();
    let mut client = server.in_flight(format!("{GET_SLOW}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    begin_drain(&server, SIGTERM);
    let first = client.response();
    assert_eq!(first.text(), "slow");
    // Answered as well, or left to be asked again: but then the client was told, and may do so.
    if first.says_close() {
        client.expect_end();
    } else {
        let second = client.response();
        assert_eq!(second.text(), GREETING);
        assert!(second.says_close(), "{second:?}");
        client.expect_end();
    }
    assert_left(&mut server);
}

fn what_outlasts_the_drain_timeout_is_closed(mode: Mode) {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let mut server = setup(mode).set("supervisor.drain_timeout", "300ms").start();
    let mut client = server.in_flight(GET_STUCK);
    let start = Instant::now();
    begin_drain(&server, SIGTERM);
    client.expect_end();
    let took = start.elapsed();
    // The clocks of two processes are compared, each rounded to a millisecond or two.
    assert!(took + Duration::from_millis(5) >= TIMEOUT, "closed after only {took:?}");
    let code = server.wait_exit();
    let deadline = server.journal.wait_for("drain deadline");
    assert_eq!(deadline.number("connections"), 1);
    assert!(server.journal.named("drain done").is_empty());
    let code = u64::from(code.unsigned_abs());
    assert_eq!(server.journal.wait_for("stopped").number("code"), code);
    server.wait_gone();
}

fn a_second_signal_ends_the_server_at_once(mode: Mode) {
    for second in [SIGTERM, SIGINT] {
        let mut server = setup(mode).start();
        let mut client = server.in_flight(GET_STUCK);
        begin_drain(&server, SIGTERM);
        let start = Instant::now();
        server.signal(second);
        assert_eq!(server.wait_exit(), 1, "{second}");
        server.wait_gone();
        assert!(start.elapsed() < PROMPT, "it took {:?}", start.elapsed());
        client.expect_end();
        assert!(is_refused(server.address()));
    }
}

fn a_stop_that_is_delayed_serves_until_then(mode: Mode) {
    const DELAY: Duration = Duration::from_secs(2);
    let mut server = setup(mode).set("supervisor.drain_delay", "2s").start();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let traffic = Traffic::start(server.address(), 4, "/", &[GREETING]);
    traffic.wait_answers(50);
    let start = Instant::now();
    server.signal(SIGTERM);
    assert_eq!(server.journal.wait_for("stop delayed").text("reason"), "SIGTERM");
    // It is as if nothing had happened, but that nothing else may begin.
    assert_eq!(server.get("/").status, 200);
    assert_eq!(kept.get("/").status, 200);
    server.signal(SIGHUP);
    server.journal.wait_where("reload rejected", |event| event.text("reason").contains("end"));
    traffic.wait_answers(50);
    server.journal.wait_for("drain started");
    assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());
    assert_left(&mut server);
    let tally = traffic.stop();
    assert_eq!(tally.failures(), tally.refused, "{tally:?}");
}

fn a_second_signal_ends_a_stop_that_is_delayed(mode: Mode) {
    let mut server = setup(mode).set("supervisor.drain_delay", "1h").start();
    server.signal(SIGTERM);
    server.journal.wait_for("stop delayed");
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGINT);
    server.journal.wait_for("stop forced");
    assert_eq!(server.wait_exit(), 1);
    server.wait_gone();
}

fn the_port_is_free_for_the_next_instance(mode: Mode) {
    let mut first = setup(mode).start();
    let address = first.address();
    // Connections that the server closes leave TIME_WAIT behind, which must not keep the port.
    let mut open = first.served_connections(5);
    begin_drain(&first, SIGTERM);
    for client in &mut open {
        client.expect_end();
    }
    assert_left(&mut first);
    let second = setup(mode).set("server.listen", address).start();
    assert_eq!(second.get("/").status, 200);
}

fn a_log_that_nobody_reads_holds_up_nothing_and_says_what_it_lost(mode: Mode) {
    let address = private_loopback(8080);
    let setup = setup(mode).set("server.listen", address);
    let fifo = setup.scratch().path().join("log");
    mkfifo(&fifo, stat::Mode::S_IRWXU).expect("make a FIFO");
    // Open both ways, so that neither end waits for the other.
    let mut log = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(&fifo)
        .expect("open the FIFO");
    while log.write(&[b'\n'; 4096]).is_ok() {}
    let fifo = fifo.to_str().expect("a path of text");
    let mut server = setup.under(&["sh", "-c", "exec 2> \"$0\" \"$@\"", fifo]).spawn();
    eventually("it serves", || TcpStream::connect(address).ok());
    assert_eq!(Client::connect(address).get("/").status, 200);

    let mut read = move || {
        let mut bytes = vec![0; 1 << 20];
        let count = log.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(read().trim(), "");
    server.signal(SIGHUP);
    eventually("it says what it lost", || read().contains("log lines lost").then_some(()));
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}
