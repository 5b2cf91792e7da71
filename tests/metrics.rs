//! What `/metrics` says: as much as a client counted, whatever happens to workers, lanes, generations and servers meanwhile,
//! and in formats that programs read which aren't ours.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{
    Accept, Client, Mode, Server, Setup, Workers, checked_by, children_of, eventually,
    in_every_mode, process_state, python_with, send_signal, skip_without, skip_without_faults,
};
use nix::sys::signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

in_every_mode!(
    counts_are_what_a_client_counted,
    what_was_counted_outlives_workers_lanes_generations_and_servers,
    each_reason_to_refuse_a_request_is_counted,
    each_reason_to_end_a_connection_for_its_time_is_counted,
    durations_have_the_delay_of_a_route,
    restarts_are_counted_by_their_cause,
    restarts_of_workers_that_do_not_get_ready_are_counted_by_their_cause,
    restarts_of_workers_that_are_told_to_end_are_counted_as_such,
    a_lane_is_a_number_and_what_is_of_none_says_whose_it_is,
    connections_of_a_server_that_drains_are_those_of_the_one_that_follows,
    a_turn_that_is_long_is_told_of,
    other_programs_read_the_page,
);

// What takes much memory, or much time, is tried once with either driver.
harness::in_mode!(
    one_threads,
    THREADS,
    [
        a_lane_was_busy_for_as_long_as_it_was_on_a_cpu,
        a_lane_without_memory_rejects_and_refuses,
        connections_that_no_proxy_introduces_are_rejected,
        a_worker_that_the_kernel_had_no_memory_for_is_restarted_for_that,
    ]
);
harness::in_mode!(
    one_epoll,
    on_epoll(Workers::Processes, Accept::Reuseport),
    [
        a_lane_was_busy_for_as_long_as_it_was_on_a_cpu,
        a_lane_without_memory_rejects_and_refuses,
        connections_that_no_proxy_introduces_are_rejected,
        a_worker_that_the_kernel_had_no_memory_for_is_restarted_for_that,
    ]
);
harness::in_may!(connections_that_an_engine_has_no_room_for_are_rejected);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

fn setup(mode: Mode) -> Setup {
    Setup::new(mode).set("admin.listen", "127.0.0.1:0")
}

/// Where the admin worker listens.
fn admin(server: &Server) -> SocketAddr {
    let listening = server.journal.wait_where("listening", |event| event.has("role"));
    listening.text("address").parse().expect("an address")
}

/// The page, to a client that accepts these.
fn page(server: &Server, accept: &str) -> (String, String) {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    let response = Client::connect(admin(server)).request(request);
    assert_eq!(response.status, 200, "{}", response.text());
    let content_type = response.header("content-type").expect("a type").to_owned();
    (content_type, response.text().to_owned())
}

/// The values of a page, by series.
struct Values(BTreeMap<String, f64>);

impl Values {
    fn of(server: &Server) -> Values {
        let (_, page) = page(server, "*/*");
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let split = samples.map(|line| line.rsplit_once(' ').expect("a value"));
        Values(
            split
                .map(|(series, value)| (series.into(), value.parse().expect("a number")))
                .collect(),
        )
    }

    /// The sum over the series of a family that have these labels, with what is between a name and its lane.
    fn sum(&self, name: &str, labels: &str) -> f64 {
        let is_of = |series: &str| {
            let rest =
                series.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('{'));
            rest.is_some_and(|rest| rest.contains(labels))
        };
        self.0.iter().filter(|(series, _)| is_of(series)).map(|(_, value)| value).sum()
    }

    /// Nothing that only grows has become less, or is gone.
    fn assert_after(&self, before: &Values) {
        let grow = |series: &str| {
            let name = series.split('{').next().expect("a name");
            name.starts_with("laneway_")
                && ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
        };
        for (series, value) in before.0.iter().filter(|(series, _)| grow(series)) {
            let now = self.0.get(series);
            assert!(now.is_some_and(|now| now >= value), "{series}: {value}, then {now:?}");
        }
    }
}

