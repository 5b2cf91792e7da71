//! The admin address: what it says of a server, who may ask, and that it answers whatever becomes of the lanes.

mod harness;

use harness::{
    Client, Mode, Response, Server, Setup, Site, eventually, is_refused, is_stopped,
    private_loopback, reload, send_signal, skip_without, skip_without_faults,
};
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

macro_rules! in_both_modes {
    ($($case:ident),+ $(,)?) => {
        harness::in_mode!(threads, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(processes, new(Workers::Processes, Accept::Reuseport), [$($case),+]);
        harness::in_mode!(handoff, new(Workers::Processes, Accept::Handoff), [$($case),+]);
    };
}
in_both_modes!(
    every_page_is_answered_and_none_is_kept,
    the_status_is_the_one_of_the_command,
    what_is_asked_there_is_counted_for_no_lane,
    a_server_is_ready_when_its_lanes_are,
    lanes_that_hang_are_told_while_they_do,
    one_crash_leaves_the_server_ready,
    a_server_that_is_full_is_ready_and_says_so,
    a_server_that_was_told_to_stop_is_not_ready_and_says_so_until_its_lanes_have_drained,
    a_supervisor_that_is_stopped_is_told_in_about_a_second,
    an_admin_worker_that_is_killed_comes_back_however_often_and_harms_no_lane,
    a_reload_adds_changes_and_removes_the_address,
    an_upgrade_moves_the_address_without_a_failed_request,
    clients_that_send_nothing_or_read_nothing_keep_it_from_none,
    connections_that_are_idle_make_room_for_others_and_one_that_is_answered_does_not,
    lanes_that_hang_without_a_watchdog_are_told_and_left_alone,
    lanes_that_hang_in_a_drain_are_told,
    lanes_that_cannot_accept_are_not_ready_until_they_can_again,
    a_reload_that_was_rejected_degrades_a_server_until_one_is_done,
    an_access_log_that_fails_degrades_a_server_until_it_is_written,
    an_upgrade_under_way_is_told_and_is_no_fault,
    an_address_that_changes_its_purpose_is_told_to_need_two_reloads,
);

const GET: &str = "GET";

fn setup(mode: Mode) -> Setup {
    Setup::new(mode)
        .faults("requests")
        .set("admin.listen", "127.0.0.1:0")
        .set("supervisor.restart_delay", "20ms")
        .set("supervisor.restart_delay_max", "80ms")
}

/// Where the server said that it listens as admin address.
fn admin_of(server: &Server) -> SocketAddr {
    let event = server.journal.wait_where("listening", |event| event.has("role"));
    assert_eq!(event.text("role"), "admin");
    event.text("address").parse().expect("an address")
}

fn ask_at(address: SocketAddr, method: &str, path: &str, host: &str) -> Response {
    let mut client = Client::connect(address);
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response_to(method)
}

fn ask(server: &Server, path: &str) -> Response {
    ask_at(admin_of(server), GET, path, "localhost")
}

/// Status and JSON of `/healthz` or `/readyz`.
fn verdict(server: &Server, path: &str) -> (u16, Value) {
    let response = ask(server, path);
    (response.status, serde_json::from_str(response.text()).expect("JSON"))
}

/// Waits until a page has this status, and returns its reason, or what is degraded.
#[track_caller]
fn wait_for_verdict(server: &Server, path: &str, status: u16, what: &str) {
    eventually(what, || {
        let (is, said) = verdict(server, path);
        (is == status && said.to_string().contains(what)).then_some(())
    });
}

fn every_page_is_answered_and_none_is_kept(mode: Mode) {
    let server = setup(mode).start();
    let address = admin_of(&server);
    for (path, status, content_type) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/healthz", 200, "application/json"),
        ("/readyz", 200, "application/json"),
        ("/status", 200, "application/json"),
        ("/absent", 404, "text/plain; charset=utf-8"),
        ("/healthz/", 404, "text/plain; charset=utf-8"),
    ] {
        let [whole, head] = [GET, "HEAD"].map(|method| ask_at(address, method, path, "localhost"));
        for response in [&whole, &head] {
            assert_eq!(response.status, status, "{path}");
            assert_eq!(response.header("content-type"), Some(content_type), "{path}");
            assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
        }
        assert!(!whole.body.is_empty() && head.body.is_empty(), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PURGE"] {
        let response = ask_at(address, method, "/status", "localhost");
        assert_eq!((response.status, response.allow()), (405, vec!["GET", "HEAD"]), "{method}");
    }
    let index = ask(&server, "/");
    for path in ["/healthz", "/readyz", "/status"] {
        assert!(index.text().contains(&format!("href=\"{path}\"")), "{path}");
    }
}

fn the_status_is_the_one_of_the_command(mode: Mode) {
    let site = with_admin(mode, private_loopback(9180));
    let server = site.start();
    let output = site.command(&server, &["status", "--json"]);
    let plain = |text: &[u8]| {
        let mut status: Value = serde_json::from_slice(text).expect("JSON");
        forget_times(&mut status);
        status
    };
    let response = ask(&server, "/status");
    let (page, command) = (plain(&response.body), plain(&output.stdout));
    assert_eq!(page, command);
    assert_eq!(page["admin"]["state"], "ready");
    assert_eq!(page["admin"]["addresses"][0], admin_of(&server).to_string());
}

/// What differs between two looks at the same server.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| {
                let is_moving = name.ends_with("_ms") || name.ends_with("_us") || name == "turns";
                !is_moving
            });
            members.values_mut().for_each(forget_times);
        }
        Value::Array(members) => members.iter_mut().for_each(forget_times),
        _ => {}
    }
}

