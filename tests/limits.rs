//! Every limit and timeout, at its value and just beyond: of requests, connections, files and time.

mod harness;

use harness::{
    Accept, Client, DEADLINE, Driver, Mode, Server, Setup, Workers, cpu_ticks, eventually,
    in_every_mode, is_stopped, let_time_pass, memory_bytes, open_files_limit, send_signal,
    skip_without,
};
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP};
use std::time::{Duration, Instant};

in_every_mode!(
    a_body_may_be_as_long_as_the_limit_and_no_longer,
    a_chunked_body_may_be_as_long_as_the_limit_and_no_longer,
    a_request_line_may_be_as_long_as_the_limit_and_no_longer,
    the_fields_may_be_as_long_as_the_limit_and_no_longer,
    as_many_fields_are_taken_as_the_limit_says_and_no_more,
    the_last_request_of_a_connection_says_so_and_closes,
    a_head_that_does_not_end_is_answered_408_at_the_deadline,
    a_dripping_head_does_not_move_its_deadline,
    a_head_request_that_takes_too_long_is_answered_without_a_body,
    empty_lines_leave_a_connection_idle,
    an_idle_connection_is_closed_silently_at_the_deadline,
    a_connection_that_never_speaks_is_closed_silently,
    a_request_that_crosses_the_close_of_an_idle_connection_is_not_reset,
    a_body_that_stalls_is_given_up_at_the_deadline,
    a_body_that_keeps_coming_may_take_longer_than_the_deadline,
    a_body_that_comes_faster_than_the_least_rate_may_take_long,
    a_body_that_trickles_is_given_up_as_soon_as_it_is_too_slow,
    trailers_that_trickle_are_given_up_as_soon_as_they_are_too_slow,
    without_a_least_rate_a_body_may_trickle,
    a_client_that_does_not_read_is_closed_at_the_write_deadline,
    a_client_that_was_cut_leaves_nothing_in_the_kernel,
    a_client_that_reads_slowly_may_take_longer_than_the_write_deadline,
    a_client_that_reads_in_steady_sips_gets_all_of_it,
    clients_that_pipeline_and_never_read_cost_bounded_memory,
    slow_readers_of_a_large_body_cost_no_copy_of_it,
    a_full_lane_stops_accepting_until_there_is_room,
    what_a_full_lane_has_no_room_for_goes_to_the_other_lanes,
    a_lane_that_filled_and_emptied_unheard_has_room,
    exhausted_files_pause_accepting_without_spinning_and_recover,
    the_file_limit_is_raised_to_the_hard_limit,
    a_file_limit_too_small_for_the_connections_is_warned_of,
);
harness::in_may!(
    a_body_may_be_as_long_as_the_limit_and_no_longer,
    as_many_fields_are_taken_as_the_limit_says_and_no_more,
    a_body_that_keeps_coming_may_take_longer_than_the_deadline,
    a_client_that_reads_slowly_may_take_longer_than_the_write_deadline,
    the_file_limit_is_raised_to_the_hard_limit,
);

/// The timeout under test; short, yet longer than a scheduling hiccup of a busy machine.
const TIMEOUT: Duration = Duration::from_millis(300);

/// One lane with an echo route.
fn setup(mode: Mode) -> Setup {
    Setup::new(mode).lanes(1).route("/echo", "echo = \"body\"")
}

