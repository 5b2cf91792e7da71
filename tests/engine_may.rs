//! `workers.engine = "may"`: what the adapter serves, what it guards against, and what it refuses to begin with.
//! docs/engines.md lists what the library lacks.
#![cfg(feature = "may")]

mod harness;

use harness::{
    Client, GREETING, Mode, Server, Setup, eventually, is_refused, is_stopped, let_time_pass,
    private_loopback, send_signal, skip_without, skip_without_faults,
};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn setup() -> Setup {
    Setup::new(Mode::MAY)
        .route("/echo", "echo = \"body\"")
        .route("/request", "echo = \"request\"")
        .route("/slow", "text = \"slow\"\ndelay = \"700ms\"")
        .route("/old", "redirect = \"/new\"")
}

#[test]
fn it_serves_fixed_and_echo_routes_from_the_same_table() {
    let server = setup().start();
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.status, response.text()), (200, GREETING));
        assert!(!response.says_close());
    }
    let moved = client.get("/old");
    assert_eq!((moved.status, moved.header("location")), (308, Some("/new")));
    assert_eq!(client.get("/nothing").status, 404);
    let echoed = client.request("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(echoed.text(), "hello");
    let request: serde_json::Value =
        serde_json::from_str(client.get("/request?a=1").text()).expect("JSON");
    assert_eq!((&request["path"], &request["query"]), (&"/request".into(), &"a=1".into()));
    assert_eq!(client.get("/slow").text(), "slow");
    // What it lacks is told of at the start.
    assert_eq!(server.journal.wait_for("engine for comparison").text("engine"), "may");
    assert!(server.journal.wait_for("listening").number("backlog_effective") <= 1024);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = setup().start();
    let mut client = server.connect();
    client.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n{GET}"));
    assert_eq!(client.response().text(), "slow");
    assert_eq!(client.response().text(), GREETING);
}

#[test]
fn a_body_that_nobody_wants_is_not_the_next_request() {
    let server = setup().start();
    let mut client = server.connect();
    let body = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(format!("{head}{body}{GET}"));
    assert_eq!(client.response().status, 405);
    assert_eq!(client.response().text(), GREETING, "the body was taken for a request");
}

#[test]
fn a_body_longer_than_the_limit_is_refused() {
    let server = setup().set("limits.body", "16B").start();
    for (length, status) in [(16, 200), (17, 413)] {
        let body = "x".repeat(length);
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let mut client = server.connect();
        client.send(head + if status == 200 { &body } else { "" });
        assert_eq!(client.response().status, status, "{length} bytes");
    }
}

#[test]
fn a_large_last_response_is_sent_whole() {
    const BYTES: usize = 16 << 20;
    let server = setup().route("/large", "bytes = \"16MiB\"").start();
    let close = "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let old = "GET /large HTTP/1.0\r\n\r\n";
    for request in [close.to_owned(), old.to_owned(), format!("{GET}{close}")] {
        let mut client = Client::connect_with_small_buffer(server.address());
        client.send(&request);
        if request.starts_with(GET) {
            assert_eq!(client.response().text(), GREETING);
        }
        assert!(client.sip(1) > 0);
        // It has filled every buffer by then, and waits for the client.
        let_time_pass(Duration::from_millis(100));
        assert_eq!(client.response().body.len(), BYTES, "{request:?}");
        client.expect_end();
    }
}

#[test]
fn a_large_response_that_begins_in_a_drain_is_sent_whole() {
    let mut server = setup()
        .route("/large", "bytes = \"16MiB\"\ndelay = \"700ms\"")
        .set("supervisor.drain_timeout", "60s")
        .start();
    let mut client = Client::connect_with_small_buffer(server.address());
    assert_eq!(client.get("/").status, 200);
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let_time_pass(Duration::from_millis(100));
    server.signal(SIGTERM);
    server.journal.wait_for("drain started");
    // Idle connections were closed before it began.
    assert!(client.sip(1) > 0);
    let_time_pass(Duration::from_millis(100));
    assert_eq!(client.response().body.len(), 16 << 20);
    client.expect_end();
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn nothing_behind_a_transfer_encoding_is_routed() {
    let server = setup().start();
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = server.connect();
    client.send(chunked);
    let response = client.response();
    assert_eq!(response.status, 501);
    assert!(response.says_close());
    client.expect_end();
    // A request that is smuggled behind it is never answered as one.
    let mut client = server.connect();
    client.send(format!("{chunked}{GET}"));
    while let Some(response) = client.try_response() {
        assert!(response.status >= 400, "{response:?}");
    }
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    let server = setup().start();
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(head);
        let response = client.response();
        assert_eq!(response.status, 400, "{head:?}");
        assert!(response.says_close(), "{head:?}");
    }
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_connection_ends_when_the_client_says_so() {
    let server = setup().start();
    for head in ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
    {
        let mut client = server.connect();
        client.send(head);
        let response = client.response();
        assert_eq!(response.text(), GREETING);
        assert!(response.says_close(), "{head:?}");
        client.expect_end();
    }
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().header("connection"), Some("keep-alive"));
    assert_eq!(client.get("/").text(), GREETING);
}