fn what_is_asked_there_is_counted_for_no_lane(mode: Mode) {
    let server = setup(mode).start();
    for _ in 0..5 {
        assert_eq!(ask(&server, "/readyz").status, 200);
    }
    server.served_connections(3);
    eventually("the lanes' requests, and no others, are counted", || {
        let status: Value = serde_json::from_slice(&ask(&server, "/status").body).expect("JSON");
        let totals = &status["totals"];
        assert!(totals["requests"].as_u64() <= Some(3), "{totals}");
        (totals["requests"] == 3 && totals["accepted"] == 3).then_some(())
    });
}

fn a_server_is_ready_when_its_lanes_are(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let setup = setup(mode);
    setup.scratch().write("hold-start", "");
    let server = setup.spawn();
    server.journal.wait_for("admin ready");
    for path in ["/readyz", "/healthz"] {
        let (status, said) = verdict(&server, path);
        assert_eq!((status, &said["lanes"]), (503, &0.into()), "{path}: {said}");
        assert!(said["reason"].as_str().is_some_and(|reason| reason.contains("starts")), "{said}");
    }
    fs::remove_file(server.folder().join("hold-start")).expect("let them start");
    server.journal.wait_for("ready");
    for path in ["/readyz", "/healthz"] {
        let (status, said) = verdict(&server, path);
        assert_eq!((status, &said["lanes_ready"]), (200, &2.into()), "{path}: {said}");
    }
}

fn lanes_that_hang_are_told_while_they_do(mode: Mode) {
    let server = setup(mode).set("supervisor.watchdog", "500ms").start();
    let mut workers: Vec<i32> = (0..2).map(|lane| server.worker_pid(lane)).collect();
    workers.dedup();
    workers.iter().for_each(|worker| send_signal(*worker, SIGSTOP));
    wait_for_verdict(&server, "/healthz", 503, "every lane hangs");
    // They are killed and replaced a moment later.
    wait_for_verdict(&server, "/healthz", 200, "\"lanes_ready\":2");
    wait_for_verdict(&server, "/readyz", 200, "\"status\":\"ready\"");
    if mode.is_threads() {
        return;
    }
    send_signal(server.worker_pid(1), SIGSTOP);
    wait_for_verdict(&server, "/readyz", 200, "lane 1 hangs");
    assert_eq!(verdict(&server, "/healthz").0, 200);
}