fn post(length: usize) -> String {
    let body = "x".repeat(length);
    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Asserts that the client is refused with a status and closed, whatever it sends after that.
fn assert_refused(mut client: Client, status: u16, what: &str) {
    let response = client.response();
    assert_eq!(response.status, status, "{what}");
    assert!(response.says_close(), "{what}: {response:?}");
    client.expect_end();
}

fn a_body_may_be_as_long_as_the_limit_and_no_longer(mode: Mode) {
    let server = setup(mode).set("limits.body", "1KiB").start();
    let response = server.connect().request(post(1024));
    assert_eq!((response.status, response.body.len()), (200, 1024));
    let mut client = server.connect();
    client.send(post(1025));
    assert_refused(client, 413, "1,025 bytes");
    // The head alone says that it is too long, so no client has to send the body first.
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n");
    assert!(matches!(client.response().status, 400 | 413), "a length beyond 64 bits");
    client.expect_end();
}

fn a_chunked_body_may_be_as_long_as_the_limit_and_no_longer(mode: Mode) {
    let server = setup(mode).set("limits.body", "1KiB").start();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let response = server.connect().request(format!("{head}{chunk}{chunk}0\r\n\r\n"));
    assert_eq!((response.status, response.body.len()), (200, 1024));
    let mut client = server.connect();
    client.send(format!("{head}{chunk}{chunk}1\r\nx\r\n0\r\n\r\n"));
    assert_refused(client, 413, "1,025 bytes in chunks");
}

fn a_request_line_may_be_as_long_as_the_limit_and_no_longer(mode: Mode) {
    let server = setup(mode).set("limits.request_line", 256).start();
    // RFC 9112 §3: the line does not include its CRLF.
    let line = |length: usize| {
        let fixed = "GET /? HTTP/1.1".len();
        format!("GET /?{} HTTP/1.1", "x".repeat(length - fixed))
    };
    let request = |length| format!("{}\r\nHost: a\r\n\r\n", line(length));
    assert_eq!(server.connect().request(request(256)).status, 200);
    let mut client = server.connect();
    client.send(request(257));
    assert_refused(client, 414, "257 bytes");
    let mut client = server.connect();
    client.send(&line(2000)[..1000]);
    assert_refused(client, 414, "a line that has not even ended");
}

fn the_fields_may_be_as_long_as_the_limit_and_no_longer(mode: Mode) {
    let server = setup(mode).set("limits.header_bytes", 512).start();
    let request =
        |value: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(value));
    // The widest count includes every line end, the narrowest none: 512 by the one, 513 by the other.
    let fits = 512 - "Host: a\r\nX: \r\n\r\n".len();
    let too_long = 513 - "Host: aX: ".len();
    assert_eq!(server.connect().request(request(fits)).status, 200);
    let mut client = server.connect();
    client.send(request(too_long));
    assert_refused(client, 431, "513 bytes of fields");
    let mut client = server.connect();
    client.send(&request(5000)[..2000]);
    assert_refused(client, 431, "fields that have not even ended");
}

fn as_many_fields_are_taken_as_the_limit_says_and_no_more(mode: Mode) {
    let server = setup(mode).set("limits.headers", 10).start();
    let request = |fields: usize| {
        let more: String = (1..fields).map(|number| format!("X-{number}: v\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n")
    };
    assert_eq!(server.connect().request(request(10)).status, 200);
    let mut client = server.connect();
    client.send(request(11));
    assert_refused(client, 431, "11 fields");
}

fn the_last_request_of_a_connection_says_so_and_closes(mode: Mode) {
    let server = setup(mode).set("limits.requests_per_connection", 3).start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
    let said: Vec<_> = (0..3).map(|_| client.response().says_close()).collect();
    assert_eq!(said, [false, false, true]);
    client.expect_end();
}

/// Asserts that something took at least the timeout; that it ended at all was waited for before.
fn assert_not_before_the_deadline(start: Instant) {
    let took = start.elapsed();
    // The loop reads its clock once a turn, which may round the deadline down by a millisecond or two.
    assert!(took + Duration::from_millis(5) >= TIMEOUT, "closed after only {took:?}");
}

fn a_head_that_does_not_end_is_answered_408_at_the_deadline(mode: Mode) {
    let server = setup(mode).set("timeouts.header", "300ms").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHos");
    assert_refused(client, 408, "half a head");
    assert_not_before_the_deadline(start);
}

fn a_dripping_head_does_not_move_its_deadline(mode: Mode) {
    let server = setup(mode).set("timeouts.header", "300ms").start();
    let mut client = server.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nX: ");
    let mut drops = 0;
    while !client.hears_within(TIMEOUT / 6) {
        assert!(start.elapsed() < DEADLINE, "each byte moved the deadline");
        drops += 1;
        // The server may close just then; its answer is read below.
        let _ = client.try_send("x");
    }
    assert!(drops > 0, "closed at once");
    assert_refused(client, 408, "a dripping head");
    assert_not_before_the_deadline(start);
}

fn a_head_request_that_takes_too_long_is_answered_without_a_body(mode: Mode) {
    let server = setup(mode).set("timeouts.header", "300ms").set("timeouts.body", "300ms").start();
    let body = "HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello";
    for request in ["HEAD /", "\r\nHEAD / HTTP/1.1\r\nHost", body] {
        let mut client = server.connect();
        client.send(request);
        let response = client.response_to("HEAD");
        assert!(response.status == 408 && response.says_close(), "{request:?}: {response:?}");
        client.expect_end();
    }
}

fn empty_lines_leave_a_connection_idle(mode: Mode) {
    let server =
        setup(mode).set("timeouts.header", "100ms").set("timeouts.keep_alive", "300ms").start();
    let with_body = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n";
    for lines in ["", "\r\n", "\r\n\r\n"] {
        let mut client = server.connect();
        let start = Instant::now();
        assert_eq!(client.request(with_body).text(), "hello");
        client.send(lines);
        // No 408, and not before its time.
        client.expect_end();
        assert!(!client.was_reset(), "{lines:?}");
        assert_not_before_the_deadline(start);
    }
}

fn an_idle_connection_is_closed_silently_at_the_deadline(mode: Mode) {
    let server = setup(mode).set("timeouts.keep_alive", "300ms").start();
    let mut client = server.connect();
    let start = Instant::now();
    assert_eq!(client.get("/").status, 200);
    client.expect_end();
    assert_not_before_the_deadline(start);
}

fn a_connection_that_never_speaks_is_closed_silently(mode: Mode) {
    let server =
        setup(mode).set("timeouts.header", "300ms").set("timeouts.keep_alive", "300ms").start();
    let start = Instant::now();
    server.connect().expect_end();
    assert_not_before_the_deadline(start);
}

fn a_request_that_crosses_the_close_of_an_idle_connection_is_not_reset(mode: Mode) {
    let server = setup(mode).set("timeouts.keep_alive", "300ms").start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert!(client.hears_within(Duration::from_secs(20)), "the server never closed");
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(server.get("/").status, 200);
    }
    client.expect_end();
    assert!(!client.was_reset());
}

