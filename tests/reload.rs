//! Change while serving: another configuration, mode or number of lanes, and workers that hang. Nothing is
//! lost, and what can't be is refused whole.

mod harness;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    Accept, Client, DEADLINE, Mode, NEW, OLD, Server, Setup, Site, Traffic, Workers, eventually,
    in_every_mode, is_refused, let_time_pass, listeners_at, private_loopback, process_state,
    reload, send_signal, skip_without, skip_without_faults,
};
use nix::sys::signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2};

in_every_mode!(
    a_reload_serves_the_new_configuration_without_a_failure,
    a_reload_that_is_wrong_is_rejected_as_check_would_and_changes_nothing,
    a_reload_of_a_file_that_is_blank_now_is_rejected,
    a_reload_whose_workers_cannot_start_is_withdrawn,
    a_reload_changes_the_mode_without_a_failure,
    a_reload_adds_and_removes_addresses,
    an_added_address_outlives_the_end_of_an_older_generation,
    a_reload_whose_address_is_taken_is_rejected,
    a_reload_changes_the_number_of_lanes_without_a_failure,
    a_reload_changes_the_log,
    reloads_in_a_row_all_happen,
    a_request_in_flight_outlives_a_reload,
    a_keep_alive_connection_is_told_that_the_next_response_is_the_last,
    a_connection_that_was_never_used_is_answered_long_after_a_reload_or_a_resize,
    a_connection_that_was_never_used_is_closed_after_the_time_for_a_head,
    a_connection_that_was_answered_and_is_idle_is_closed_soon_after_a_reload,
    a_stop_hurries_the_drain_of_a_reload,
    ttin_and_ttou_change_the_lanes_without_a_failure,
    the_last_lane_stays,
    the_lane_of_a_worker_that_waits_is_adopted,
    a_stopped_worker_is_hung_and_replaced,
    a_hung_request_costs_its_lane_alone,
    a_busy_loop_that_turns_is_not_hung,
    a_worker_that_turns_again_in_time_stays,
    status_shows_lanes_and_history,
    reload_and_stop_wait_for_their_end,
    a_reload_is_answered_by_the_outcome_of_the_one_that_read_the_file_after_the_question,
    changes_during_a_reload_wait_for_their_turn,
    a_stop_answers_every_change_that_waits,
    commands_without_a_server_say_so,
    the_command_socket_bears_with_anybody,
);
harness::in_may!(
    a_reload_that_is_wrong_is_rejected_as_check_would_and_changes_nothing,
    a_reload_whose_address_is_taken_is_rejected,
    a_reload_changes_the_log,
    a_request_in_flight_outlives_a_reload,
    a_keep_alive_connection_is_told_that_the_next_response_is_the_last,
    the_last_lane_stays,
    a_busy_loop_that_turns_is_not_hung,
    status_shows_lanes_and_history,
    reload_and_stop_wait_for_their_end,
    commands_without_a_server_say_so,
    the_command_socket_bears_with_anybody,
);

/// Where one that hangs is waited for.
const WATCHDOG: &str = "2s";

fn assert_no_failure(traffic: Traffic) {
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(tally.answered > 0);
}

fn a_reload_serves_the_new_configuration_without_a_failure(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let old = server.worker_pid(0);
    let traffic = site.traffic();
    site.text = NEW;
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(site.get(), NEW);
    traffic.wait_answers(50);
    server.journal.wait_for("drain done");
    eventually("the old generation is gone", || process_state(old).is_none().then_some(()));
    assert_no_failure(traffic);
}

fn a_reload_that_is_wrong_is_rejected_as_check_would_and_changes_nothing(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let pid = server.worker_pid(0);
    site.scratch.write("site.toml", "[server]\nbacklogg = 5\n");
    let rejected = reload(&server);
    assert_eq!(rejected.name(), "reload rejected");
    let check = site.command(&server, &["check"]);
    let checked = String::from_utf8_lossy(&check.stderr);
    assert!(checked.contains("did you mean `backlog`?"), "{checked}");
    let reason = rejected.text("reason");
    assert!(checked.contains(reason.trim()), "{reason}\n---\n{checked}");
    assert_eq!(site.get(), OLD);
    assert_eq!(server.worker_pid(0), pid);
}