fn one_crash_leaves_the_server_ready(mode: Mode) {
    let server = setup(mode).start();
    let worker = server.worker_pid(0);
    let is_over = AtomicBool::new(false);
    let polls = thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let mut polls = 0;
            while !is_over.load(Ordering::Relaxed) {
                let (status, said) = verdict(&server, "/readyz");
                assert_eq!(status, 200, "{said}");
                polls += 1;
            }
            polls
        });
        send_signal(worker, SIGKILL);
        server.journal.wait_where("worker ready", |event| {
            event.has("lane") && event.number("lane") == 0 && event.pid() != worker
        });
        is_over.store(true, Ordering::Relaxed);
        poll.join().expect("it was ready all the time")
    });
    assert!(polls > 0);
}

fn a_server_that_is_full_is_ready_and_says_so(mode: Mode) {
    let server = setup(mode).lanes(1).set("workers.max_connections", 1).start();
    let _held = server.served_connections(1);
    wait_for_verdict(&server, "/readyz", 200, "workers.max_connections");
    assert_eq!(verdict(&server, "/healthz").0, 200);
}

fn a_server_that_was_told_to_stop_is_not_ready_and_says_so_until_its_lanes_have_drained(
    mode: Mode,
) {
    let mut server = setup(mode)
        .lanes(1)
        .route("/slow", "text = \"slow\"\ndelay = \"3s\"")
        .set("supervisor.drain_delay", "1s")
        .start();
    server.signal(SIGTERM);
    server.journal.wait_for("stop delayed");
    let (status, said) = verdict(&server, "/readyz");
    assert_eq!((status, &said["reason"]), (503, &"it was told to stop".into()), "{said}");
    assert_eq!(verdict(&server, "/healthz").0, 200);
    let mut slow = server.in_flight("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    server.journal.wait_for("drain started");
    assert_eq!(verdict(&server, "/readyz").0, 503);
    assert_eq!(verdict(&server, "/healthz").0, 200);
    let mut idle = Client::connect(admin_of(&server));
    assert_eq!(
        idle.request("GET /healthz HTTP/1.1\r\nHost: ::1\r\n\r\n".replace("::1", "[::1]")).status,
        200
    );
    assert_eq!(slow.response().text(), "slow");
    assert_eq!(server.wait_exit(), 0);
    assert!(is_refused(admin_of(&server)), "it ends with the server");
}

fn a_supervisor_that_is_stopped_is_told_in_about_a_second(mode: Mode) {
    let server = setup(mode).start();
    assert_eq!(verdict(&server, "/healthz").0, 200);
    server.signal(SIGSTOP);
    eventually("the supervisor stops", || is_stopped(server.pid()).then_some(()));
    for path in ["/healthz", "/readyz"] {
        let asked = Instant::now();
        let (status, said) = verdict(&server, path);
        assert_eq!(status, 503, "{said}");
        assert_eq!(said["reason"], "the supervisor does not answer");
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    }
    assert_eq!(ask(&server, "/status").status, 503);
    server.signal(SIGCONT);
    wait_for_verdict(&server, "/healthz", 200, "alive");
}

fn an_admin_worker_that_is_killed_comes_back_however_often_and_harms_no_lane(mode: Mode) {
    let site = with_admin(mode, private_loopback(9180));
    let server = site.setup().set("supervisor.max_restarts", 2).start();
    server.journal.wait_for("admin ready");
    let traffic = site.traffic();
    for count in 1..=6 {
        send_signal(server.journal.wait_nth("admin ready", count).pid(), SIGKILL);
        server.journal.wait_nth("admin ready", count + 1);
        assert_eq!(ask(&server, "/readyz").status, 200);
    }
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(server.journal.named("worker gave up").is_empty());
}

/// A site with this admin address.
fn with_admin(mode: Mode, admin: SocketAddr) -> Site {
    let mut site = Site::new(mode);
    site.more = format!("admin.listen = \"{admin}\"");
    site
}

fn a_reload_adds_changes_and_removes_the_address(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let [first, second] = [private_loopback(9180), private_loopback(9180)];
    for (admin, gone) in [(Some(first), None), (Some(second), Some(first)), (None, Some(second))] {
        site.more = admin.map(|admin| format!("admin.listen = \"{admin}\"")).unwrap_or_default();
        site.write();
        assert_eq!(reload(&server).name(), "reload done");
        if let Some(admin) = admin {
            assert_eq!(ask_at(admin, GET, "/readyz", "localhost").status, 200);
        }
        if let Some(gone) = gone {
            eventually("the address before is closed", || is_refused(gone).then_some(()));
        }
    }
    assert_eq!(site.get(), harness::OLD);
}

fn an_upgrade_moves_the_address_without_a_failed_request(mode: Mode) {
    let admin = private_loopback(9180);
    let site = with_admin(mode, admin);
    let mut server = site.start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let scrapes = scope.spawn(|| {
            let mut pids = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let ready = ask_at(admin, GET, "/readyz", "localhost");
                assert_eq!(ready.status, 200, "{}", ready.text());
                let status = ask_at(admin, GET, "/status", "localhost");
                let status: Value = serde_json::from_slice(&status.body).expect("JSON");
                pids.push(status["pid"].as_i64());
            }
            pids.dedup();
            pids
        });
        server.signal(SIGUSR2);
        let new = i64::from(server.journal.wait_for("upgrade done").pid());
        assert_eq!(server.wait_exit(), 0);
        eventually("the new server answers", || {
            let status = ask_at(admin, GET, "/status", "localhost");
            let status: Value = serde_json::from_slice(&status.body).expect("JSON");
            (status["pid"] == new).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        scrapes.join().expect("no request failed");
    });
}

