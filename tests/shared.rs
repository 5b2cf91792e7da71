//! A socket that all lanes share (`workers.accept = "shared"`): one worker is told of each connection, and if that one
//! can't take it, another does.

mod harness;

use std::time::Duration;

use harness::{
    Accept, Driver, Mode, Site, Workers, eventually, is_stopped, open_sockets, process_state,
    send_signal,
};
use nix::sys::signal::{SIGHUP, SIGSTOP, SIGTTOU, SIGUSR2, Signal};

/// How long a client may wait because another worker was told of it that is stopped: generous, on a busy machine.
const TOLD_ANOTHER: Duration = Duration::from_secs(3);

/// Stops the workers of these lanes, has something `change`, and asserts that every client is answered all the same.
fn stopped_workers_keep_no_client_waiting(
    driver: Driver,
    stopped: &[u64],
    change: Option<(Signal, &str)>,
) {
    let mode = Mode { driver, ..Mode::new(Workers::Processes, Accept::Shared) };
    let site = Site::new(mode);
    let server = site.setup().set("supervisor.watchdog", "60s").start();
    let stopped: Vec<i32> = stopped.iter().map(|lane| server.worker_pid(*lane)).collect();
    for pid in &stopped {
        // Its conversation with the supervisor, and the socket that all share; once it sleeps, it waits for clients.
        let waits = || open_sockets(*pid) >= 2 && process_state(*pid) == Some('S');
        eventually("it waits for clients", || waits().then_some(()));
        send_signal(*pid, SIGSTOP);
        eventually("it is stopped", || is_stopped(*pid).then_some(()));
    }
    if let Some((signal, event)) = change {
        server.signal(signal);
        server.journal.wait_for(event);
    }
    for number in 0..8 {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.hears_within(TOLD_ANOTHER), "client {number} waits for a stopped worker");
        assert_eq!(client.response().status, 200);
    }
    assert!(stopped.iter().all(|pid| is_stopped(*pid)), "they were killed");
}

#[test]
fn stopped_workers_of_an_outgoing_generation_keep_no_client_waiting() {
    for driver in [Driver::Auto, Driver::Epoll] {
        stopped_workers_keep_no_client_waiting(driver, &[0, 1], Some((SIGHUP, "reload done")));
    }
}

#[test]
fn a_stopped_worker_of_a_lane_that_leaves_keeps_no_client_waiting() {
    for driver in [Driver::Auto, Driver::Epoll] {
        stopped_workers_keep_no_client_waiting(driver, &[1], Some((SIGTTOU, "resized")));
    }
}

#[test]
fn stopped_workers_of_a_supervisor_that_was_followed_keep_no_client_waiting() {
    for driver in [Driver::Auto, Driver::Epoll] {
        stopped_workers_keep_no_client_waiting(driver, &[0, 1], Some((SIGUSR2, "upgrade done")));
    }
}

#[test]
fn a_stopped_worker_keeps_no_client_waiting_before_it_is_found_to_hang() {
    for driver in [Driver::Auto, Driver::Epoll] {
        stopped_workers_keep_no_client_waiting(driver, &[0], None);
    }
}