fn a_body_that_stalls_is_given_up_at_the_deadline(mode: Mode) {
    let server = setup(mode).set("timeouts.body", "300ms").start();
    let mut client = server.connect();
    let start = Instant::now();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    if let Some(response) = client.try_response() {
        assert_eq!(response.status, 408);
        assert!(response.says_close(), "{response:?}");
    }
    client.expect_end();
    assert_not_before_the_deadline(start);
}

fn a_body_that_keeps_coming_may_take_longer_than_the_deadline(mode: Mode) {
    // As slow as a test can show it.
    let server = setup(mode).set("timeouts.body", "1s").set("limits.body_rate", "0B").start();
    let mut client = server.connect();
    let start = Instant::now();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..7 {
        client.send("x");
        assert!(!client.hears_within(Duration::from_millis(200)), "given up within the deadline");
    }
    assert!(start.elapsed() > Duration::from_secs(1), "the test itself was too quick");
    assert_eq!(client.request("x").text(), "xxxxxxxx");
}

/// 100 bytes a second, from the second second on.
fn with_a_least_rate(mode: Mode) -> Setup {
    setup(mode).set("timeouts.body", "1s").set("limits.body_rate", "100B")
}

/// Sends `before`, then bytes at such a rate until it is answered or the time is over. How long it took.
fn trickle(client: &mut Client, before: &str, per_second: f64, at_most: Duration) -> Duration {
    let start = Instant::now();
    client.send(before);
    let mut sent = 0;
    while start.elapsed() < at_most && !client.hears_within(Duration::from_millis(50)) {
        // By the clock: a test that is held up must not become a slow client.
        let due = (start.elapsed().as_secs_f64() * per_second) as usize;
        // The server may close just then; its answer is read by the caller.
        let _ = client.try_send("x".repeat(due - sent));
        sent = due;
    }
    start.elapsed()
}

const UPLOAD: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n";
const TRAILERS: &str =
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ";

fn a_body_that_comes_faster_than_the_least_rate_may_take_long(mode: Mode) {
    const LONG: Duration = Duration::from_secs(4);
    let server = with_a_least_rate(mode).start();
    for before in [UPLOAD, TRAILERS] {
        let mut client = server.connect();
        // Within the first second nothing has to come, which is what a busy machine has for its hiccups.
        let took = trickle(&mut client, before, 110.0, LONG);
        assert!(took >= LONG, "given up after {took:?}: {:?}", client.response());
    }
}