fn clients_that_send_nothing_or_read_nothing_keep_it_from_none(mode: Mode) {
    let server = setup(mode).start();
    let address = admin_of(&server);
    let _idle: Vec<Client> = (0..50).map(|_| Client::connect(address)).collect();
    let mut deaf: Vec<Client> =
        (0..50).map(|_| Client::connect_with_small_buffer(address)).collect();
    for client in &mut deaf {
        client.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20));
    }
    assert_eq!(verdict(&server, "/healthz").0, 200);
    server.served_connections(5);
}

fn connections_that_are_idle_make_room_for_others_and_one_that_is_answered_does_not(mode: Mode) {
    let server = setup(mode).start();
    let address = admin_of(&server);
    let mut idle: Vec<Client> = (0..300).map(|_| Client::connect(address)).collect();
    // What it asks the supervisor is answered after a second without it.
    server.signal(SIGSTOP);
    eventually("the supervisor stops", || is_stopped(server.pid()).then_some(()));
    let mut answered = Client::connect(address);
    answered.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    idle.extend((0..600).map(|_| {
        let mut client = Client::connect(address);
        // The last part of a head is still to come.
        client.try_send("GET /healthz HTTP/1.1\r\n").expect("it was just accepted");
        client
    }));
    assert_eq!(ask(&server, "/").status, 200, "it needs no supervisor");
    assert_eq!(answered.response().status, 503);
    server.signal(SIGCONT);
    wait_for_verdict(&server, "/healthz", 200, "alive");
    assert!(!idle[0].is_held(), "the one that is idle longest had to go");
    assert!(idle.last().is_some_and(Client::is_held), "and no other");
    server.served_connections(5);
}

