//! The memory of a worker: what it holds for its clients is what they sent, and is given back when they have gone.

mod harness;

use harness::{Client, Mode, Server, Setup, eventually, memory_bytes};

harness::in_mode!(
    on_io_uring,
    new(Workers::Threads, Accept::Reuseport),
    [
        bodies_take_what_they_are_long_and_are_given_back,
        heads_that_never_end_take_no_more_than_the_lane_may_hold,
        a_body_that_grows_as_json_is_refused_where_the_lane_holds_too_much,
    ]
);
harness::in_mode!(
    on_epoll,
    on_epoll(Workers::Processes, Accept::Reuseport),
    [
        bodies_take_what_they_are_long_and_are_given_back,
        heads_that_never_end_take_no_more_than_the_lane_may_hold,
        a_body_that_grows_as_json_is_refused_where_the_lane_holds_too_much,
    ]
);

const MIB: usize = 1 << 20;
/// What a lane holds at most for all of its connections.
const HELD_MAX: usize = 256 * MIB;
/// Less than this the worker doesn't search for memory to give back.
const RETURNED_MIN: u64 = 16 << 20;
/// What a worker may have grown by when everything is gone: some buffers of its own, and pages in part in use.
const REST: u64 = 8 << 20;

fn start(mode: Mode) -> Server {
    Setup::new(mode).lanes(1).route("/echo", "echo = \"body\"").start()
}

/// Sends all of a body but its last byte, and waits until the lane has read it.
fn send_body(server: &Server, length: usize, is_chunked: bool) -> Client {
    let mut client = server.connect();
    let framing = if is_chunked {
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n")
    } else {
        format!("Content-Length: {length}\r\n\r\n")
    };
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{framing}"));
    client.send(vec![b'x'; length - 1]);
    client
}

fn bodies_take_what_they_are_long_and_are_given_back(mode: Mode) {
    let server = start(mode);
    let worker = server.worker_pid(0);
    assert_eq!(server.get("/").status, 200);
    let before = memory_bytes(worker);
    // Above and below the size from which the heap maps a block on its own.
    for (length, count, is_chunked) in [
        (MIB, HELD_MAX / MIB, false),
        (MIB, 220, true),
        (100 << 10, 900, false),
        (20 << 10, 900, true),
    ] {
        let what = format!("{count} bodies of {length} bytes, chunked: {is_chunked}");
        let mut clients: Vec<Client> =
            (0..count).map(|_| send_body(&server, length, is_chunked)).collect();
        let held = (length * count) as u64;
        eventually(&what, || (memory_bytes(worker) >= before + held - held / 50).then_some(()));
        if length * count == HELD_MAX {
            // The lane is full to the byte.
            let mut one_more = send_body(&server, length, is_chunked);
            assert_eq!(one_more.response().status, 503);
        }
        let grown = memory_bytes(worker) - before;
        let most = if is_chunked { held / 8 + held } else { held };
        assert!(grown <= most + REST, "{what} took {grown}");
        // What stays must not keep what lies beside it.
        let staying = [clients.remove(0), clients.pop().expect("more than one")];
        drop(clients);
        let what = format!("most of {what} is given back");
        eventually(&what, || (memory_bytes(worker) <= before + RETURNED_MIN + REST).then_some(()));
        for mut client in staying {
            client.send(if is_chunked { "x\r\n0\r\n\r\n" } else { "x" });
            assert_eq!(client.response().body.len(), length);
        }
        let what = format!("{what}, and the others too");
        eventually(&what, || (memory_bytes(worker) <= before + REST).then_some(()));
    }
}

/// Fewer connections than files that a test may have open, each with as much of a head as a generous limit allows.
fn heads_that_never_end_take_no_more_than_the_lane_may_hold(mode: Mode) {
    const HEAD_BYTES: usize = 900 << 10;
    let setup = Setup::new(mode).lanes(1).set("limits.header_bytes", "1MiB");
    let server = setup.set("timeouts.header", "10m").start();
    let worker = server.worker_pid(0);
    let before = memory_bytes(worker);
    let clients: Vec<Client> = (0..HELD_MAX / HEAD_BYTES + 20)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
            // One that is refused meanwhile can't be sent all of it.
            let _ = client.try_send(vec![b'x'; HEAD_BYTES]);
            client
        })
        .collect();
    let hears = |client: &Client| client.hears_within(std::time::Duration::from_millis(1));
    eventually("a head is refused", || clients.iter().any(hears).then_some(()));
    for mut client in clients {
        if hears(&client) {
            assert_eq!(client.response().status, 503);
        }
    }
    let most = before + HELD_MAX as u64 + HELD_MAX as u64 / 8 + REST;
    assert!(memory_bytes(worker) <= most, "{} bytes", memory_bytes(worker));
}

fn a_body_that_grows_as_json_is_refused_where_the_lane_holds_too_much(mode: Mode) {
    const BODY_BYTES: usize = 40 * MIB;
    let setup = Setup::new(mode).lanes(1).set("limits.body", "64MiB");
    // Unoptimised, on a busy machine, as much JSON may take longer than the watchdog allows.
    let setup = setup.set("supervisor.watchdog", "0s");
    let server = setup.route("/request", "echo = \"request\"").start();
    let ask = || {
        let mut client = server.connect();
        client.send(format!(
            "POST /request HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        ));
        // Each of these is six bytes of JSON: 240 MiB.
        client.send(vec![1; BODY_BYTES]);
        client
    };
    let mut first = ask();
    assert!(first.hears_within(4 * harness::DEADLINE), "the first is answered");
    // Its response waits for a client that doesn't read it.
    let mut second = ask();
    assert_eq!(second.response().status, 503);
    assert_eq!(first.response().status, 200);
}
