//! Workers that die: what is reported, what is lost, what takes their place, and when that ends.

mod harness;

use harness::{
    Client, Event, Mode, Server, Setup, Workers, children_of, eventually, in_every_mode,
    is_refused, is_stopped, namespace_members, namespace_pid, process_state, send_signal,
    skip_without, skip_without_faults, skipped,
};
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use nix::unistd::Uid;

in_every_mode!(
    a_killed_worker_is_reported_with_its_cause_and_replaced_at_once,
    a_connection_queued_before_the_worker_was_killed_is_answered_by_its_replacement,
    a_killed_worker_loses_its_own_connections_and_no_others,
    the_connections_lost_with_a_worker_are_counted,
    restarts_after_the_first_are_delayed,
    a_lane_that_keeps_dying_makes_the_server_give_up,
    a_lane_that_keeps_panicking_makes_the_server_give_up,
    giving_up_drains_the_other_lanes,
    a_panic_in_a_request_ends_that_connection_alone,
    a_panic_in_a_worker_ends_that_worker_alone,
    an_abort_ends_the_worker_process_alone,
    a_worker_told_to_terminate_drains_and_is_replaced,
    a_worker_told_to_terminate_is_no_crash_however_often,
    a_killed_supervisor_takes_its_workers_along_after_their_requests,
    a_stopped_worker_goes_on_when_its_supervisor_is_killed_and_ends_after_its_request,
    a_worker_that_is_stopped_and_continued_stays,
    as_pid_1_it_reaps_orphans_and_drains_on_term,
    a_child_that_had_ended_before_the_server_began_is_reaped,
);
harness::in_may!(
    a_killed_worker_is_reported_with_its_cause_and_replaced_at_once,
    a_killed_worker_loses_its_own_connections_and_no_others,
    the_connections_lost_with_a_worker_are_counted,
    restarts_after_the_first_are_delayed,
    a_lane_that_keeps_dying_makes_the_server_give_up,
    giving_up_drains_the_other_lanes,
    a_panic_in_a_request_ends_that_connection_alone,
    an_abort_ends_the_worker_process_alone,
    a_worker_told_to_terminate_drains_and_is_replaced,
    a_killed_supervisor_takes_its_workers_along_after_their_requests,
    as_pid_1_it_reaps_orphans_and_drains_on_term,
);

const SLOW: &str = "text = \"slow\"\ndelay = \"500ms\"";
const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

/// Restarts are quick, so that a test of many takes little time.
fn setup(mode: Mode) -> Setup {
    Setup::new(mode)
        .route("/slow", SLOW)
        .set("supervisor.restart_delay", "20ms")
        .set("supervisor.restart_delay_max", "80ms")
}

/// Kills the worker process of a lane and waits until a replacement is ready.
fn kill_and_wait(server: &Server, lane: u64) {
    let of_lane = |event: &Event| event.number("lane") == lane;
    let ready = server.journal.named("worker ready").into_iter().filter(of_lane).count();
    send_signal(server.worker_pid(lane), SIGKILL);
    let next = server.journal.wait_either(("worker ready", ready), "worker gave up", lane);
    assert_eq!(next.name(), "worker ready");
}

fn a_killed_worker_is_reported_with_its_cause_and_replaced_at_once(mode: Mode) {
    let server = setup(mode).start();
    let pid = server.worker_pid(1);
    kill_and_wait(&server, 1);
    // One process hosts both lanes in one mode, one lane in the other.
    let lost = if mode.is_threads() { vec![0, 1] } else { vec![1] };
    let lanes = |name: &str| {
        server.journal.wait_nth(name, lost.len());
        let mut events = server.journal.named(name);
        events.sort_by_key(|event| event.number("lane"));
        let lanes: Vec<_> = events.iter().map(|event| event.number("lane")).collect();
        assert_eq!(lanes, lost, "{name}");
        events
    };
    for exited in lanes("worker exited") {
        assert_eq!(exited.text("reason"), "killed by SIGKILL");
        assert_eq!(exited.pid(), pid);
        assert!(matches!(exited.text("level"), "WARN" | "ERROR"), "{exited:?}");
    }
    for restarting in lanes("worker restarting") {
        assert_eq!(restarting.number("delay_ms"), 0, "the first restart is immediate");
        assert_eq!(restarting.number("restarts"), 1);
    }
    assert_ne!(server.worker_pid(1), pid);
    eventually("the killed process is reaped", || process_state(pid).is_none().then_some(()));
    server.served_connections(50);
}

