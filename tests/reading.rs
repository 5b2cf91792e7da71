//! Reading the configuration while the server serves: from what isn't a file, from a file system or a resolver that
//! doesn't answer. It holds up neither workers nor signals, and what can't be read changes nothing.

mod harness;

use std::fs;
use std::io::Write;
use std::path::Path;

use harness::{
    Client, GREETING, Mode, NEW, OLD, Server, Setup, Site, eventually, in_every_mode,
    private_loopback, process_state, reload, send_signal, skip_without_faults,
};
use nix::sys::signal::{SIGHUP, SIGKILL, SIGTERM};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::{mkfifo, pipe};

in_every_mode!(
    a_pipe_as_configuration_is_rejected_and_holds_up_nothing,
    a_reading_that_hangs_holds_up_nothing_and_is_given_up,
    a_search_for_the_process_on_a_port_holds_up_nothing_and_is_given_up,
);

/// Kills the worker of lane 0 and waits for another.
fn assert_workers_are_replaced(server: &Server) {
    let old = server.worker_pid(0);
    send_signal(old, SIGKILL);
    eventually("the worker is replaced", || (server.worker_pid(0) != old).then_some(()));
}

fn assert_term_is_obeyed(mut server: Server) {
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

fn make_fifo(path: &Path) {
    // There may be a file of this name.
    let _ = fs::remove_file(path);
    mkfifo(path, FileMode::S_IRWXU).expect("make a pipe");
}

fn a_pipe_as_configuration_is_rejected_and_holds_up_nothing(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    make_fifo(&site.path());
    let rejected = reload(&server);
    let reason = rejected.text("reason").to_owned();
    assert!(reason.contains("it is not a regular file but a pipe"), "{rejected:?}");
    assert_workers_are_replaced(&server);

    fs::remove_file(site.path()).expect("remove the pipe");
    let body = site.scratch.path().join("body");
    make_fifo(&body);
    site.more = format!("[[route]]\npath = \"/body\"\nbody_file = {body:?}\n");
    site.write();
    let rejected = reload(&server);
    assert!(rejected.text("reason").contains("body: it is not a regular file but a pipe"));
    assert_workers_are_replaced(&server);
    assert_eq!(site.get(), OLD);
    assert_term_is_obeyed(server);
}

fn a_reading_that_hangs_holds_up_nothing_and_is_given_up(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    site.more = "supervisor.ready_timeout = \"3s\"\n".into();
    let server = site.start();
    site.text = NEW;
    site.write();
    for (fault, doing) in [("hang-load", "reading /"), ("hang-resolve", "resolving 127.")] {
        let fault = server.folder().join(fault);
        fs::write(&fault, "").expect("write into the server's folder");
        let before = server.journal.named("reload rejected").len();
        server.signal(SIGHUP);
        server.journal.wait_nth("reload started", before + 1);
        assert_workers_are_replaced(&server);
        assert_eq!(server.journal.named("reload rejected").len(), before, "it was still reading");
        let rejected = server.journal.wait_nth("reload rejected", before + 1);
        let reason = rejected.text("reason");
        assert!(reason.starts_with(doing), "{reason}");
        assert!(reason.ends_with("took longer than supervisor.ready_timeout, 3s"), "{reason}");
        fs::remove_file(fault).expect("remove it again");
    }
    assert_eq!(site.get(), OLD);
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(site.get(), NEW);
    assert_term_is_obeyed(server);
}

fn a_search_for_the_process_on_a_port_holds_up_nothing_and_is_given_up(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut site = Site::new(mode);
    site.more = "supervisor.ready_timeout = \"6s\"\n".into();
    let server = site.start();
    let other = std::net::TcpListener::bind(private_loopback(8084)).expect("a listener");
    let taken = other.local_addr().expect("its address");
    site.listen.push(taken);
    site.write();
    let fault = server.folder().join("hang-holder");
    fs::write(&fault, "").expect("write into the server's folder");
    server.signal(SIGHUP);
    server.journal.wait_for("reload started");
    assert_workers_are_replaced(&server);
    assert_eq!(server.journal.named("reload rejected").len(), 0, "it was still looking");
    let rejected = server.journal.wait_for("reload rejected");
    let doing = format!("looking which process listens on port {}", taken.port());
    assert!(rejected.text("reason").starts_with(&doing), "{rejected:?}");
    fs::remove_file(fault).expect("remove it again");
    let rejected = reload(&server);
    let found = format!("in use by pid {}", std::process::id());
    assert!(rejected.text("reason").contains(&found), "{rejected:?}");
    assert_eq!(site.get(), OLD);
    assert_term_is_obeyed(server);
}

#[test]
fn a_stop_does_not_wait_for_a_reading_that_hangs() {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    fs::write(server.folder().join("hang-load"), "").expect("write into the server's folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
    command.arg("--config").arg(site.path()).arg("reload").current_dir(server.folder());
    let asking = command.stderr(std::process::Stdio::piped()).spawn().expect("run the binary");
    server.journal.wait_for("reload started");
    server.signal(SIGTERM);
    let rejected = server.journal.wait_for("reload rejected");
    assert_eq!(rejected.text("reason"), "this server was told to stop");
    let answer = asking.wait_with_output().expect("the end of the command");
    assert_eq!(String::from_utf8_lossy(&answer.stderr), "this server was told to stop\n");
    let mut server = server;
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn a_reading_that_is_killed_is_rejected() {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(Mode::PROCESSES);
    let server = site.start();
    fs::write(server.folder().join("hang-load"), "").expect("write into the server's folder");
    server.signal(SIGHUP);
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let reader = eventually("a process reads", || {
        server.processes().into_iter().find(|pid| name(pid) == "laneway loader\n")
    });
    send_signal(reader, SIGTERM);
    send_signal(reader, SIGHUP);
    assert!(process_state(reader).is_some(), "what a terminal sends to all is not for it");
    send_signal(reader, SIGKILL);
    let rejected = server.journal.wait_for("reload rejected");
    assert!(rejected.text("reason").ends_with(": killed by SIGKILL"), "{rejected:?}");
    assert_eq!(site.get(), OLD);
}

#[test]
fn a_configuration_from_standard_input_serves_and_can_not_be_read_again() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut writer = fs::File::from(writer);
    write!(writer, "[[route]]\npath = \"/\"\ntext = {GREETING:?}\n").expect("write into the pipe");
    drop(writer);
    let setup = Setup::new(Mode::THREADS).config_at("/dev/stdin").stdin(reader);
    let server = setup.start();
    assert_eq!(server.get("/").text(), GREETING);
    let rejected = reload(&server);
    let reason = rejected.text("reason");
    assert!(
        reason.contains("cannot read /dev/stdin: it is not a regular file but a pipe"),
        "{reason}"
    );
    server.signal(nix::sys::signal::SIGUSR2);
    let failed = server.journal.wait_for("upgrade failed");
    assert!(failed.text("reason").contains("can be read only once"), "{failed:?}");
    assert_eq!(Client::connect(server.address()).get("/").text(), GREETING);
}

#[test]
fn a_large_body_file_comes_whole_with_a_reload() {
    let mut site = Site::new(Mode::THREADS);
    let server = site.start();
    let body: Vec<u8> = (0..9_000_000_u32).map(|index| (index % 251) as u8).collect();
    let path = site.scratch.write("body.bin", &body);
    site.more = format!("[[route]]\npath = \"/body\"\nbody_file = {path:?}\n");
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert!(server.get("/body").body == body);
}