#[test]
fn head_is_refused_without_a_body() {
    let server = setup().start();
    let mut client = server.connect();
    let response = client.request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.status, 501);
    assert_eq!(response.header("content-length"), Some("0"));
    assert_eq!(client.get("/").text(), GREETING);
}

#[test]
fn whatever_is_wrong_with_a_head_request_it_is_refused_without_a_body() {
    let server = setup().set("limits.body", "10B").start();
    let head = |lines: &str| format!("HEAD / HTTP/1.1\r\n{lines}\r\n");
    let requests = [
        (head(""), 400),
        (head("Host: a b\r\n"), 400),
        (head("Host: a\r\nContent-Length: 11\r\n"), 413),
        (head("Host: a\r\nExpect: more\r\n"), 417),
        (head("Host: a\r\nTransfer-Encoding: chunked\r\n"), 501),
        (format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)), 414),
    ];
    for (request, status) in requests {
        let mut client = server.connect();
        client.send(&request);
        let response = client.response_to("HEAD");
        assert_eq!((response.status, response.says_close()), (status, true), "{response:?}");
        client.expect_end();
    }
    // One that comes behind the last request of its connection.
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response_to("HEAD").status, 400);
    client.expect_end();
}

#[test]
fn a_connection_beyond_the_limit_is_closed() {
    let server = setup().lanes(1).set("workers.max_connections", 2).start();
    let _held = server.served_connections(2);
    let mut third = server.connect();
    third.expect_end();
}

/// The least limit on open files that does for 16 connections on one address.
const FILES_FOR_16: u64 = 16 + 3 + 32;

/// One lane for 16 connections, with this limit on open files.
fn with_file_limit(limit: u64) -> Setup {
    let nofile = format!("--nofile={limit}:{limit}");
    setup().lanes(1).set("workers.max_connections", 16).under(&["prlimit", &nofile])
}

#[test]
fn a_burst_takes_no_more_files_than_the_limit_and_nobody_who_is_served_waits_for_it() {
    if skip_without("prlimit") {
        return;
    }
    let server = with_file_limit(FILES_FOR_16).set("supervisor.watchdog", "1s").start();
    let mut served = server.served_connections(10);
    let pid = server.worker_pid(0);
    send_signal(pid, SIGSTOP);
    eventually("it stops", || is_stopped(pid).then_some(()));
    let mut burst: Vec<_> = (0..300).map(|_| server.connect()).collect();
    for client in &mut burst {
        client.send(GET);
    }
    send_signal(pid, SIGCONT);
    let answered = burst.iter_mut().filter_map(|client| client.try_response()).count();
    assert!(answered >= 6, "{answered} were answered, and there is room for 6");
    for client in &mut served {
        assert_eq!(client.get("/").text(), GREETING);
    }
    assert!(server.journal.named("worker hung").is_empty(), "{}", server.journal);
    assert_eq!(server.worker_pid(0), pid);
}

#[test]
fn a_file_limit_that_connections_could_reach_is_refused() {
    if skip_without("prlimit") {
        return;
    }
    let mut refused = with_file_limit(FILES_FOR_16 - 1).spawn();
    assert_eq!(refused.wait_exit(), 1);
    let error = refused.journal.wait_for("could not start");
    for words in ["ulimit -Hn 51 ", "the limit, which is 50;", "workers.max_connections = 15"] {
        assert!(error.text("reason").contains(words), "{words}: {error:?}");
    }
    assert_eq!(with_file_limit(FILES_FOR_16).start().get("/").status, 200);
}

#[test]
fn a_reload_to_more_connections_than_the_file_limit_allows_is_rejected() {
    if skip_without("prlimit") {
        return;
    }
    let toml = |connections: u32| {
        format!(
            "[workers]\nengine = \"may\"\nmode = \"processes\"\nmax_connections = {connections}\n"
        )
    };
    let scratch = harness::Scratch::new();
    let path = scratch.write("limit.toml", toml(16));
    let server = with_file_limit(FILES_FOR_16).unset("workers.max_connections");
    let server = server.config_at(path).start();
    scratch.write("limit.toml", toml(17));
    server.signal(SIGHUP);
    let rejected = server.journal.wait_for("reload rejected");
    assert!(rejected.text("reason").contains("open files"), "{rejected:?}");
    wait_served(&server);
}

#[test]
fn a_panic_in_a_request_ends_that_connection_alone() {
    if skip_without_faults() {
        return;
    }
    let server = setup().lanes(1).faults("requests").start();
    let mut neighbour = server.connect();
    assert_eq!(neighbour.get("/").status, 200);
    let mut client = server.connect();
    assert_eq!(client.get("/.fault/panic-request").status, 500);
    client.expect_end();
    assert_eq!(neighbour.get("/").status, 200);
    server.journal.wait_for("request panicked");
}

