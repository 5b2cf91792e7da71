//! Kernels and profiles that refuse something: the server does without, or says what it would need.

mod harness;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use harness::{DEADLINE, GREETING, Mode, Setup, eventually, reload, restricted, send_signal};
use nix::sys::signal::{SIGKILL, SIGTERM};

fn without_pidfds(mode: Mode) {
    let Some(setup) = restricted(Setup::new(mode), "434,-1,1", "434,-1,1") else { return };
    let server = setup.faults("requests").start();
    assert_eq!(server.get("/").text(), GREETING);
    let worker = server.worker_pid(0);
    send_signal(worker, SIGKILL);
    eventually("it is replaced", || (server.worker_pid(0) != worker).then_some(()));
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(server.get("/").text(), GREETING);
    let mut server = server;
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn threads_are_supervised_where_pidfd_open_is_refused() {
    without_pidfds(Mode::THREADS);
}

#[test]
fn processes_are_supervised_where_pidfd_open_is_refused() {
    without_pidfds(Mode::PROCESSES);
}

#[test]
fn without_ipv6_the_other_address_is_served() {
    // socket(AF_INET6, …) fails with EAFNOSUPPORT.
    let kernel = || restricted(Setup::new(Mode::THREADS), "41,10,97", "198,10,97");
    let Some(setup) = kernel() else { return };
    let both = "[\"127.0.0.1:0\", \"[::]:0\"]";
    let server = setup.set("server.listen", both).start();
    assert_eq!(server.get("/").text(), GREETING);
    let left_out = server.journal.wait_for("address left out");
    let reason = left_out.text("reason");
    assert!(reason.contains("cannot listen on [::]:0: Address family not supported"), "{reason}");
    assert_eq!(reload(&server).name(), "reload done");
    let Some(setup) = kernel() else { return };
    let mut alone = setup.set("server.listen", "[::]:0").spawn();
    assert_eq!(alone.wait_exit(), 1);
    let failed = alone.journal.wait_for("could not start");
    assert!(failed.text("reason").contains("Address family not supported"), "{failed:?}");
}

#[test]
fn without_io_uring_epoll_serves_unless_io_uring_was_asked_for_by_name() {
    // io_uring_setup(…) fails with EPERM, as where the sysctl kernel.io_uring_disabled is 2.
    let kernel = || restricted(Setup::new(Mode::THREADS), "425,-1,1", "425,-1,1");
    let Some(setup) = kernel() else { return };
    let server = setup.start();
    assert_eq!(server.get("/").text(), GREETING);
    let ready = server.journal.wait_for("worker ready");
    assert_eq!(ready.text("driver"), "epoll");
    assert!(!ready.has("reason"), "{ready:?}");
    assert_eq!(reload(&server).name(), "reload done");
    let told = server.journal.named("no io_uring");
    assert_eq!(told.len(), 1, "one line for both lanes, and none after a reload: {told:?}");
    assert_eq!(told[0].text("driver"), "epoll");
    let reason = told[0].text("reason");
    assert!(reason.starts_with("Operation not permitted"), "{reason}");
    assert!(reason.contains("the seccomp profile of a container"), "{reason}");
    let Some(setup) = kernel() else { return };
    let mut named = setup.set("workers.driver", "io_uring").spawn();
    assert_eq!(named.wait_exit(), 1);
    let failed = named.journal.wait_for("could not start");
    let remedy = "workers.driver = \"auto\" goes on without it";
    assert!(failed.text("reason").contains(remedy), "{failed:?}");
}

#[test]
fn an_abstract_socket_of_a_service_manager_is_told() {
    let name = format!("laneway-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let manager = UnixDatagram::bind_addr(&address).expect("bind the manager's socket");
    manager.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
    let _server = Setup::new(Mode::THREADS).env("NOTIFY_SOCKET", &format!("@{name}")).start();
    let mut buffer = [0; 1024];
    let length = manager.recv(&mut buffer).expect("a notification");
    let text = String::from_utf8_lossy(&buffer[..length]);
    assert!(text.starts_with("READY=1\nSTATUS=2 lanes serve, generation 1\n"), "{text}");
}

#[test]
fn a_readiness_that_can_not_be_delivered_is_logged() {
    for socket in ["/nonexistent/notify", "@laneway-nobody-listens-here"] {
        let server = Setup::new(Mode::THREADS).env("NOTIFY_SOCKET", socket).start();
        let told = server.journal.wait_for("not notified");
        assert_eq!((told.text("socket"), told.text("what")), (socket, "READY=1"));
        assert!(told.has("reason"));
    }
}