fn a_connection_queued_before_the_worker_was_killed_is_answered_by_its_replacement(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    let worker = server.worker_pid(0);
    send_signal(worker, SIGSTOP);
    eventually("the worker stops", || is_stopped(worker).then_some(()));
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert!(server.journal.named("worker exited").is_empty(), "a stopped worker lives");
    send_signal(worker, SIGKILL);
    for client in &mut clients {
        assert_eq!(client.response().text(), harness::GREETING);
    }
}

/// Which of the clients still have their connection: the others find it closed.
fn survivors(clients: Vec<Client>) -> Vec<Client> {
    let alive = |mut client: Client| {
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        let response = client.try_response()?;
        assert_eq!(response.status, 200);
        Some(client)
    };
    clients.into_iter().filter_map(alive).collect()
}

fn a_killed_worker_loses_its_own_connections_and_no_others(mode: Mode) {
    let server = setup(mode).start();
    let other = server.worker_pid(1);
    let clients = server.served_connections(64);
    let count = clients.len();
    send_signal(server.worker_pid(0), SIGKILL);
    let exited = server.journal.wait_where("worker exited", |event| event.number("lane") == 0);
    let lost = count - survivors(clients).len();
    match mode.workers {
        Workers::Threads => assert_eq!(lost, count, "the process hosted every lane"),
        Workers::Processes => {
            assert_eq!(lost as u64, exited.number("connections"));
            // One lane gets none of 64 connections once in 10^19 runs.
            assert!((1..count).contains(&lost) || !mode.spreads(), "{lost} of {count} were lost");
            assert_eq!(server.worker_pid(1), other, "the other worker was touched");
        }
    }
}

fn the_connections_lost_with_a_worker_are_counted(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    let clients = server.served_connections(3);
    send_signal(server.worker_pid(0), SIGKILL);
    let exited = server.journal.wait_for("worker exited");
    assert_eq!(exited.number("connections"), clients.len() as u64);
}

fn restarts_after_the_first_are_delayed(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    for _ in 0..4 {
        kill_and_wait(&server, 0);
    }
    let restarts = server.journal.named("worker restarting");
    let delays: Vec<_> = restarts.iter().map(|event| event.number("delay_ms")).collect();
    assert_eq!((delays.len(), delays[0]), (4, 0), "{delays:?}");
    // Jitter may move a delay, but never to nothing and never beyond the bound.
    assert!(delays[1..].iter().all(|delay| (1..=80).contains(delay)), "{delays:?}");
    let counts: Vec<_> = restarts.iter().map(|event| event.number("restarts")).collect();
    assert_eq!(counts, [1, 2, 3, 4]);
}

/// Asserts the end of a server that gave up on lane 0 after three restarts.
fn assert_gave_up(server: &mut Server) {
    let gave_up = server.journal.wait_where("worker gave up", |event| event.number("lane") == 0);
    assert_eq!(gave_up.text("level"), "ERROR");
    assert_eq!(server.wait_exit(), 1);
    let events = server.journal.whole();
    let of = |name: &str| {
        let matches = |event: &&Event| event.name() == name && event.number("lane") == 0;
        events.iter().filter(matches).count()
    };
    assert_eq!((of("worker exited"), of("worker restarting")), (4, 3), "exits and restarts");
    assert_eq!(server.journal.wait_for("stopped").number("code"), 1);
    assert!(is_refused(server.address()));
    server.wait_gone();
}

fn a_lane_that_keeps_dying_makes_the_server_give_up(mode: Mode) {
    let mut server = setup(mode).set("supervisor.max_restarts", 3).start();
    for _ in 0..3 {
        kill_and_wait(&server, 0);
    }
    send_signal(server.worker_pid(0), SIGKILL);
    assert_gave_up(&mut server);
}

/// Ends the worker of the only lane by a panic, and waits for it to be reported for the `nth` time.
fn panic_worker(server: &Server, nth: usize) -> Event {
    let mut client = server.connect();
    client.send("GET /.fault/panic-worker HTTP/1.1\r\nHost: a\r\n\r\n");
    server.journal.wait_nth("worker exited", nth)
}

fn a_lane_that_keeps_panicking_makes_the_server_give_up(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut server =
        setup(mode).lanes(1).faults("requests").set("supervisor.max_restarts", 3).start();
    for nth in 1..=4 {
        let exited = panic_worker(&server, nth);
        assert!(exited.text("reason").starts_with("panicked"), "{exited:?}");
    }
    assert_gave_up(&mut server);
}