fn lanes_that_hang_without_a_watchdog_are_told_and_left_alone(mode: Mode) {
    let server = setup(mode).set("supervisor.watchdog", "0s").start();
    let mut workers: Vec<i32> = (0..2).map(|lane| server.worker_pid(lane)).collect();
    workers.dedup();
    workers.iter().for_each(|worker| send_signal(*worker, SIGSTOP));
    wait_for_verdict(&server, "/healthz", 503, "every lane hangs");
    wait_for_verdict(&server, "/readyz", 503, "lanes 0-1 hang");
    workers.iter().for_each(|worker| send_signal(*worker, SIGCONT));
    wait_for_verdict(&server, "/healthz", 200, "\"lanes_ready\":2");
    wait_for_verdict(&server, "/readyz", 200, "\"status\":\"ready\"");
    assert!(server.journal.named("worker exited").is_empty());
}

fn lanes_that_hang_in_a_drain_are_told(mode: Mode) {
    let mut server = setup(mode)
        .lanes(1)
        .set("supervisor.watchdog", "500ms")
        .route("/slow", "text = \"slow\"\ndelay = \"60s\"")
        .start();
    let _slow = server.in_flight("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal(SIGTERM);
    server.journal.wait_for("drain started");
    let (status, said) = verdict(&server, "/healthz");
    assert_eq!((status, &said["lanes_ready"]), (200, &0.into()), "{said}");
    let worker = server.worker_pid(0);
    send_signal(worker, SIGSTOP);
    wait_for_verdict(&server, "/healthz", 503, "every lane hangs");
    wait_for_verdict(&server, "/readyz", 503, "it was told to stop");
    send_signal(worker, SIGCONT);
    wait_for_verdict(&server, "/healthz", 200, "alive");
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 1);
}

/// The processes that accept connections.
fn accepting(server: &Server, mode: Mode) -> Vec<i32> {
    if mode.accept != harness::Accept::Handoff {
        let mut workers: Vec<i32> = (0..2).map(|lane| server.worker_pid(lane)).collect();
        workers.dedup();
        return workers;
    }
    vec![server.journal.wait_for("acceptor ready").pid()]
}

/// Sets how many files a process may have open.
fn limit_files(pid: i32, limit: u32) {
    let limit = format!("--nofile={limit}:");
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(status.expect("run prlimit").success());
}

fn lanes_that_cannot_accept_are_not_ready_until_they_can_again(mode: Mode) {
    if skip_without("prlimit") {
        return;
    }
    let server = setup(mode).start();
    let processes = accepting(&server, mode);
    let is_one_of_several = processes.len() > 1;
    processes.iter().take(1).for_each(|pid| limit_files(*pid, 1));
    // So many that each lane gets some.
    let mut waiting: Vec<Client> = (0..32).map(|_| server.connect()).collect();
    if is_one_of_several {
        wait_for_verdict(&server, "/readyz", 200, "lane 0 can't accept");
        let (_, said) = verdict(&server, "/readyz");
        assert_eq!(
            (&said["lanes_ready"], &said["addresses"][0]["lanes_ready"]),
            (&1.into(), &1.into())
        );
        processes.iter().for_each(|pid| limit_files(*pid, 1));
        waiting.extend((0..32).map(|_| server.connect()));
    }
    wait_for_verdict(&server, "/readyz", 503, "can't accept");
    let (status, said) = verdict(&server, "/healthz");
    assert_eq!(status, 200, "they turn: {said}");
    assert_eq!(said["addresses"][0]["address"], server.address().to_string());
    processes.iter().for_each(|pid| limit_files(*pid, 1024));
    wait_for_verdict(&server, "/readyz", 200, "\"lanes_ready\":2");
    for client in &mut waiting {
        assert_eq!(client.get("/").status, 200, "it has waited in a queue");
    }
    assert!(verdict(&server, "/readyz").1.get("degraded").is_none());
}