/// At half the rate, t seconds have brought 50 t bytes, which may take 1 + 50 t ÷ 100 seconds: 2.
fn a_body_that_trickles_is_given_up_as_soon_as_it_is_too_slow(mode: Mode) {
    let server = with_a_least_rate(mode).start();
    let mut client = server.connect();
    let took = trickle(&mut client, UPLOAD, 50.0, DEADLINE);
    assert_refused(client, 408, "a body that trickles");
    assert!(took > Duration::from_millis(1900), "given up after {took:?}");
    assert!(took < DEADLINE / 2, "given up only after {took:?}");
}

fn trailers_that_trickle_are_given_up_as_soon_as_they_are_too_slow(mode: Mode) {
    let server = with_a_least_rate(mode).start();
    let mut client = server.connect();
    let took = trickle(&mut client, TRAILERS, 50.0, DEADLINE);
    assert_refused(client, 408, "trailers that trickle");
    assert!(took > Duration::from_millis(1900), "given up after {took:?}");
    assert!(took < DEADLINE / 2, "given up only after {took:?}");
}

fn without_a_least_rate_a_body_may_trickle(mode: Mode) {
    const LONG: Duration = Duration::from_secs(4);
    let server = with_a_least_rate(mode).set("limits.body_rate", "0B").start();
    let mut client = server.connect();
    let took = trickle(&mut client, UPLOAD, 10.0, LONG);
    assert!(took >= LONG, "given up after {took:?}: {:?}", client.response());
}

fn a_client_that_does_not_read_is_closed_at_the_write_deadline(mode: Mode) {
    let server =
        setup(mode).set("timeouts.write", "300ms").route("/large", "bytes = \"16MiB\"").start();
    let mut client = Client::connect_with_small_buffer(server.address());
    let start = Instant::now();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    assert!(client.sip(1) > 0);
    // The client would only notice by reading, and it must not read.
    eventually("the worker closes the connection", || (!client.is_held()).then_some(()));
    assert_not_before_the_deadline(start);
}

/// An ordinary close would leave the kernel with megabytes, for as long as the client's own kernel answers its probes.
fn a_client_that_was_cut_leaves_nothing_in_the_kernel(mode: Mode) {
    let server =
        setup(mode).set("timeouts.write", "1s").route("/large", "bytes = \"16MiB\"").start();
    for ends_first in [false, true] {
        let mut client = Client::connect_with_small_buffer(server.address());
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.sip(1) > 0);
        if ends_first {
            client.end_of_sending();
        }
        eventually("the worker closes the connection", || {
            (!client.is_open_at_server()).then_some(())
        });
        // A socket that was closed in order would be here still, in FIN_WAIT1 or LAST_ACK.
        let kept = client.bytes_kept_at(server.address());
        assert_eq!(kept, None, "bytes for a client that was cut; it ended first: {ends_first}");
    }
}

fn a_client_that_reads_slowly_may_take_longer_than_the_write_deadline(mode: Mode) {
    const WRITE: Duration = Duration::from_secs(2);
    const LENGTH: usize = 64 << 20;
    let server =
        setup(mode).set("timeouts.write", "2s").route("/large", "bytes = \"64MiB\"").start();
    let mut client = server.connect();
    let start = Instant::now();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut read = 0;
    while start.elapsed() < WRITE * 3 / 2 {
        let_time_pass(Duration::from_millis(100));
        // As much as the kernel may hold back before it tells the server that there is room.
        let goal = read + (1 << 20);
        while read < goal {
            read += client.sip(256 * 1024);
        }
    }
    assert!(read < LENGTH / 2, "the test itself was too quick: {read} bytes");
    let response = client.response();
    assert_eq!(response.body.len(), LENGTH);
}

/// The kernel tells of room only when a third of its buffer is free, which at this pace takes longer than the deadline.
fn a_client_that_reads_in_steady_sips_gets_all_of_it(mode: Mode) {
    const LENGTH: usize = 8 << 20;
    const PAUSE: Duration = Duration::from_millis(50);
    let server =
        setup(mode).set("timeouts.write", "1s").route("/large", "bytes = \"8MiB\"").start();
    let mut client = Client::connect_with_small_buffer(server.address());
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let (start, mut read) = (Instant::now(), 0);
    // About 200 KB a second.
    while start.elapsed() < Duration::from_secs(6) {
        let_time_pass(PAUSE);
        let goal = read + 10_000;
        while read < goal {
            let sip = client.sip(goal - read);
            assert!(sip > 0, "cut after {read} bytes, {:?}", start.elapsed());
            read += sip;
        }
    }
    assert!(read < LENGTH / 2, "the test itself was too quick: {read} bytes");
    assert_eq!(client.response().body.len(), LENGTH);
}