fn giving_up_drains_the_other_lanes(mode: Mode) {
    if mode.is_threads() {
        return skipped("one process hosts every lane: a killed one leaves no other lane to drain");
    }
    let mut server = setup(mode).set("supervisor.max_restarts", 3).start();
    for _ in 0..3 {
        kill_and_wait(&server, 0);
    }
    let mut clients = server.served_connections(64);
    for client in &mut clients {
        client.send(GET_SLOW);
    }
    send_signal(server.worker_pid(0), SIGKILL);
    let answered = clients.iter_mut().filter_map(Client::try_response);
    let answered = answered.filter(|response| response.text() == "slow").count() as u64;
    let lost = server.journal.wait_nth("worker exited", 4).number("connections");
    assert!(answered > 0 || !mode.spreads(), "the other lane answered nothing");
    assert_eq!(answered + lost, clients.len() as u64, "every other request was answered");
    assert_gave_up(&mut server);
}

fn a_panic_in_a_request_ends_that_connection_alone(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode).lanes(1).faults("requests").start();
    let mut neighbour = server.connect();
    assert_eq!(neighbour.get("/").status, 200);
    for _ in 0..3 {
        let mut client = server.connect();
        let response = server.connect().head("/.fault/panic-request");
        assert_eq!(response.status, 500, "HEAD");
        let response = client.get("/.fault/panic-request");
        assert_eq!(response.status, 500);
        assert!(response.says_close(), "{response:?}");
        client.expect_end();
        assert_eq!(neighbour.get("/").status, 200);
    }
    assert!(server.journal.named("worker exited").is_empty());
    assert_eq!(server.journal.strays(), Vec::<String>::new());
}

fn a_panic_in_a_worker_ends_that_worker_alone(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode).faults("requests").start();
    let pids = [0, 1].map(|lane| server.worker_pid(lane));
    let clients = server.served_connections(64);
    let count = clients.len();
    let exited = panic_worker(&server, 1);
    let lane = exited.number("lane");
    server.journal.wait_nth("worker ready", 3);
    let kept = survivors(clients).len();
    assert!(
        (1..count).contains(&kept) || !mode.spreads(),
        "{kept} of {count} connections survived"
    );
    let after = [0, 1].map(|lane| server.worker_pid(lane));
    let other = usize::from(lane == 0);
    assert_eq!(after[other], pids[other], "the other worker was touched");
    match mode.workers {
        Workers::Threads => {
            assert_eq!(after, pids, "a thread is replaced within its process");
            let reason = exited.text("reason");
            assert!(reason.starts_with("panicked: "), "the reason is {reason:?}");
        }
        Workers::Processes => assert_ne!(after[1 - other], pids[1 - other]),
    }
    assert_eq!(server.journal.named("worker exited").len(), 1);
    assert_eq!(server.journal.wait_for("worker restarting").number("delay_ms"), 0);
    server.served_connections(50);
}