fn a_reload_that_was_rejected_degrades_a_server_until_one_is_done(mode: Mode) {
    let mut site = with_admin(mode, private_loopback(9180));
    let server = site.start();
    let good = site.more.clone();
    site.more += "\nno.such = 1";
    site.write();
    assert_eq!(reload(&server).name(), "reload rejected");
    let (status, said) = verdict(&server, "/readyz");
    assert_eq!(status, 200, "{said}");
    assert!(said["degraded"][0].as_str().is_some_and(|of| of.contains("reload")), "{said}");
    site.more = good;
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    wait_for_verdict(&server, "/readyz", 200, "\"lanes_ready\":2");
    assert!(verdict(&server, "/readyz").1.get("degraded").is_none());
}

fn an_access_log_that_fails_degrades_a_server_until_it_is_written(mode: Mode) {
    let server = setup(mode)
        .set("supervisor.watchdog", "500ms")
        .set("log.access", "logs/access.log")
        .start();
    server.get("/");
    wait_for_verdict(&server, "/readyz", 200, "the access log fails");
    fs::create_dir(server.folder().join("logs")).expect("make a folder");
    eventually("it is written, and nothing is wrong any more", || {
        server.get("/");
        verdict(&server, "/readyz").1.get("degraded").is_none().then_some(())
    });
    send_signal(server.journal.wait_for("access_log ready").pid(), SIGSTOP);
    wait_for_verdict(&server, "/readyz", 200, "the access log's writer hangs");
}

fn an_upgrade_under_way_is_told_and_is_no_fault(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let admin = private_loopback(9180);
    let site = with_admin(mode, admin);
    let mut server = site.start();
    site.scratch.write("hold-start", "");
    fs::write(server.folder().join("hold-start"), "").expect("hold the workers of the heir");
    server.signal(SIGUSR2);
    eventually("the upgrade is told", || {
        let (status, said) = verdict(&server, "/readyz");
        assert_eq!((status, said.get("degraded")), (200, None), "{said}");
        (said["change"] == "an upgrade is under way").then_some(())
    });
    fs::remove_file(server.folder().join("hold-start")).expect("let them start");
    server.journal.wait_for("upgrade done");
    assert_eq!(server.wait_exit(), 0);
}

fn an_address_that_changes_its_purpose_is_told_to_need_two_reloads(mode: Mode) {
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|of| of.local_addr()).expect("a port");
    let [first, second, other] = [(); 3].map(|()| private_loopback(free().port()));
    let mut site = with_admin(mode, other);
    site.listen = vec![first, second];
    let server = site.start();
    site.listen = vec![first];
    site.more = format!("admin.listen = \"{second}\"");
    site.write();
    let rejected = reload(&server);
    assert_eq!(rejected.name(), "reload rejected");
    let reason = rejected.text("reason");
    assert!(reason.contains("has it as server.listen"), "{reason}");
    assert!(reason.contains("set admin.listen to it and reload again"), "{reason}");
    // As it says.
    for admin in [other, second] {
        site.more = format!("admin.listen = \"{admin}\"");
        site.write();
        assert_eq!(reload(&server).name(), "reload done");
    }
    assert_eq!(ask_at(second, GET, "/readyz", "localhost").status, 200);
    site.listen = vec![first, second];
    site.more = format!("admin.listen = \"{other}\"");
    site.write();
    let rejected = reload(&server);
    assert!(rejected.text("reason").contains("has it as admin.listen"), "{rejected:?}");
}