/// What a connection may cost beyond an idle one, whatever its client does or doesn't: a read buffer of
/// unhandled requests, a batch of output, and their rounding.
const CONNECTION_BYTES_MAX: u64 = 256 << 10;
/// The same with the ring. Instead of a read buffer's 64 KiB the kernel hands over 128 KiB at a time: it receives up to
/// 32 times, into buffers of 4 KiB, before it looks at anything else (io_uring/net.c, `MULTISHOT_MAX_RETRY`). They come on
/// top of the 16 KiB after which no more is taken, while these grow an as large piece may be left free behind them, and
/// the ring's own buffers are touched for the first time.
const CONNECTION_BYTES_MAX_RING: u64 = 384 << 10;

fn clients_that_pipeline_and_never_read_cost_bounded_memory(mode: Mode) {
    const CLIENTS: u64 = 16;
    let server = setup(mode).route("/1k", "bytes = \"1KiB\"").start();
    let worker = server.worker_pid(0);
    let before = memory_bytes(worker);
    let requests = "GET /1k HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect_with_small_buffer(server.address());
            // More than the kernel can hold of the answers, so that the server has to stop reading.
            assert!(client.send_until_full(requests.as_bytes()) > requests.len());
            client
        })
        .collect();
    let grown = memory_bytes(worker).saturating_sub(before);
    let bytes_max = match mode.driver {
        Driver::Epoll => CONNECTION_BYTES_MAX,
        Driver::Auto => CONNECTION_BYTES_MAX_RING,
    };
    assert!(grown < CLIENTS * bytes_max, "{grown} bytes for {CLIENTS} connections");
    assert_eq!(server.get("/").status, 200);
    drop(clients);
}

fn slow_readers_of_a_large_body_cost_no_copy_of_it(mode: Mode) {
    const CLIENTS: u64 = 32;
    let server = setup(mode).route("/large", "bytes = \"16MiB\"").start();
    let worker = server.worker_pid(0);
    assert_eq!(server.get("/large").body.len(), 16 << 20);
    let before = memory_bytes(worker);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect_with_small_buffer(server.address());
            client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(client.sip(1) > 0);
            client
        })
        .collect();
    let grown = memory_bytes(worker).saturating_sub(before);
    assert!(grown < CLIENTS * CONNECTION_BYTES_MAX, "{grown} bytes for {CLIENTS} connections");
    assert_eq!(clients[0].response().body.len(), 16 << 20);
}

fn what_a_full_lane_has_no_room_for_goes_to_the_other_lanes(mode: Mode) {
    const ROOM: usize = 20;
    let server = setup(mode).lanes(2).set("workers.max_connections", ROOM).start();
    // The kernel does not give each lane its half of them: some meet a full one.
    let mut clients = server.served_connections(2 * ROOM);
    let mut one_more = server.connect();
    one_more.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!one_more.hears_within(Duration::from_millis(200)), "there is no room for it");
    let full = server.journal.wait_for("all lanes full");
    assert_eq!((full.number("lanes"), full.number("connections")), (2, 2 * ROOM as u64));
    // Wherever there is room again, it is used.
    clients.drain(..ROOM);
    assert_eq!(one_more.response().status, 200);
    assert_eq!(server.served_connections(ROOM - 1).len(), ROOM - 1);
}

fn a_full_lane_stops_accepting_until_there_is_room(mode: Mode) {
    let server = setup(mode).set("workers.max_connections", 4).start();
    let mut served = server.served_connections(4);
    let mut fifth = server.connect();
    fifth.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Each answer is a turn of the loop in which the fifth could have been accepted.
    for _ in 0..20 {
        assert!(served.iter_mut().all(|client| client.get("/").status == 200));
    }
    assert!(!fifth.hears_within(Duration::from_millis(1)), "a fifth connection was served");
    drop(served.pop());
    assert_eq!(fifth.response().status, 200);
    assert!(served.iter_mut().all(|client| client.get("/").status == 200));
}

/// Processor time of all processes of the server, in ticks of 10 ms.
fn ticks(server: &Server) -> u64 {
    server.processes().into_iter().map(cpu_ticks).sum()
}