fn an_abort_ends_the_worker_process_alone(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let server = setup(mode).faults("requests").start();
    let mut client = server.connect();
    client.send("GET /.fault/abort HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    let lost = if mode.is_threads() { 2 } else { 1 };
    server.journal.wait_nth("worker ready", 2 + lost);
    let exits = server.journal.named("worker exited");
    assert_eq!(exits.len(), lost);
    assert!(exits.iter().all(|exited| exited.text("reason") == "killed by SIGABRT"), "{exits:?}");
    server.served_connections(50);
}

fn a_worker_told_to_terminate_drains_and_is_replaced(mode: Mode) {
    let server = setup(mode).lanes(1).start();
    let worker = server.worker_pid(0);
    let mut client = server.in_flight(GET_SLOW);
    send_signal(worker, SIGTERM);
    assert_eq!(client.response().text(), "slow");
    server.journal.wait_nth("worker ready", 2);
    assert_ne!(server.worker_pid(0), worker);
    assert_eq!(server.get("/").status, 200);
    let leaving = server.journal.wait_for("worker leaving");
    assert_eq!((leaving.pid(), leaving.text("level")), (worker, "INFO"));
    // The connection that helped to see the request arrive may still count.
    assert!(leaving.number("generation") == 1 && leaving.number("connections") >= 1, "{leaving:?}");
    assert!(
        server.journal.named("drain started").iter().all(|event| event.has("lane")),
        "the server as a whole must not drain"
    );
}

fn a_worker_told_to_terminate_is_no_crash_however_often(mode: Mode) {
    let server = setup(mode).lanes(1).set("supervisor.max_restarts", 1).start();
    for told in 1..=4 {
        let worker = server.worker_pid(0);
        send_signal(worker, SIGTERM);
        let restarting = server.journal.wait_nth("worker restarting", told);
        assert_eq!((restarting.number("delay_ms"), restarting.number("restarts")), (0, 0));
        assert_eq!(restarting.text("reason"), "told to end by a signal of its own");
        assert_eq!(restarting.pid(), worker);
        server.journal.wait_nth("worker ready", told + 1);
        assert_eq!(server.get("/").status, 200);
    }
    assert!(server.journal.named("worker exited").is_empty());
    assert!(server.journal.named("worker gave up").is_empty());
}

fn a_killed_supervisor_takes_its_workers_along_after_their_requests(mode: Mode) {
    let mut server = setup(mode).lanes(1).start();
    let mut client = server.in_flight(GET_SLOW);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    server.kill_supervisor();
    assert_eq!(client.response().text(), "slow");
    idle.expect_end();
    server.wait_gone();
    assert!(is_refused(server.address()));
}

fn a_stopped_worker_goes_on_when_its_supervisor_is_killed_and_ends_after_its_request(mode: Mode) {
    let mut server = setup(mode).lanes(1).set("supervisor.watchdog", "0s").start();
    let mut client = server.in_flight(GET_SLOW);
    let supervisor = server.pid();
    let workers = server.processes().into_iter().filter(|pid| *pid != supervisor);
    for worker in workers {
        send_signal(worker, SIGSTOP);
        eventually("it is stopped", || is_stopped(worker).then_some(()));
    }
    server.kill_supervisor();
    assert_eq!(client.response().text(), "slow");
    server.wait_gone();
    assert!(is_refused(server.address()));
}

fn a_worker_that_is_stopped_and_continued_stays(mode: Mode) {
    let mut server = setup(mode).lanes(1).set("supervisor.watchdog", "0s").start();
    let worker = server.worker_pid(0);
    for _ in 0..3 {
        send_signal(worker, SIGSTOP);
        eventually("it is stopped", || is_stopped(worker).then_some(()));
        send_signal(worker, SIGCONT);
        assert_eq!(server.get("/").status, 200);
    }
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert!(server.journal.named("worker leaving").is_empty());
}

/// What the server is started with may have children of its own, whose end was told before it could hear.
fn a_child_that_had_ended_before_the_server_began_is_reaped(mode: Mode) {
    if skip_without("python3") {
        return;
    }
    let forks = "import os, sys\n\
                 pid = os.fork() or os._exit(0)\n\
                 os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n\
                 os.execvp(sys.argv[1], sys.argv[1:])";
    let server = setup(mode).under(&["python3", "-c", forks]).start();
    let is_zombie = |pid: &i32| process_state(*pid) == Some('Z');
    let children = || children_of(server.pid()).into_iter();
    assert!(children().count() > 0, "workers are children");
    eventually("no child is a zombie", || (!children().any(|pid| is_zombie(&pid))).then_some(()));
}

/// The host's pid of the process that is pid 1 in the namespace a server was started in.
fn first_in_namespace(server: &Server) -> i32 {
    let processes = server.processes().into_iter();
    let mut first = processes.filter(|&pid| namespace_pid(pid) == Some(1));
    first.next().expect("a process that is pid 1")
}

fn as_pid_1_it_reaps_orphans_and_drains_on_term(mode: Mode) {
    if skip_without("unshare") {
        return;
    }
    if !Uid::effective().is_root() {
        return skipped("making a pid namespace needs root");
    }
    // One orphan ends about when the server starts, the other waits for this test to end it.
    let orphans = r#"(sleep 0.05 &); (sleep 1000 &); exec "$0" "$@""#;
    let launcher =
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", orphans];
    let mut server = setup(mode).under(&launcher).start();
    assert_eq!(server.journal.wait_for("ready").pid(), 1);
    let init = first_in_namespace(&server);
    let orphan = eventually("only one orphan is left, and no zombie", || {
        let members = namespace_members(init);
        let zombies = members.iter().any(|&pid| process_state(pid) == Some('Z'));
        let is_sleep = |pid: &&i32| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            command.trim() == "sleep"
        };
        let sleepers: Vec<_> = members.iter().filter(is_sleep).collect();
        (sleepers.len() == 1 && !zombies).then(|| *sleepers[0])
    });
    send_signal(orphan, SIGKILL);
    eventually("the orphan is reaped", || process_state(orphan).is_none().then_some(()));
    assert!(server.journal.named("worker exited").is_empty(), "the orphan was no worker");
    assert_eq!(server.get("/").status, 200);
    send_signal(init, SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert_eq!(server.journal.wait_for("drain started").text("reason"), "SIGTERM");
    server.wait_gone();
}