/// Waits until these sums are what is expected, and no more.
#[track_caller]
fn expect(server: &Server, expected: &[(&str, &str, f64)]) -> Values {
    let mut last = String::new();
    let start = Instant::now();
    loop {
        let values = Values::of(server);
        let wrong: Vec<_> = expected
            .iter()
            .map(|(name, labels, count)| (name, labels, count, values.sum(name, labels)))
            .filter(|(.., count, is)| *count != is)
            .collect();
        if wrong.is_empty() {
            return values;
        }
        last.clear();
        last.push_str(&format!("{wrong:?}"));
        assert!(start.elapsed() < harness::DEADLINE, "{last}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn counts_are_what_a_client_counted(mode: Mode) {
    let server = setup(mode).route("/echo", "echo = \"body\"").start();
    let exchanges = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD"),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "GET"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "PUT"),
        ("BREW /echo HTTP/1.1\r\nHost: a\r\n\r\n", "BREW"),
    ];
    let (mut sent, mut connections) = (0, 0);
    for _ in 0..3 {
        let mut client = server.connect();
        connections += 1;
        for (request, method) in exchanges {
            client.send(request);
            sent += request.len();
            client.response_to(method);
        }
        // In one packet: they are answered in one turn.
        let pipelined = exchanges[0].0.repeat(4);
        sent += pipelined.len();
        client.send(pipelined);
        (0..4).for_each(|_| assert_eq!(client.response().status, 200));
    }
    let total = 3.0 * 10.0;
    let values = expect(
        &server,
        &[
            ("laneway_requests_total", "method=\"GET\",status=\"2xx\"", 3.0 * 5.0),
            ("laneway_requests_total", "method=\"GET\",status=\"4xx\"", 3.0),
            ("laneway_requests_total", "method=\"HEAD\",status=\"2xx\"", 3.0),
            ("laneway_requests_total", "method=\"POST\",status=\"2xx\"", 3.0),
            ("laneway_requests_total", "method=\"PUT\",status=\"4xx\"", 3.0),
            ("laneway_requests_total", "method=\"_OTHER\"", 3.0),
            ("laneway_requests_total", "", total),
            ("laneway_requests_begun_total", "", total),
            ("laneway_responses_total", "", total),
            ("laneway_request_duration_seconds_count", "", total),
            ("laneway_connections_accepted_total", "", f64::from(connections)),
            ("laneway_connections_open", "", 0.0),
            ("laneway_received_bytes_total", "", sent as f64),
            ("laneway_lanes", "state=\"ready\"", 2.0),
        ],
    );
    assert_eq!(values.sum("laneway_accept_queue_length", ""), 0.0);
    assert!(values.sum("laneway_accept_backlog", "") > 0.0);
    assert!(values.sum("laneway_turns_total", "") > 0.0);
    assert!(values.sum("laneway_busy_seconds_total", "") > 0.0);
    assert_eq!(values.sum("laneway_generation", ""), 1.0);
}

fn what_was_counted_outlives_workers_lanes_generations_and_servers(mode: Mode) {
    let mut requests = 0_u32;
    let server = setup(mode).start();
    let mut before = Values::of(&server);
    let mut ask = |server: &Server, restarts: f64, reloads: f64| {
        for _ in 0..10 {
            assert_eq!(server.get("/").status, 200);
            requests += 1;
        }
        let now = expect(
            server,
            &[
                ("laneway_requests_total", "", f64::from(requests)),
                ("laneway_connections_accepted_total", "", f64::from(requests)),
                ("laneway_request_duration_seconds_count", "", f64::from(requests)),
                ("laneway_worker_restarts_total", "cause=\"signal\"", restarts),
                ("laneway_reloads_total", "outcome=\"done\"", reloads),
            ],
        );
        now.assert_after(&before);
        before = now;
    };
    ask(&server, 0.0, 0.0);
    let lost = killed_together(mode);
    send_signal(server.worker_pid(1), SIGKILL);
    eventually("all lanes are ready", || {
        let values = Values::of(&server);
        let restarts = values.sum("laneway_worker_restarts_total", "cause=\"signal\"");
        (restarts == lost && values.sum("laneway_lanes", "state=\"ready\"") == 2.0).then_some(())
    });
    ask(&server, lost, 0.0);
    server.signal(SIGHUP);
    server.journal.wait_for("reload done");
    ask(&server, lost, 1.0);
    server.signal(SIGTTIN);
    server.journal.wait_where("resized", |event| event.number("lanes") == 3);
    ask(&server, lost, 1.0);
    for lanes in [2, 1] {
        server.signal(SIGTTOU);
        server.journal.wait_where("resized", |event| event.number("lanes") == lanes);
    }
    ask(&server, lost, 1.0);
    server.signal(SIGUSR2);
    server.journal.wait_for("upgrade done");
    ask(&server, lost, 1.0);
}

/// How many workers a kill of the second lane's takes, of two lanes: of threads all of their process.
fn killed_together(mode: Mode) -> f64 {
    match (mode.is_threads(), mode.accept) {
        (false, _) => 1.0,
        (true, Accept::Handoff) => 3.0,
        (true, _) => 2.0,
    }
}

fn each_reason_to_refuse_a_request_is_counted(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode)
        .faults("requests")
        .set("limits.body", "1KiB")
        .set("limits.request_line", "64B")
        .set("timeouts.header", "100ms")
        .start();
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(101));
    let cases: [(&str, &str); 10] = [
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nHost", "timeout"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n", "body_too_large"),
        (&long, "request_line_too_long"),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", "expectation"),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "misdirected"),
        (&many, "fields_too_large"),
        ("GET /.fault/panic-request HTTP/1.1\r\nHost: a\r\n\r\n", "panic"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "not_implemented"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "version"),
    ];
    for (request, reason) in &cases {
        let mut client = server.connect();
        client.send(request);
        let status = client.response().status;
        let label = format!("reason=\"{reason}\"");
        let class = format!("status=\"{}xx\"", status / 100);
        let values = expect(&server, &[("laneway_requests_refused_total", &label, 1.0)]);
        assert!(values.sum("laneway_requests_total", &class) >= 1.0, "{reason}: {status}");
    }
    let count = cases.len() as f64;
    expect(
        &server,
        &[
            ("laneway_requests_refused_total", "", count),
            ("laneway_requests_total", "", count),
            ("laneway_request_duration_seconds_count", "", count),
        ],
    );
}