fn a_reload_of_a_file_that_is_blank_now_is_rejected(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let traffic = site.traffic();
    for blank in ["", "\n \n", "# a comment\n"] {
        std::fs::write(site.path(), blank).expect("write the configuration");
        let rejected = reload(&server);
        assert_eq!(rejected.name(), "reload rejected");
        // The snippet is the file's first line.
        let reason = rejected.text("reason").to_owned();
        let title = "error: the file is blank, and the configuration that is served is of one that was not\n";
        assert!(reason.starts_with(title), "{reason}");
        let help = "  = help: an editor may empty it for a moment while it saves: reload again when the file is \
                    written\n  = help: if the defaults are wanted, write [server] into it, or stop and start the \
                    server";
        assert!(reason.ends_with(help), "{reason}");
    }
    // The file says no more where the command socket is.
    let output = site.command(&server, &["reload", "--set", "supervisor.pid_file=server.pid"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_no_failure(traffic);
    // What it had is still needed after one that is rejected, and after one that is served.
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    std::fs::write(site.path(), "").expect("write the configuration");
    assert_eq!(reload(&server).name(), "reload rejected");
}

#[test]
fn a_reload_of_a_file_with_an_empty_table_serves_the_defaults_and_then_a_blank_one_is_as_good() {
    let site = Site::new(Mode::THREADS);
    std::fs::write(site.path(), "").expect("write the configuration");
    let setup = Setup::bare().config_at(site.path()).set("server.listen", "127.0.0.1:0");
    let server = setup.start();
    for (text, outcome) in [
        ("", "reload done"),
        ("[server]\n", "reload done"),
        ("# a comment\n", "reload rejected"),
        ("[server]\n", "reload done"),
    ] {
        std::fs::write(site.path(), text).expect("write the configuration");
        assert_eq!(reload(&server).name(), outcome, "{text:?}");
    }
}

fn a_reload_whose_workers_cannot_start_is_withdrawn(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    let server = site.start();
    let pid = server.worker_pid(0);
    let traffic = site.traffic();
    site.text = NEW;
    site.more = "server.backlog = 7\n".into();
    site.write();
    std::fs::write(server.folder().join("fail-start"), "").expect("write into the server's folder");
    let rejected = reload(&server);
    assert_eq!(rejected.name(), "reload rejected");
    assert!(rejected.text("reason").contains("fault injected"), "{rejected:?}");
    assert_eq!(site.get(), OLD);
    assert_eq!(server.worker_pid(0), pid);
    assert_no_failure(traffic);
}

fn a_reload_changes_the_mode_without_a_failure(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let traffic = site.traffic();
    site.mode = mode.other();
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    let one_process = server.worker_pid(0) == server.worker_pid(1);
    assert_eq!(one_process, site.mode.is_threads());
    traffic.wait_answers(50);
    assert_no_failure(traffic);
}

fn a_reload_adds_and_removes_addresses(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let first = site.listen[0];
    let traffic = site.traffic();
    let second = private_loopback(8081);
    site.listen.push(second);
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(Client::connect(second).get("/").text(), OLD);
    assert_no_failure(traffic);
    site.listen.remove(0);
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(Client::connect(second).get("/").text(), OLD);
    eventually("the removed address is free", || is_refused(first).then_some(()));
}

fn an_added_address_outlives_the_end_of_an_older_generation(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    let server = site.start();
    let mut client = Client::connect(site.listen[0]);
    client.get("/");
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(reload(&server).name(), "reload done");
    // The first generation drains still, and ends while the third one, with an address more, is on its way.
    let hold = server.folder().join("hold-start");
    std::fs::write(&hold, "").expect("hold the workers");
    let added = private_loopback(8080);
    site.listen.push(added);
    site.write();
    server.signal(SIGHUP);
    server.journal.wait_where("listening", |event| event.text("address") == added.to_string());
    client.send("Host: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
    server.journal.wait_where("drain done", |event| event.number("generation") == 1);
    std::fs::remove_file(hold).expect("let the workers start");
    server.journal.wait_nth("reload done", 2);
    assert_eq!(Client::connect(added).get("/").text(), OLD);
}

fn a_reload_whose_address_is_taken_is_rejected(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let other = std::net::TcpListener::bind(private_loopback(8082)).expect("a listener");
    site.listen.push(other.local_addr().expect("its address"));
    site.listen.push(private_loopback(8083));
    site.write();
    let rejected = reload(&server);
    assert_eq!(rejected.name(), "reload rejected");
    assert!(rejected.text("reason").contains("in use by pid"), "{rejected:?}");
    assert_eq!(site.get(), OLD);
    assert!(is_refused(site.listen[2]), "what was opened for the rejected reload is still open");
}

fn a_reload_changes_the_number_of_lanes_without_a_failure(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let port = site.listen[0].port();
    let traffic = site.traffic();
    for lanes in [4, 1, 3] {
        site.lanes = lanes;
        site.write();
        let done = reload(&server);
        assert_eq!((done.name(), done.number("lanes")), ("reload done", lanes as u64));
        traffic.wait_answers(50);
    }
    if mode.accept == Accept::Reuseport {
        server.journal.wait_where("lane closed", |event| event.number("lane") == 3);
    }
    assert_no_failure(traffic);
    let sockets = mode.sockets(3);
    eventually("the other sockets are closed", || {
        (listeners_of(&site, port) == sockets).then_some(())
    });
}

/// How many sockets listen at the site's own address.
fn listeners_of(site: &Site, port: u16) -> usize {
    listeners_at(SocketAddr::new(site.listen[0].ip(), port))
}

fn a_reload_changes_the_log(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    site.more = "log.level = \"warn\"\n".into();
    site.write();
    server.signal(SIGHUP);
    let before = [server.worker_pid(0), server.worker_pid(1)];
    let is_gone = |pid: &i32| process_state(*pid).is_none();
    eventually("the old workers leave", || before.iter().all(is_gone).then_some(()));
    // From the moment that it serves, the new generation is silent but for warnings.
    assert!(
        server.journal.named("reload done").is_empty()
            || server.journal.named("drain done").is_empty()
    );
    let pids = server.processes();
    let worker = pids.into_iter().find(|pid| *pid != server.pid()).expect("a worker");
    send_signal(worker, SIGKILL);
    server.journal.wait_for("worker exited");
    assert!(server.journal.named("drain done").is_empty(), "{}", server.journal);
}

fn reloads_in_a_row_all_happen(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let traffic = site.traffic();
    for text in [NEW, OLD, NEW] {
        site.text = text;
        site.write();
        server.signal(SIGHUP);
        eventually("the newest configuration serves", || (site.get() == text).then_some(()));
    }
    assert_no_failure(traffic);
}

fn a_request_in_flight_outlives_a_reload(mode: Mode) {
    let mut site = Site::new(mode);
    site.lanes = 1;
    site.more = "[[route]]\npath = \"/slower\"\ntext = \"slow\"\ndelay = \"2s\"\n".into();
    let server = site.start();
    let mut client = server.in_flight("GET /slower HTTP/1.1\r\nHost: a\r\n\r\n");
    site.text = NEW;
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    let response = client.response();
    assert_eq!(response.text(), "slow");
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
}

fn a_keep_alive_connection_is_told_that_the_next_response_is_the_last(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let mut client = server.connect();
    assert!(!client.get("/").says_close());
    let started = server.journal.named("drain started").len();
    server.signal(SIGHUP);
    server.journal.wait_nth("drain started", started + 1);
    // Within the grace of an idle connection, and until its worker has heard of the drain.
    loop {
        let response = client.get("/");
        assert_eq!(response.text(), OLD);
        if response.says_close() {
            break;
        }
    }
    client.expect_end();
    assert!(!client.was_reset());
}

/// More than an idle connection is kept in a drain.
const LONG_AFTER: Duration = Duration::from_millis(1_200);

fn a_connection_that_was_never_used_is_answered_long_after_a_reload_or_a_resize(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    let of_reload: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    site.text = NEW;
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    let of_resize: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    assert_eq!(site.get(), NEW);
    server.signal(SIGTTOU);
    server.journal.wait_for("resized");
    let_time_pass(LONG_AFTER);
    for mut client in of_reload {
        let response = client.get("/");
        assert_eq!(response.text(), OLD);
        assert!(response.says_close(), "{response:?}");
    }
    for mut client in of_resize {
        assert_eq!(client.get("/").text(), NEW);
    }
}

fn a_connection_that_was_never_used_is_closed_after_the_time_for_a_head(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "timeouts.header = \"3s\"\n".into();
    let server = site.start();
    let start = Instant::now();
    let mut client = server.connect();
    let_time_pass(Duration::from_secs(1));
    assert_eq!(reload(&server).name(), "reload done");
    client.expect_end();
    assert!(!client.was_reset());
    let took = start.elapsed();
    // From its accept on, and not from the reload on.
    assert!((2_990..4_000).contains(&took.as_millis()), "{took:?}");
}

fn a_connection_that_was_answered_and_is_idle_is_closed_soon_after_a_reload(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "timeouts.header = \"60s\"\ntimeouts.keep_alive = \"60s\"\n".into();
    let server = site.start();
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), OLD);
    assert_eq!(reload(&server).name(), "reload done");
    // An empty line is no request: it buys no more than the grace that every idle connection has.
    client.send("\r\n");
    client.expect_end();
}

fn a_stop_hurries_the_drain_of_a_reload(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "timeouts.header = \"60s\"\nsupervisor.drain_timeout = \"60s\"\n".into();
    let mut server = site.start();
    let mut client = server.connect();
    assert_eq!(reload(&server).name(), "reload done");
    let start = Instant::now();
    server.signal(SIGTERM);
    client.expect_end();
    assert_eq!(server.wait_exit(), 0);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(server.journal.named("drain deadline").is_empty());
}

fn ttin_and_ttou_change_the_lanes_without_a_failure(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let port = site.listen[0].port();
    let traffic = site.traffic();
    server.signal(SIGTTIN);
    server.journal.wait_where("worker ready", |event| event.number("lane") == 2);
    traffic.wait_answers(100);
    assert_eq!(listeners_of(&site, port), mode.sockets(3));
    // Where lanes have no sockets of their own, none is closed.
    let gone = if mode.accept == Accept::Reuseport { "lane closed" } else { "resized" };
    let before = server.journal.named(gone).len();
    for nth in 1..=2 {
        server.signal(SIGTTOU);
        server.journal.wait_nth(gone, before + nth);
    }
    assert_eq!(listeners_of(&site, port), 1);
    traffic.wait_answers(100);
    assert_no_failure(traffic);
}

#[test]
fn who_was_told_of_to_a_lane_that_leaves_is_served() {
    let mode = Mode::new(Workers::Processes, Accept::Shared);
    let server = Setup::new(mode).lanes(2).set("supervisor.watchdog", "\"60s\"").start();
    let leaves = server.worker_pid(1);
    send_signal(leaves, SIGSTOP);
    server.signal(SIGTTOU);
    server.journal.wait_for("resized");
    let is_answered = |client: &mut Client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.hears_within(Duration::from_millis(200))
    };
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.connect());
        if clients.last_mut().is_some_and(|client| !is_answered(client)) {
            break; // The lane that is stopped alone was told of this one.
        }
    }
    send_signal(leaves, SIGCONT);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn sockets_that_a_resize_opened_before_it_failed_are_served() {
    if skip_without("prlimit") {
        return;
    }
    let mut site = Site::new(Mode::PROCESSES);
    site.listen = (0..5).map(|_| private_loopback(8080)).collect();
    let server = site.start();
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its files").count();
    let limit = |files: usize| {
        let pid = server.pid().to_string();
        let nofile = format!("--nofile={files}:");
        let status = Command::new("prlimit").args(["--pid", &pid, &nofile]).status();
        assert!(status.expect("run prlimit").success());
    };
    // Two of the five sockets of the lane that is to come.
    limit(files + 2);
    server.signal(SIGTTIN);
    server.journal.wait_for("resize rejected");
    for _ in 0..60 {
        assert_eq!(site.get(), OLD);
    }
    server.journal.wait_where("lane closed", |event| event.number("lane") == 2);
    // With room for it, it can be again.
    limit(files + 200);
    server.signal(SIGTTIN);
    assert_eq!(server.journal.wait_for("resized").number("lanes"), 3);
}

