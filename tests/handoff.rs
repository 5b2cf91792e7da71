//! `workers.accept = "handoff"`: an acceptor takes every connection and hands it to the lane with the fewest.

mod harness;

use harness::{
    Accept, Client, GREETING, Mode, Server, Setup, Workers, eventually, is_stopped, send_signal,
};
use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM};

const PROCESSES: Mode = Mode::new(Workers::Processes, Accept::Handoff);
const MODES: [Mode; 2] = [Mode::new(Workers::Threads, Accept::Handoff), PROCESSES];
/// Where one that hangs is waited for.
const WATCHDOG: &str = "1s";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn setup(mode: Mode) -> Setup {
    Setup::new(mode).set("supervisor.pid_file", "server.pid")
}

fn acceptor_pid(server: &Server) -> i32 {
    server.journal.named("acceptor ready").last().expect("an acceptor was ready").pid()
}

fn stop(pid: i32) {
    send_signal(pid, SIGSTOP);
    eventually("the process stops", || is_stopped(pid).then_some(()));
}

fn ask(server: &Server, count: usize) -> Vec<Client> {
    let ask = |_| {
        let mut client = server.connect();
        client.send(GET);
        client
    };
    (0..count).map(ask).collect()
}

fn expect_greeting(clients: &mut [Client]) {
    for client in clients {
        assert_eq!(client.response().text(), GREETING);
    }
}

/// Connections of each lane, as `server status` tells.
fn connections(server: &Server) -> Vec<u64> {
    let status = status(server);
    let lanes = status["lanes"].as_array().expect("lanes").clone();
    lanes.iter().map(|lane| lane["connections"].as_u64().expect("a number")).collect()
}

fn status(server: &Server) -> serde_json::Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["--set", "supervisor.pid_file=server.pid", "status", "--json"]);
    let output = command.current_dir(server.folder()).output().expect("run the server's binary");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn each_connection_goes_to_the_lane_with_the_fewest() {
    for mode in MODES {
        let server = setup(mode).lanes(3).start();
        let clients = server.served_connections(30);
        eventually("ten for each", || (connections(&server) == [10, 10, 10]).then_some(()));
        // One lane's ten stay: until the others have as many, what comes is for them.
        let mut clients: Vec<Client> = clients.into_iter().step_by(3).collect();
        eventually("the others are gone", || {
            let mut connections = connections(&server);
            connections.sort_unstable();
            (connections == [0, 0, 10]).then_some(())
        });
        clients.extend(server.served_connections(20));
        eventually("ten for each again", || (connections(&server) == [10, 10, 10]).then_some(()));
    }
}

#[test]
fn a_full_lane_is_passed_over_and_when_all_are_full_connections_wait() {
    for mode in MODES {
        let server = setup(mode).set("workers.max_connections", 2).start();
        let clients = server.served_connections(4);
        let mut waiting = ask(&server, 1);
        let patience = std::time::Duration::from_millis(100);
        assert!(!waiting[0].hears_within(patience), "there was no room for it");
        drop(clients);
        expect_greeting(&mut waiting);
    }
}

#[test]
fn status_tells_of_the_acceptor_and_its_queue() {
    for mode in MODES {
        let server = setup(mode).start();
        let status = status(&server);
        assert_eq!(status["accept"], "handoff");
        assert_eq!(status["acceptor"]["state"], "ready");
        assert_eq!(status["acceptor"]["pid"], acceptor_pid(&server));
        assert_eq!(status["shared_queue"]["backlog"], 4096);
    }
}