fn each_reason_to_end_a_connection_for_its_time_is_counted(mode: Mode) {
    let server = setup(mode)
        .route("/large", "bytes = \"32MiB\"")
        .route("/echo", "echo = \"body\"")
        .set("timeouts.header", "100ms")
        .set("timeouts.body", "100ms")
        .set("timeouts.keep_alive", "100ms")
        .set("timeouts.write", "200ms")
        .start();
    let cases = [
        ("GET / HTTP/1.1\r\nHost", "header"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab", "body"),
        ("", "keep_alive"),
        ("GET /large HTTP/1.1\r\nHost: a\r\n\r\n", "write"),
    ];
    for (request, reason) in cases {
        let mut client = Client::connect_with_small_buffer(server.address());
        client.send(request);
        let label = format!("reason=\"{reason}\"");
        expect(&server, &[("laneway_connections_timed_out_total", &label, 1.0)]);
        drop(client);
    }
    expect(
        &server,
        &[
            ("laneway_connections_timed_out_total", "", 4.0),
            ("laneway_requests_aborted_total", "", 1.0),
            ("laneway_connections_open", "", 0.0),
        ],
    );
}

fn durations_have_the_delay_of_a_route(mode: Mode) {
    let server = setup(mode).route("/later", "text = \"later\"\ndelay = \"300ms\"").start();
    assert_eq!(server.get("/later").status, 200);
    let values = expect(&server, &[("laneway_request_duration_seconds_count", "", 1.0)]);
    let below =
        |le: &str| values.sum("laneway_request_duration_seconds_bucket", &format!("le=\"{le}\""));
    assert_eq!(below("0.25"), 0.0);
    let sum = values.sum("laneway_request_duration_seconds_sum", "");
    assert!((0.3..20.0).contains(&sum), "{sum}");
    assert_eq!(below("+Inf"), 1.0);
}

fn restarts_are_counted_by_their_cause(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server =
        setup(mode).lanes(1).faults("requests").set("supervisor.watchdog", "500ms").start();
    let cases =
        [("panic-worker", "panic"), ("abort", "signal"), ("exit", "exit"), ("hang", "hung")];
    for (fault, cause) in cases {
        let mut client = server.connect();
        client.send(format!("GET /.fault/{fault} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let label = format!("lane=\"0\",cause=\"{cause}\"");
        expect(
            &server,
            &[
                ("laneway_worker_restarts_total", &label, 1.0),
                ("laneway_lanes", "state=\"ready\"", 1.0),
            ],
        );
    }
    let values = expect(&server, &[("laneway_worker_restarts_total", "lane=\"0\"", 4.0)]);
    assert!(values.sum("laneway_heartbeat_age_seconds", "") < 20.0);
}

fn restarts_of_workers_that_do_not_get_ready_are_counted_by_their_cause(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode)
        .lanes(1)
        .faults("requests")
        .set("supervisor.ready_timeout", "3s")
        .set("supervisor.restart_delay", "10ms")
        .set("supervisor.restart_delay_max", "10ms")
        .set("supervisor.max_restarts", "10000")
        .start();
    for (nth, (file, cause)) in
        [("fail-start", "failure"), ("hold-start", "not_ready")].into_iter().enumerate()
    {
        let file = server.folder().join(file);
        fs::write(&file, "").expect("room");
        send_signal(server.worker_pid(0), SIGKILL);
        eventually(cause, || {
            let label = format!("lane=\"0\",cause=\"{cause}\"");
            let restarts = Values::of(&server).sum("laneway_worker_restarts_total", &label);
            (restarts >= 1.0).then_some(())
        });
        fs::remove_file(&file).expect("it is there");
        eventually("it is ready", || {
            let ready = Values::of(&server).sum("laneway_lanes", "state=\"ready\"");
            (ready == 1.0).then_some(())
        });
        // Those that were killed, and no other: a failure is none of a signal.
        let label = "lane=\"0\",cause=\"signal\"";
        expect(&server, &[("laneway_worker_restarts_total", label, 1.0 + nth as f64)]);
    }
}

fn restarts_of_workers_that_are_told_to_end_are_counted_as_such(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    send_signal(server.worker_pid(0), SIGTERM);
    let label = "lane=\"0\",cause=\"told_to_end\"";
    let values = expect(&server, &[("laneway_worker_restarts_total", label, 1.0)]);
    assert_eq!(values.sum("laneway_worker_restarts_total", "lane="), 1.0);
}

/// The kernel's count of those that it killed for want of memory is one that this test writes, in a place that it puts over
/// the kernel's for the processes of the server alone.
fn a_worker_that_the_kernel_had_no_memory_for_is_restarted_for_that(mode: Mode) {
    if !nix::unistd::Uid::effective().is_root() || skip_without("unshare") {
        return harness::skipped("only root may put a file over the kernel's");
    }
    let setup = setup(mode).lanes(1);
    let kills = setup.scratch().write("vmstat", "oom_kill 3\n");
    // Without groups, it is the count of the whole machine that is looked at.
    let script = format!(
        "umount --recursive --lazy /sys/fs/cgroup; mount --bind {} /proc/vmstat && exec \"$0\" \"$@\"",
        kills.display()
    );
    let server = setup.under(&["unshare", "--mount", "sh", "-c", &script]).start();
    send_signal(server.worker_pid(0), SIGKILL);
    let label = "lane=\"0\",cause=\"signal\"";
    expect(
        &server,
        &[("laneway_worker_restarts_total", label, 1.0), ("laneway_lanes", "state=\"ready\"", 1.0)],
    );
    // In its place: it is this file that lies over the kernel's.
    fs::write(&kills, "oom_kill 4\n").expect("room");
    send_signal(server.worker_pid(0), SIGKILL);
    let out_of_memory = "lane=\"0\",cause=\"out_of_memory\"";
    expect(
        &server,
        &[
            ("laneway_worker_restarts_total", out_of_memory, 1.0),
            ("laneway_worker_restarts_total", label, 1.0),
        ],
    );
}

fn a_lane_is_a_number_and_what_is_of_none_says_whose_it_is(mode: Mode) {
    let server = setup(mode).set("log.access", "access.log").start();
    let (_, page) = page(&server, "*/*");
    let lanes = page.split("lane=\"").skip(1).map(|text| text.split('"').next().expect("a value"));
    let lanes: BTreeSet<&str> = lanes.collect();
    assert_eq!(lanes, ["0", "1"].into());
    let roles = page.split("role=\"").skip(1).map(|text| text.split('"').next().expect("a value"));
    let roles: BTreeSet<&str> = roles.collect();
    let mut expected: BTreeSet<&str> = ["access_log", "admin"].into();
    expected.extend((mode.accept == Accept::Handoff).then_some("acceptor"));
    assert_eq!(roles, expected);
    let queue = |labels| format!("\nlaneway_accept_queue_length{{{labels}");
    let has_own = mode.accept == Accept::Reuseport;
    assert_eq!(page.contains(&queue("lane=\"0\",address=")), has_own, "{page}");
    assert_eq!(page.contains(&queue("address=")), !has_own, "{page}");
    for labels in ["role=\"admin\",cause=\"exit\"", "lane=\"1\",cause=\"exit\""] {
        assert!(page.contains(&format!("\nlaneway_worker_restarts_total{{{labels}}} 0")), "{page}");
    }
    assert!(page.contains("\nlaneway_access_log_dropped_total{role=\"access_log\"} 0"), "{page}");
}

fn connections_of_a_server_that_drains_are_those_of_the_one_that_follows(mode: Mode) {
    let server = setup(mode).route("/echo", "echo = \"body\"").start();
    let mut upload = server.connect();
    upload.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    expect(&server, &[("laneway_requests_begun_total", "", 1.0)]);
    server.signal(SIGUSR2);
    server.journal.wait_for("upgrade done");
    expect(&server, &[("laneway_connections_open", "", 1.0)]);
    let mut fresh = server.connect();
    assert_eq!(fresh.get("/").status, 200);
    expect(&server, &[("laneway_connections_open", "", 2.0)]);
    upload.send("x");
    assert_eq!(upload.response().status, 200);
    upload.expect_end();
    expect(&server, &[("laneway_connections_open", "", 1.0), ("laneway_requests_total", "", 2.0)]);
    drop(fresh);
    expect(&server, &[("laneway_connections_open", "", 0.0)]);
}

fn a_turn_that_is_long_is_told_of(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode).lanes(1).faults("requests").start();
    server.get("/.fault/stall");
    // The turn ends after its response has left.
    let longest = || Values::of(&server).sum("laneway_turn_longest_seconds", "");
    let seconds = eventually("it is told of", || Some(longest()).filter(|seconds| *seconds >= 1.0));
    assert!(seconds < 20.0, "{seconds}");
}