fn exhausted_files_pause_accepting_without_spinning_and_recover(mode: Mode) {
    if skip_without("prlimit") {
        return;
    }
    let server = setup(mode).under(&["prlimit", "--nofile=128:128"]).start();
    let mut clients: Vec<_> = (0..160).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // An acceptor that hands connections to other processes stops short of what they may open.
    let stops_short = mode == Mode::new(Workers::Processes, Accept::Handoff);
    if !stops_short {
        let paused = server.journal.wait_for("accept paused");
        let reason = paused.text("reason");
        let named = reason.contains("EMFILE") || reason.contains("Too many open files");
        assert!(named, "the reason is {reason:?}");
    }

    // Those it has are served, and waiting costs next to nothing: a spinning loop would take 100 ticks.
    assert_eq!(clients[0].response().status, 200);
    let before = ticks(&server);
    let_time_pass(Duration::from_secs(1));
    let spent = ticks(&server) - before;
    assert!(spent < 25, "{spent} ticks of 10 ms in a second of waiting");

    clients.drain(..100);
    if !stops_short {
        server.journal.wait_for("accept resumed");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

/// Its sibling adopts what the dead one had, and has no descriptors for that.
#[test]
fn a_worker_without_descriptors_outlives_the_death_of_another() {
    if skip_without("prlimit") {
        return;
    }
    for mode in [Mode::PROCESSES, Mode::on_epoll(Workers::Processes, Accept::Reuseport)] {
        let server = setup(mode)
            .lanes(2)
            .set("supervisor.restart_delay", "1500ms")
            .under(&["prlimit", "--nofile=64:64"])
            .start();
        let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        let paused = || (server.journal.named("accept paused").len() == 2).then_some(());
        eventually("both lanes are out of descriptors", paused);
        // The first restart is immediate, so that only the second leaves a gap.
        let (victim, sibling) = (server.worker_pid(0), server.worker_pid(1));
        send_signal(victim, SIGKILL);
        eventually("it is replaced", || (server.worker_pid(0) != victim).then_some(()));
        send_signal(server.worker_pid(0), SIGKILL);
        server.journal.wait_for("worker adopted");
        drop(clients);
        // It asks again when there are descriptors, and serves the connections in both queues.
        assert_eq!(server.served_connections(16).len(), 16);
        assert_eq!(server.worker_pid(1), sibling);
        let lost = server.journal.named("worker exited");
        assert!(lost.iter().all(|event| event.number("lane") == 0), "{}", server.journal);
    }
}

/// What it could not tell a supervisor that did not listen, it tells later.
fn a_lane_that_filled_and_emptied_unheard_has_room(mode: Mode) {
    const ROOM: usize = 2;
    let server = setup(mode).lanes(2).set("workers.max_connections", ROOM).start();
    send_signal(server.pid(), SIGSTOP);
    eventually("the supervisor stops", || is_stopped(server.pid()).then_some(()));
    for _ in 0..300 {
        // One lane's share at least is full, and has room again.
        let mut clients: Vec<_> = (0..ROOM).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(clients.iter_mut().any(|client| client.hears_within(DEADLINE)));
    }
    send_signal(server.pid(), SIGCONT);
    assert_eq!(server.served_connections(2 * ROOM).len(), 2 * ROOM);
}

fn the_file_limit_is_raised_to_the_hard_limit(mode: Mode) {
    if skip_without("prlimit") {
        return;
    }
    let server = setup(mode)
        .set("workers.max_connections", 16)
        .under(&["prlimit", "--nofile=256:3000"])
        .start();
    assert_eq!(open_files_limit(server.pid()), 3000);
    assert_eq!(open_files_limit(server.worker_pid(0)), 3000);
}

fn a_file_limit_too_small_for_the_connections_is_warned_of(mode: Mode) {
    if skip_without("prlimit") {
        return;
    }
    for (connections, warned) in [(16, 0), (3000, 1)] {
        let server = setup(mode)
            .set("workers.max_connections", connections)
            .under(&["prlimit", "--nofile=256:2000"])
            .start();
        let warnings = server.journal.named("file limit too small");
        assert_eq!(warnings.len(), warned, "for {connections} connections");
        assert!(warnings.iter().all(|event| event.text("level") == "WARN"));
    }
}