fn the_last_lane_stays(mode: Mode) {
    let mut site = Site::new(mode);
    site.lanes = 1;
    let server = site.start();
    server.signal(SIGTTOU);
    let rejected = server.journal.wait_for("resize rejected");
    assert_eq!((rejected.number("lanes"), rejected.text("reason")), (1, "one lane has to stay"));
    server.signal(SIGTTIN);
    let resized = server.journal.wait_for("resized");
    assert_eq!(resized.number("lanes"), 2);
    assert_eq!(site.get(), OLD);
}

fn the_lane_of_a_worker_that_waits_is_adopted(mode: Mode) {
    if mode.is_threads() && skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    site.more =
        "supervisor.restart_delay = \"60s\"\nsupervisor.restart_delay_max = \"60s\"\n".into();
    let server = site.start();
    // The second end is followed by a long wait.
    for end in 1..=2 {
        match mode.workers {
            Workers::Processes => send_signal(server.worker_pid(1), SIGKILL),
            Workers::Threads => {
                let lane = panic_a_worker(&server);
                server.journal.wait_where("worker exited", |event| event.number("lane") == lane);
            }
        }
        server.journal.wait_nth("worker exited", end);
        if mode.accept == Accept::Shared {
            break; // What a lane has, all have.
        }
        eventually("the waiting lane has an owner", || {
            let events = server.journal.so_far();
            let last = |name: &str| events.iter().rposition(|event| event.name() == name);
            (last("worker adopted") > last("worker exited")).then_some(())
        });
        if end == 1 {
            server.journal.wait_nth("worker ready", 3);
        }
        if mode.is_threads() {
            break;
        }
    }
    // As many as would meet the dead lane's queue for certain.
    for _ in 0..40 {
        assert_eq!(site.get(), OLD);
    }
}