#[test]
fn a_killed_acceptor_is_replaced_and_who_waited_in_its_queue_is_served() {
    let server = setup(PROCESSES).start();
    let acceptor = acceptor_pid(&server);
    let mut kept = server.served_connections(8);
    stop(acceptor);
    let mut waiting = ask(&server, 20);
    send_signal(acceptor, SIGKILL);
    expect_greeting(&mut waiting);
    eventually("it is replaced", || (acceptor_pid(&server) != acceptor).then_some(()));
    let exited = server.journal.wait_for("acceptor exited");
    assert_eq!(exited.text("reason"), "killed by SIGKILL");
    // What it had handed over is not its any more.
    for client in &mut kept {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(server.journal.named("worker exited").is_empty());
}

#[test]
fn an_acceptor_that_hangs_is_replaced() {
    let server = setup(PROCESSES).set("supervisor.watchdog", WATCHDOG).start();
    let acceptor = acceptor_pid(&server);
    stop(acceptor);
    let mut waiting = ask(&server, 20);
    server.journal.wait_for("acceptor hung");
    expect_greeting(&mut waiting);
    eventually("it is replaced", || (acceptor_pid(&server) != acceptor).then_some(()));
}

#[test]
fn an_acceptor_that_turns_again_in_time_goes_on() {
    let server = setup(PROCESSES).set("supervisor.watchdog", WATCHDOG).start();
    let acceptor = acceptor_pid(&server);
    stop(acceptor);
    server.journal.wait_for("acceptor hung");
    send_signal(acceptor, SIGCONT);
    server.journal.wait_for("acceptor recovered");
    expect_greeting(&mut ask(&server, 20));
    assert_eq!(acceptor_pid(&server), acceptor);
}

#[test]
fn what_was_handed_to_a_worker_that_hangs_is_served_by_its_sibling() {
    let server = setup(PROCESSES).set("supervisor.watchdog", WATCHDOG).start();
    stop(server.worker_pid(0));
    // Every other one is handed to the stopped worker.
    let mut clients = ask(&server, 20);
    expect_greeting(&mut clients);
    server.journal.wait_for("worker hung");
}

#[test]
fn what_was_handed_to_a_worker_that_is_killed_is_served() {
    let server = setup(PROCESSES).set("supervisor.watchdog", "0s").start();
    let worker = server.worker_pid(1);
    stop(worker);
    let mut clients = ask(&server, 20);
    send_signal(worker, SIGKILL);
    expect_greeting(&mut clients);
}

#[test]
fn every_lane_gets_its_share_after_a_sibling_had_what_was_handed_to_a_killed_worker() {
    for mode in [PROCESSES, Mode::on_epoll(Workers::Processes, Accept::Handoff)] {
        let lanes = 3;
        let settings = setup(mode).set("supervisor.watchdog", "0s").lanes(lanes);
        let server = settings.set("supervisor.max_restarts", 1000).start();
        let wait_for = |expected: [u64; 3]| {
            eventually("each lane has its share", || {
                (connections(&server) == expected).then_some(())
            });
        };
        let share = || {
            let clients = server.served_connections(30);
            wait_for([10; 3]);
            drop(clients);
            wait_for([0; 3]);
        };
        // The acceptor hears of the lanes one after the other, and hands out connections meanwhile.
        share();
        for round in 1..=6 {
            let lane = round % lanes;
            let worker = server.worker_pid(lane as u64);
            stop(worker);
            let mut waiting = ask(&server, 30);
            eventually("the others have theirs, and so it was handed its own", || {
                (connections(&server).iter().sum::<u64>() >= 15).then_some(())
            });
            send_signal(worker, SIGKILL);
            expect_greeting(&mut waiting);
            server.journal.wait_nth("worker ready", lanes + round);
            drop(waiting);
            wait_for([0; 3]);
            share();
        }
    }
}

#[test]
fn who_waits_when_the_server_is_told_to_stop_is_served() {
    for mode in MODES {
        let mut server = setup(mode).start();
        // In a queue that no worker accepts from while the signal comes.
        let acceptor = acceptor_pid(&server);
        stop(acceptor);
        let mut clients = ask(&server, 20);
        server.signal(SIGTERM);
        server.journal.wait_for("drain started");
        send_signal(acceptor, SIGCONT);
        expect_greeting(&mut clients);
        assert_eq!(server.wait_exit(), 0);
    }
}

#[test]
fn who_waits_when_the_server_is_killed_is_served_by_its_orphans() {
    for mode in MODES {
        let mut server = setup(mode).start();
        let acceptor = acceptor_pid(&server);
        stop(acceptor);
        let mut clients = ask(&server, 20);
        server.kill_supervisor();
        send_signal(acceptor, SIGCONT);
        expect_greeting(&mut clients);
        server.wait_gone();
    }
}

#[test]
fn reloads_lose_nothing_that_is_on_its_way_to_a_lane() {
    for mode in MODES {
        let server = setup(mode).start();
        for round in 1..=5 {
            let mut clients = ask(&server, 20);
            server.signal(SIGHUP);
            clients.extend(ask(&server, 20));
            expect_greeting(&mut clients);
            server.journal.wait_nth("reload done", round);
        }
    }
}