#[test]
fn a_request_that_hangs_costs_its_lane() {
    if skip_without_faults() {
        return;
    }
    let server = setup().lanes(1).faults("requests").set("supervisor.watchdog", "400ms").start();
    let mut client = server.connect();
    client.send("GET /.fault/hang HTTP/1.1\r\nHost: a\r\n\r\n");
    server.journal.wait_for("worker hung");
    server.journal.wait_nth("worker ready", 2);
    wait_served(&server);
}

/// Until its new worker has opened its sockets, connections are refused.
fn wait_served(server: &Server) {
    let is_served = || (!is_refused(server.address())).then_some(());
    eventually("it accepts again", is_served);
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn status_tells_of_the_engine_and_of_no_queue() {
    let server = setup().set("supervisor.pid_file", "server.pid").start();
    let _clients = server.served_connections(3);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--set", "supervisor.pid_file=server.pid", "status", "--json"]);
    let output = command.current_dir(server.folder()).output().expect("run the server's binary");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["engine"], "may");
    let lanes = status["lanes"].as_array().expect("lanes");
    assert!(lanes.iter().all(|lane| lane["queue"].is_null()), "{status}");
    let sum = |field: &str| lanes.iter().filter_map(|lane| lane[field].as_u64()).sum::<u64>();
    assert_eq!((sum("connections"), sum("accepted"), sum("requests")), (3, 3, 3));
}

#[test]
fn a_killed_worker_is_replaced() {
    let server = setup().start();
    let pid = server.worker_pid(1);
    send_signal(pid, SIGKILL);
    server.journal.wait_nth("worker ready", 3);
    assert_ne!(server.worker_pid(1), pid);
    wait_served(&server);
}

#[test]
fn a_reload_starts_new_workers_and_a_request_in_flight_is_answered() {
    let server = setup().start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!client.hears_within(Duration::from_millis(100)), "it is delayed");
    server.signal(SIGHUP);
    server.journal.wait_for("reload done");
    let response = client.response();
    assert_eq!(response.text(), "slow");
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_drain_answers_what_is_in_flight_and_closes_what_is_idle() {
    let mut server = setup().start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut busy = server.connect();
    assert_eq!(busy.get("/").status, 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!busy.hears_within(Duration::from_millis(100)), "it is delayed");
    server.signal(SIGTERM);
    assert_eq!(busy.response().text(), "slow");
    idle.expect_end();
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn a_change_of_the_engine_needs_a_restart() {
    let toml = |engine: &str| {
        format!(
            "workers.engine = {engine:?}\nworkers.mode = \"processes\"\nlog.format = \"json\"\n"
        )
    };
    let scratch = harness::Scratch::new();
    for (before, after) in [("native", "may"), ("may", "native")] {
        let path = scratch.write("engine.toml", toml(before));
        let address = private_loopback(8080);
        let server = Setup::bare().config_at(path).set("server.listen", address).start();
        scratch.write("engine.toml", toml(after));
        server.signal(SIGHUP);
        let rejected = server.journal.wait_for("reload rejected");
        assert!(rejected.text("reason").contains("stop and start"), "{rejected:?}");
        wait_served(&server);
    }
}

#[test]
fn an_upgrade_is_refused() {
    let server = setup().start();
    server.signal(SIGUSR2);
    let failed = server.journal.wait_for("upgrade failed");
    assert!(failed.text("reason").contains("stop and start"), "{failed:?}");
    wait_served(&server);
}

#[test]
fn a_second_instance_cannot_take_its_port() {
    for second_engine in ["may", "native"] {
        let address = private_loopback(8080);
        let first = setup().set("server.listen", address).start();
        wait_served(&first);
        let second = setup().set("workers.engine", second_engine).set("server.listen", address);
        let mut second = second.spawn();
        assert_eq!(second.wait_exit(), 1, "{}", second.journal);
        assert!(second.journal.wait_for("could not start").text("reason").contains("in use"));
        assert_eq!(first.get("/").status, 200);
    }
}

#[test]
fn what_it_cannot_serve_is_an_error_of_the_configuration_with_its_reason() {
    let cases = [
        ("workers.mode", "threads", "scheduler belongs to a whole process"),
        ("workers.accept", "shared", "opens its own sockets"),
        ("workers.accept", "handoff", "opens its own sockets"),
        ("supervisor.user", "nobody", "the same user's"),
        ("limits.body", "1GiB", "set limits.body"),
    ];
    for (key, value, reason) in cases {
        let mut server = setup().set(key, value).spawn();
        assert_eq!(server.wait_exit(), 2, "{key} = {value}");
        expect_stray(&server, reason);
    }
    let mut server = setup().route("/none", "text = \"\"\nstatus = 204").spawn();
    assert_eq!(server.wait_exit(), 2);
    expect_stray(&server, "can't answer with 204");
}

fn expect_stray(server: &Server, words: &str) {
    let is_told = || server.journal.strays().join("\n").contains(words);
    eventually(words, || is_told().then_some(()));
}