/// Has some worker thread panic, and says which lane's.
fn panic_a_worker(server: &Server) -> u64 {
    let before = server.journal.named("worker exited").len();
    let mut client = server.connect();
    client.send("GET /.fault/panic-worker HTTP/1.1\r\nHost: a\r\n\r\n");
    server.journal.wait_nth("worker exited", before + 1);
    server.journal.named("worker exited")[before].number("lane")
}

fn a_stopped_worker_is_hung_and_replaced(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start_watched(WATCHDOG);
    let pid = server.worker_pid(0);
    send_signal(pid, SIGSTOP);
    let hung = server.journal.wait_where("worker hung", |event| event.number("lane") == 0);
    assert!(hung.number("age_ms") >= 2_000, "{hung:?}");
    assert_eq!(hung.text("doing"), "no request");
    if !mode.is_threads() {
        // Before it is even killed, its sibling serves.
        for _ in 0..40 {
            assert_eq!(site.get(), OLD);
        }
    }
    let exited = server.journal.wait_where("worker exited", |event| event.number("lane") == 0);
    assert!(exited.text("reason").starts_with("hung"), "{exited:?}");
    eventually("it is replaced", || (server.worker_pid(0) != pid).then_some(()));
    assert_eq!(site.get(), OLD);
}

/// Asks on all of these connections, and leaves those that answer within a second.
fn answered(clients: &mut Vec<Client>) {
    let until = Instant::now() + Duration::from_secs(1);
    for client in clients.iter_mut() {
        // One whose lane hangs takes it in, and no more.
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    clients.retain_mut(|client| {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        client.hears_within(left) && client.try_response().is_some_and(|it| it.status == 200)
    });
}

fn a_hung_request_costs_its_lane_alone(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(mode);
    let server = site.start_watched(WATCHDOG);
    let mut victims = server.served_connections(20);
    let mut hangs = server.connect();
    hangs.send("GET /.fault/hang HTTP/1.1\r\nHost: a\r\n\r\n");
    // Connections of the other lane never notice, but for the end that they are told of when it is replaced.
    while !victims.is_empty() && server.journal.named("worker hung").is_empty() {
        answered(&mut victims);
        let is_hung = !server.journal.named("worker hung").is_empty();
        assert!(
            !victims.is_empty() || is_hung || !mode.spreads(),
            "no connection of a healthy lane went on: {}",
            server.journal
        );
    }
    let hung = server
        .journal
        .wait_where("worker hung", |event| event.text("doing") == "a request that no route takes");
    let lane = hung.number("lane");
    let traffic = site.traffic();
    let exited = server.journal.wait_for("worker exited");
    assert_eq!(exited.number("lane"), lane);
    traffic.wait_answers(100);
    assert_no_failure(traffic);
    assert_eq!(server.journal.named("worker exited").len(), 1, "{}", server.journal);
}

fn a_busy_loop_that_turns_is_not_hung(mode: Mode) {
    let site = Site::new(mode);
    // A loop that turns, and is kept from it for a while by other processes.
    let server = site.start_watched("5s");
    let traffic = site.traffic();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(6_500) {
        traffic.wait_answers(20);
    }
    assert_no_failure(traffic);
    assert!(server.journal.named("worker hung").is_empty());
}

fn a_worker_that_turns_again_in_time_stays(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start_watched(WATCHDOG);
    let mut clients = server.served_connections(20);
    let pid = server.worker_pid(1);
    send_signal(pid, SIGSTOP);
    // With threads, other lanes hang with it.
    let lane = server.journal.wait_for("worker hung").number("lane");
    send_signal(pid, SIGCONT);
    // It would be killed a second later: something to do has its loop turn at once.
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    server.journal.wait_where("worker recovered", |event| event.number("lane") == lane);
    for _ in 0..40 {
        assert_eq!(site.get(), OLD);
    }
    assert_eq!(server.worker_pid(1), pid);
    assert!(server.journal.named("worker exited").is_empty());
}

fn status_shows_lanes_and_history(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let mut clients = server.served_connections(10);
    send_signal(server.worker_pid(1), SIGKILL);
    server.journal.wait_where("worker exited", |event| event.number("lane") == 1);
    let ready = if mode.is_threads() { 4 } else { 3 };
    server.journal.wait_nth("worker ready", ready);
    let output = site.command(&server, &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["pid"], server.pid());
    let lanes = status["lanes"].as_array().expect("lanes");
    assert_eq!(lanes.len(), 2);
    let sum =
        |field: &str| lanes.iter().map(|lane| lane[field].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(sum("requests"), 10, "what a killed worker had counted is kept");
    assert_eq!(sum("accepted"), 10);
    assert!(lanes.iter().all(|lane| lane["state"] == "ready"), "{lanes:?}");
    assert_eq!(lanes[1]["restarts"], 1);
    assert_eq!(lanes[1]["pid"], server.worker_pid(1));
    let exited = status["history"].as_array().expect("a history").iter();
    let exited = exited.filter(|event| event["event"] == "worker exited");
    let exited: Vec<_> = exited.filter(|event| !event["lane"].is_null()).collect();
    let last = exited.last().expect("the end of the worker");
    assert_eq!((&last["lane"], &last["signal"]), (&1.into(), &"SIGKILL".into()));
    assert!(last["peak_rss"].as_u64() > Some(100_000), "{last}");
    assert_eq!(last["out_of_memory"], false);
    let table = site.command(&server, &["status"]);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.contains("ready") && table.contains("killed by SIGKILL"), "{table}");
    clients.clear();
}

fn reload_and_stop_wait_for_their_end(mode: Mode) {
    let mut site = Site::new(mode);
    let mut server = site.start();
    site.text = NEW;
    site.write();
    let output = site.command(&server, &["reload"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(site.get(), NEW);
    let good = std::fs::read_to_string(site.path()).expect("the file");
    site.scratch.write("site.toml", format!("{good}\nserver.listenn = 1\n"));
    // The server tells what is wrong, and the exit code that it is the configuration.
    assert_eq!(site.command(&server, &["reload"]).status.code(), Some(2));
    site.write();
    let pid_file = server.folder().join("server.pid");
    let written = std::fs::read_to_string(&pid_file).expect("the pid file");
    assert_eq!(written.trim(), server.pid().to_string());
    let output = site.command(&server, &["stop"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.wait_exit(), 0);
    assert!(!pid_file.exists() && !pid_file.with_extension("sock").exists());
}

/// Asks on the command socket, and returns once the server has heard it: `heard` sees to that.
fn ask(server: &Server, request: &str) -> UnixStream {
    let path = server.folder().join("server.sock");
    let mut stream = UnixStream::connect(path).expect("connect to the command socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    writeln!(stream, "{request}").expect("ask");
    stream
}

fn answer(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// Has a reload begin that goes on until [`let_go`], and has read the file.
fn hold_reload(server: &Server) {
    std::fs::write(server.folder().join("hold-start"), "").expect("write");
    let before = server.journal.named("worker started").len();
    server.signal(SIGHUP);
    server.journal.wait_nth("worker started", before + 1);
}

fn let_go(server: &Server) {
    std::fs::remove_file(server.folder().join("hold-start")).expect("remove");
}

fn a_reload_is_answered_by_the_outcome_of_the_one_that_read_the_file_after_the_question(
    mode: Mode,
) {
    if skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    let server = site.start();
    site.text = NEW;
    site.write();
    hold_reload(&server);
    // The reload under way has read a good file. What is asked for now is another one.
    let first = ask(&server, "reload");
    server.journal.wait_nth("change waits", 1);
    site.scratch.write("site.toml", "[server]\nbacklogg = 5\n");
    let_go(&server);
    let first = answer(first);
    assert!(first.starts_with("{\"Invalid\":") && first.contains("backlogg"), "{first}");
    assert_eq!(site.get(), NEW);
    // The other way round: what is under way fails, and what is asked for now does not.
    site.text = OLD;
    site.write();
    hold_reload(&server);
    let second = ask(&server, "reload");
    server.journal.wait_nth("change waits", 2);
    let started = server.journal.named("worker started");
    send_signal(started.last().expect("a worker on its way").pid(), SIGKILL);
    server.journal.wait_nth("reload rejected", 2);
    let_go(&server);
    let second = answer(second);
    assert!(second.starts_with("{\"Done\":"), "{second}");
    assert_eq!(site.get(), OLD);
}

fn changes_during_a_reload_wait_for_their_turn(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(mode);
    let mut server = site.start();
    let traffic = site.traffic();
    hold_reload(&server);
    server.signal(SIGTTIN);
    server.journal.wait_where("change waits", |event| event.text("change") == "resize");
    server.signal(SIGUSR2);
    server.journal.wait_where("change waits", |event| event.text("change") == "upgrade");
    let_go(&server);
    let resized = server.journal.wait_for("resized");
    assert_eq!(resized.number("lanes"), 3);
    let heir = server.journal.wait_for("upgrade done").pid();
    assert_eq!(server.journal.named("reload done").len(), 1);
    assert!(server.journal.named("resize rejected").is_empty(), "{}", server.journal);
    assert_eq!(server.wait_exit(), 0);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    send_signal(heir, SIGTERM);
    server.wait_gone();
}

fn a_stop_answers_every_change_that_waits(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(mode);
    let mut server = site.start();
    hold_reload(&server);
    let reload = ask(&server, "reload");
    let upgrade = ask(&server, "upgrade");
    server.journal.wait_nth("change waits", 2);
    server.signal(SIGTTIN);
    server.journal.wait_nth("change waits", 3);
    server.signal(SIGTERM);
    for text in [answer(reload), answer(upgrade)] {
        assert_eq!(text.trim(), r#"{"Failed":"this server was told to stop"}"#);
    }
    assert_eq!(server.wait_exit(), 0);
    // The reload under way, and the one that waited.
    assert_eq!(server.journal.named("reload rejected").len(), 2);
    server.journal.wait_for("upgrade failed");
    server.journal.wait_for("resize rejected");
}

fn commands_without_a_server_say_so(mode: Mode) {
    let site = Site::new(mode);
    let mut server = site.start();
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    let output = site.command(&server, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no server runs with this configuration"), "{text}");
}

fn the_command_socket_bears_with_anybody(mode: Mode) {
    let site = Site::new(mode);
    let server = site.start();
    let path = server.folder().join("server.sock");
    let mode_bits = std::fs::metadata(&path).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode_bits, 0o600);
    let connect = || UnixStream::connect(&path).expect("connect to the command socket");
    // Says too much.
    let mut loud = connect();
    let _ = loud.write_all(&[b'x'; 4096]);
    // Says nonsense.
    let mut odd = connect();
    odd.write_all(b"what\n").expect("write");
    let mut answer = String::new();
    odd.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("unknown request"), "{answer}");
    // Says nothing, and more of them than there is room for.
    let silent: Vec<UnixStream> = (0..40).map(|_| connect()).collect();
    // Asks, says that it is done with that, and only then reads, as `echo status | nc -U` does.
    let mut last = connect();
    last.write_all(b"status\n").expect("write");
    last.shutdown(std::net::Shutdown::Write).expect("shut down");
    let mut answer = String::new();
    last.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("{\"Status\":"), "{answer}");
    drop(silent);
    assert!(site.command(&server, &["status"]).status.success());
}