fn a_lane_was_busy_for_as_long_as_it_was_on_a_cpu(mode: Mode) {
    let server = setup(mode).lanes(1).route("/large", "bytes = \"64KiB\"").start();
    let before = Values::of(&server);
    let of = |values: &Values, what: &str| values.sum(&format!("laneway_{what}_seconds_total"), "");
    let mut client = server.connect();
    // The kernel has most of the work, which with io_uring is in no turn.
    let after = loop {
        for _ in 0..200 {
            assert_eq!(client.get("/large").status, 200);
        }
        let values = Values::of(&server);
        if of(&values, "cpu") - of(&before, "cpu") > 0.3 {
            break values;
        }
    };
    let [busy, on_cpu] = ["busy", "cpu"].map(|what| of(&after, what) - of(&before, what));
    // What was counted as busy before the first look may have been on a CPU after the last second before it.
    assert!(busy >= on_cpu - 0.05, "busy for {busy} s, {on_cpu} s on a CPU");
}

/// A lane may hold so much for its connections.
const HELD_MAX: usize = 256 << 20;

fn a_lane_without_memory_rejects_and_refuses(mode: Mode) {
    let server = setup(mode)
        .lanes(1)
        .route("/echo", "echo = \"body\"")
        .route("/page", &format!("text = \"{}\"", "x".repeat(4_000)))
        .set("limits.body", "300MiB")
        .start();
    let begin = |length: usize| {
        let mut client = server.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        client
    };
    let mut upload = begin(HELD_MAX - (1 << 20));
    let piece = vec![b'x'; 1 << 20];
    (0..HELD_MAX >> 20).skip(2).for_each(|_| upload.send(&piece));
    let taken = || {
        let received = Values::of(&server).sum("laneway_received_bytes_total", "");
        (received >= (HELD_MAX - (2 << 20)) as f64).then_some(())
    };
    eventually("it is received", taken);
    let mut late = begin(4 << 20);
    let _ = late.try_send(vec![b'x'; 4 << 20]);
    assert_eq!(late.response().status, 503);
    let overloaded = ("laneway_requests_refused_total", "reason=\"overloaded\"", 1.0);
    expect(&server, &[overloaded, ("laneway_connections_rejected_total", "", 0.0)]);
    // Clients that ask for much and read nothing: what there is no room for on the way is kept for them, for a while.
    let mut silent = Vec::new();
    eventually("there is no memory for another one", || {
        let mut client = Client::connect_with_small_buffer(server.address());
        let _ = client.try_send("GET /page HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000));
        silent.push(client);
        let rejected = "reason=\"memory\"";
        let rejected = Values::of(&server).sum("laneway_connections_rejected_total", rejected);
        (rejected >= 1.0).then_some(())
    });
}

fn connections_that_no_proxy_introduces_are_rejected(mode: Mode) {
    let server = setup(mode)
        .set("server.proxy_protocol", "required")
        .set("access.trusted_proxies", "[\"127.0.0.1\"]")
        .start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    let header = ("laneway_connections_rejected_total", "reason=\"proxy_header\"", 1.0);
    expect(&server, &[header, ("laneway_connections_rejected_total", "", 1.0)]);
    Client::connect_from("127.0.0.2", server.address()).expect_end();
    let untrusted = ("laneway_connections_rejected_total", "reason=\"untrusted\"", 1.0);
    expect(&server, &[header, untrusted, ("laneway_connections_accepted_total", "", 2.0)]);
}

#[cfg(feature = "may")]
fn connections_that_an_engine_has_no_room_for_are_rejected(mode: Mode) {
    let server = setup(mode).lanes(1).set("workers.max_connections", 16).start();
    let _served = server.served_connections(16);
    server.connect().expect_end();
    expect(&server, &[("laneway_connections_rejected_total", "reason=\"full\"", 1.0)]);
}

#[test]
fn what_many_lanes_count_last_waits_for_a_server_that_follows_and_is_stopped() {
    const LANES: usize = 512;
    let server = setup(Mode::on_epoll(Workers::Threads, Accept::Reuseport))
        .lanes(LANES)
        .set("workers.pin", false)
        .set("supervisor.ready_timeout", "60s")
        .set("supervisor.drain_timeout", "60s")
        .route("/echo", "echo = \"body\"")
        .start();
    let begin = |_| {
        let mut upload = server.connect();
        upload.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
        upload
    };
    let mut uploads: Vec<Client> = (0..100).map(begin).collect();
    let begun = ("laneway_requests_begun_total", "", uploads.len() as f64);
    expect(&server, &[begun, ("laneway_requests_total", "", 0.0)]);
    let old = server.pid();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    send_signal(heir, SIGSTOP);
    for upload in &mut uploads {
        upload.send("x");
        assert_eq!(upload.response().status, 200);
        upload.expect_end();
    }
    eventually("all of the old server's workers leave", || {
        let others = children_of(old).into_iter().filter(|pid| *pid != heir);
        others.filter_map(process_state).all(|state| state == 'Z').then_some(())
    });
    // It has no more to do, and its heir's socket holds less than what so many lanes have counted.
    harness::let_time_pass(Duration::from_millis(500));
    assert_ne!(process_state(old), Some('Z'), "it stays");
    send_signal(heir, SIGCONT);
    let answered = ("laneway_requests_total", "", uploads.len() as f64);
    expect(&server, &[begun, answered, ("laneway_connections_open", "", 0.0)]);
    eventually("the old server leaves", || {
        process_state(old).is_none_or(|state| state == 'Z').then_some(())
    });
}

#[test]
fn a_server_that_is_stopped_does_not_keep_the_one_before_it_for_longer_than_a_drain() {
    let server = setup(Mode::on_epoll(Workers::Threads, Accept::Reuseport))
        .lanes(512)
        .set("workers.pin", false)
        .set("supervisor.ready_timeout", "60s")
        .set("supervisor.drain_timeout", "3s")
        .start();
    let old = server.pid();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    send_signal(heir, SIGSTOP);
    let event = server.journal.wait_for("counts not handed over");
    assert_eq!(event.pid(), heir);
    eventually("the old server leaves", || {
        process_state(old).is_none_or(|state| state == 'Z').then_some(())
    });
    send_signal(heir, SIGCONT);
}

fn other_programs_read_the_page(mode: Mode) {
    let server = setup(mode).start();
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.connect().request("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").status, 405);
    let (content_type, text) = page(&server, "text/plain");
    assert_eq!(content_type, TEXT);
    let (content_type, open) = page(&server, "application/openmetrics-text; version=1.0.0");
    assert_eq!(content_type, OPEN_METRICS);
    assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF"));
    let mut client = Client::connect(admin(&server));
    client.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.header("content-type")), (200, Some(TEXT)));
    if !skip_without("promtool") {
        let mut promtool = Command::new("promtool");
        let found = checked_by(promtool.args(["check", "metrics"]), text.as_bytes());
        assert_eq!(found.as_deref(), Ok(""), "promtool");
    }
    let Some(python) = python_with("prometheus_client") else { return };
    const READ: &str = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
         print(len([family for family in read(sys.stdin.read())]))";
    let families = checked_by(Command::new(python).args(["-c", READ]), open.as_bytes());
    let families = families.expect("the parser reads it");
    assert_eq!(families.trim(), open.matches("# TYPE").count().to_string());
}
