//! `server healthcheck`: whether the running server works, by the exit code alone.

mod harness;

use std::net::SocketAddr;
use std::process::{Command, Output};

use harness::{DEADLINE, Mode, Server, Setup, eventually, private_loopback, send_signal};
use nix::sys::signal::{SIGCONT, SIGSTOP};

/// What it says of this server, with what that was told in words.
fn healthcheck(server: &Server, words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(DEADLINE.as_secs().to_string()).args([env!("CARGO_BIN_EXE_server"), "healthcheck"]);
    command.args(["--config", "test-config.toml"]).args(words);
    command.current_dir(server.folder()).env("XDG_RUNTIME_DIR", server.folder());
    command.env_remove("RUNTIME_DIRECTORY").output().expect("run the server's binary")
}

#[track_caller]
fn assert_alive(checked: &Output) {
    let told = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(
        (checked.status.code(), &*told),
        (Some(0), "alive: 2 of 2 lanes ready\n"),
        "{checked:?}"
    );
}

#[track_caller]
fn assert_dead(checked: &Output, with: &[&str]) {
    let told = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    for part in with {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// No user may make a file there, not even root: as on a read-only file system.
fn without_command_socket(admin: Option<SocketAddr>) -> Server {
    let setup = Setup::new(Mode::THREADS).env("XDG_RUNTIME_DIR", "/proc/self");
    let server = match admin {
        Some(address) => setup.set("admin.listen", address),
        None => setup,
    };
    let server = server.start();
    server.journal.wait_for("no command socket");
    server
}

#[test]
fn a_server_that_works_is_alive() {
    for mode in [Mode::THREADS, Mode::PROCESSES] {
        let server = Setup::new(mode).start();
        assert_alive(&healthcheck(&server, &[]));
    }
}

#[test]
fn one_without_a_command_socket_is_asked_at_its_admin_address() {
    let address = private_loopback(9180);
    let server = without_command_socket(Some(address));
    server.journal.wait_for("admin ready");
    let admin = format!("admin.listen={address}");
    assert_alive(&healthcheck(&server, &["--set", &admin]));
    // The first is of no use.
    let other = private_loopback(9180);
    let both = format!("admin.listen=[\"{other}\", \"{address}\"]");
    assert_alive(&healthcheck(&server, &["--set", &both]));
    let wrong = format!("admin.listen={other}");
    assert_dead(&healthcheck(&server, &["--set", &wrong]), &[&other.to_string(), "refused"]);
    let unknown = ["--set", "admin.listen=127.0.0.1:0"];
    assert_dead(&healthcheck(&server, &unknown), &["the kernel chose its port"]);
}

#[test]
fn one_whose_supervisor_does_not_answer_is_not_alive() {
    let address = private_loopback(9180);
    let settings = format!("admin.listen={address}");
    let with_socket = Setup::new(Mode::THREADS).start();
    let without = without_command_socket(Some(address));
    without.journal.wait_for("admin ready");
    for (server, words) in [(&with_socket, &[][..]), (&without, &["--set", &settings])] {
        send_signal(server.pid(), SIGSTOP);
        let checked = healthcheck(server, words);
        send_signal(server.pid(), SIGCONT);
        assert_dead(&checked, &["not answer"]);
    }
}

#[test]
fn one_whose_lanes_all_hang_is_not_alive_although_nothing_replaces_them() {
    for mode in [Mode::THREADS, Mode::PROCESSES] {
        // The admin address has the supervisor look for them.
        let setup = Setup::new(mode).set("admin.listen", private_loopback(9180));
        let server = setup.set("supervisor.watchdog", "0s").start();
        let mut lanes = vec![server.worker_pid(0), server.worker_pid(1)];
        lanes.dedup();
        lanes.iter().for_each(|pid| send_signal(*pid, SIGSTOP));
        let checked = eventually("the check fails", || {
            let checked = healthcheck(&server, &[]);
            (checked.status.code() == Some(1)).then_some(checked)
        });
        assert_dead(&checked, &["every lane hangs"]);
        lanes.iter().for_each(|pid| send_signal(*pid, SIGCONT));
        eventually("it succeeds again", || {
            (healthcheck(&server, &[]).status.code() == Some(0)).then_some(())
        });
    }
}

#[test]
fn a_server_that_can_not_be_asked_is_told_what_is_missing() {
    let server = without_command_socket(None);
    let remedies = ["admin.listen is \"off\"", "set admin.listen = \"127.0.0.1:9180\"", "--socket"];
    assert_dead(&healthcheck(&server, &[]), &remedies);
}

#[test]
fn what_answers_at_the_admin_address_has_to_be_this_server() {
    let server = without_command_socket(None);
    let own = format!("admin.listen={}", server.address());
    assert_dead(&healthcheck(&server, &["--set", &own]), &["what answers there is not laneway"]);
}

#[test]
fn a_configuration_with_a_mistake_is_told_and_no_reason_for_another_exit_code() {
    let server = without_command_socket(None);
    let checked = healthcheck(&server, &["--set", "admin.listen=nonsense"]);
    assert_dead(&checked, &["the configuration is not valid"]);
}

#[test]
fn a_mistake_in_the_configuration_does_not_hide_a_server_that_works() {
    let server = Setup::new(Mode::THREADS).start();
    assert_alive(&healthcheck(&server, &["--set", "admin.listen=nonsense"]));
}