#[test]
fn a_server_that_gives_up_says_why_it_ends() {
    if skip_without_faults() {
        return;
    }
    let mut server = setup(Mode::PROCESSES)
        .set("supervisor.max_restarts", 2)
        .route("/slow", "text = \"slow\"\ndelay = \"3s\"")
        .start();
    // Lane 1 finishes what is in flight, and the server goes on for as long as that takes.
    let _slow: Vec<Client> =
        (0..16).map(|_| server.in_flight("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    fs::write(server.folder().join("fail-start"), "").expect("have workers fail");
    send_signal(server.worker_pid(0), SIGKILL);
    server.journal.wait_for("drain started");
    let (status, said) = verdict(&server, "/readyz");
    assert_eq!((status, &said["reason"]), (503, &"a worker could not be kept alive".into()));
    assert_eq!(server.wait_exit(), 1);
}

#[test]
fn an_admin_worker_that_may_open_few_files_answers_however_many_connect() {
    if skip_without("prlimit") {
        return;
    }
    let server = setup(Mode::PROCESSES)
        .set("workers.max_connections", 8)
        .under(&["prlimit", "--nofile=64:64"])
        .start();
    let address = admin_of(&server);
    let _idle: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(ask(&server, path).status, 200, "{path}");
    }
    assert!(server.journal.named("accept paused").is_empty());
}

#[test]
fn a_name_that_is_not_the_servers_own_is_refused() {
    let server = setup(Mode::THREADS).set("admin.hosts", "Status.Example.org").start();
    let address = admin_of(&server);
    // (the Host field, the status)
    let cases = [
        ("127.0.0.1", 200),
        ("127.0.0.1:9180", 200),
        ("10.1.2.3:80", 200),
        ("[::1]", 200),
        ("[2001:db8::1]:9180", 200),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("localhost.", 200),
        ("status.example.org", 200),
        ("STATUS.example.org.:9180", 200),
        ("example.org", 421),
        ("evil.status.example.org", 421),
        ("status.example.org.evil", 421),
        ("localhost.evil", 421),
        ("127.0.0.1.evil", 421),
        ("1.2.3", 421),
        ("", 421),
    ];
    for (host, status) in cases {
        for path in ["/", "/status", "/absent"] {
            let found = if status == 200 && path == "/absent" { 404 } else { status };
            let response = ask_at(address, GET, path, host);
            assert_eq!(response.status, found, "{host:?} {path}: {}", response.text());
        }
    }
    let mut old = Client::connect(address);
    let response = old.request("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(response.status, 200, "HAProxy's check states no host");
    let mut old = Client::connect(address);
    let response = old.request("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n");
    assert_eq!(response.status, 421);
    let mut absolute = Client::connect(address);
    let response =
        absolute.request("GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(response.status, 421, "the target's host counts");
}

#[test]
fn the_status_of_many_lanes_is_whole() {
    let server = setup(Mode::THREADS).lanes(100).start();
    let status: Value = serde_json::from_slice(&ask(&server, "/status").body).expect("JSON");
    assert_eq!(status["lanes"].as_array().map(Vec::len), Some(100));
}

#[test]
fn a_flood_of_questions_is_answered_and_the_lanes_serve_on() {
    let server = setup(Mode::PROCESSES).start();
    let address = admin_of(&server);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                for _ in 0..50 {
                    client.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(4));
                    (0..4).for_each(|_| assert_eq!(client.response().status, 200));
                }
            });
        }
        server.served_connections(20);
    });
}

#[test]
fn an_address_that_the_lanes_have_is_refused() {
    // A port of its own: whose it is is found by its number alone.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|of| of.local_addr()).expect("a port");
    let address = private_loopback(free.port());
    for command in ["check", "run"] {
        let mut server = Setup::bare()
            .set("server.listen", address)
            .set("admin.listen", address)
            .set("log.format", "json")
            .arguments(&[command])
            .spawn();
        assert_eq!(server.wait_exit(), 1, "{command}");
        let text =
            server.journal.whole().iter().map(|event| format!("{event:?}")).collect::<String>();
        let text = text + &server.journal.strays().join("\n");
        let expected = match command {
            "check" => "of server.listen takes the port, too",
            _ => "server.listen and admin.listen can't share a port",
        };
        assert!(text.contains(expected), "{command}: {text}");
    }
}
