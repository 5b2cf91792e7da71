//! Unix sockets: `listen = ["unix:…"]`, beside TCP addresses and alone, through everything that may happen to a server.

mod harness;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{
    Accept, Client, GREETING, Mode, NEW, OLD, Scratch, Server, Setup, Site, Target, Traffic,
    eventually, in_every_mode, private_loopback, reload, replace_program, send_signal,
    skip_without,
};
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2, kill};
use nix::unistd::{Pid, Uid};

in_every_mode!(
    requests_are_answered_beside_those_over_tcp,
    under_load_every_lane_takes_connections,
    a_crash_loses_nothing_that_waits,
    what_waits_while_every_lane_is_dead_is_served_by_their_successors,
    a_reload_adds_and_removes_sockets_and_serves_what_waits,
    a_reload_changes_who_may_connect_and_a_rejected_one_changes_nothing,
    a_reload_makes_a_socket_again_whose_file_was_taken_away,
    lanes_come_and_go,
    an_upgrade_keeps_the_socket_and_loses_nothing,
    an_heir_that_fails_leaves_the_socket_as_it_was,
    a_stop_serves_what_waits_and_takes_the_file_away,
    an_activated_socket_is_served_and_left_where_it_is,
    large_bodies_pass_both_ways,
    responses_reach_a_client_that_was_refused_amid_its_body,
);

/// A server with a Unix socket beside its TCP address.
struct Sockets {
    site: Site,
}

const NAME: &str = "http.sock";

impl Sockets {
    fn new(mode: Mode) -> Sockets {
        let mut site = Site::new(mode);
        site.unix = vec![NAME];
        Sockets { site }
    }

    fn path(&self) -> PathBuf {
        self.of(NAME)
    }

    fn of(&self, name: &str) -> PathBuf {
        self.site.scratch.path().join(name)
    }

    fn connect(&self) -> Client {
        Client::connect(&*self.path())
    }

    fn traffic(&self) -> Traffic {
        let traffic = Traffic::start(&*self.path(), 4, "/", &[OLD, NEW]);
        traffic.wait_answers(50);
        traffic
    }

    fn mode_of(&self) -> u32 {
        fs::metadata(self.path()).expect("its file").mode() & 0o7777
    }
}

fn assert_no_failure(traffic: Traffic) {
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

/// Whether nothing listens at a path.
fn is_refused(path: &Path) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    UnixStream::connect(path).is_err_and(|error| kinds.contains(&error.kind()))
}

/// The inode of a socket's file.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Stops every worker, so that what connects waits in a queue. One that was about to end has ended by then.
fn stop_workers(server: &Server) -> Vec<i32> {
    let mut workers: Vec<i32> = server.processes();
    workers.retain(|pid| *pid != server.pid());
    workers.retain(|pid| {
        // ESRCH: it has ended.
        let _ = kill(Pid::from_raw(*pid), SIGSTOP);
        eventually("it is stopped, or has ended", || {
            let is_stopped = harness::is_stopped(*pid);
            (is_stopped || !server.processes().contains(pid)).then_some(is_stopped)
        })
    });
    workers
}

/// Clients that have sent a request and wait.
fn waiting(path: &Path, count: usize) -> Vec<Client> {
    let ask = |_| {
        let mut client = Client::connect(path);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    (0..count).map(ask).collect()
}

fn assert_answered(clients: Vec<Client>) {
    for mut client in clients {
        let response = client.response();
        assert!([OLD, NEW].contains(&response.text()), "{response:?}");
    }
}

fn requests_are_answered_beside_those_over_tcp(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    let path = of.path();
    assert!(fs::symlink_metadata(&path).expect("its file").file_type().is_socket());
    assert_eq!(of.mode_of(), 0o660);
    let told = server.journal.named("listening");
    let told = told.iter().find(|event| event.text("address").starts_with("unix:"));
    let told = told.expect("it tells of the socket");
    assert_eq!(told.text("address"), format!("unix:{}", path.display()));
    let accept = if mode.accept == Accept::Handoff { "handoff" } else { "shared" };
    assert_eq!(told.text("accept"), accept);
    assert!(!told.has("url"), "{told:?}");
    let mut client = of.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), OLD);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    for _ in 0..3 {
        assert_eq!(client.response().text(), OLD);
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), OLD);
    client.expect_end();
    assert!(!client.was_reset());
    assert_eq!(of.site.get(), OLD);
    let (unix, tcp) = (of.traffic(), of.site.traffic());
    unix.wait_answers(200);
    tcp.wait_answers(200);
    assert_no_failure(unix);
    assert_no_failure(tcp);
    let status = of.site.command(&server, &["status"]);
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains(&format!("unix:{}", path.display())), "{text}");
    // Where each lane has a queue of its own, that of the Unix socket alone.
    let backlog = if mode.accept == Accept::Reuseport { 4096 } else { 2 * 4096 };
    assert!(text.contains(&format!("queue of all lanes  0/{backlog}")), "{text}");
}

fn under_load_every_lane_takes_connections(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    let traffic = of.traffic();
    eventually("every lane has accepted some", || {
        let status = of.site.command(&server, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        let lanes = status["lanes"].as_array()?;
        lanes.iter().all(|lane| lane["accepted"].as_u64() > Some(4)).then_some(())
    });
    assert_no_failure(traffic);
}

fn a_crash_loses_nothing_that_waits(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    stop_workers(&server);
    let clients = waiting(&of.path(), 8);
    send_signal(server.worker_pid(0), SIGKILL);
    server.journal.wait_for("worker exited");
    // In mode processes the other lane is still stopped.
    for pid in server.processes() {
        send_signal(pid, SIGCONT);
    }
    assert_answered(clients);
}

fn what_waits_while_every_lane_is_dead_is_served_by_their_successors(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    let workers = stop_workers(&server);
    let clients = waiting(&of.path(), 8);
    workers.into_iter().for_each(|pid| send_signal(pid, SIGKILL));
    assert_answered(clients);
    assert_eq!(of.connect().get("/").text(), OLD);
}

fn a_reload_adds_and_removes_sockets_and_serves_what_waits(mode: Mode) {
    let mut of = Sockets::new(mode);
    let server = of.site.start();
    let (first, second) = (of.path(), of.of("other.sock"));
    let (before, traffic) = (inode(&first), of.traffic());
    (of.site.unix, of.site.text) = (vec![NAME, "other.sock"], NEW);
    of.site.write();
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(Client::connect(&*second).get("/").text(), NEW);
    assert_eq!(of.connect().get("/").text(), NEW);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    assert_eq!(inode(&first), before, "the same socket");

    let workers = stop_workers(&server);
    let clients = waiting(&second, 8);
    of.site.unix = vec![NAME];
    of.site.write();
    server.signal(nix::sys::signal::SIGHUP);
    server.journal.wait_nth("reload started", 2);
    eventually("its file is gone", || inode(&second).is_none().then_some(()));
    assert!(is_refused(&second));
    workers.into_iter().for_each(|pid| send_signal(pid, SIGCONT));
    assert_answered(clients);
    server.journal.wait_nth("reload done", 2);
    assert_eq!(of.connect().get("/").text(), NEW);
}

fn a_reload_changes_who_may_connect_and_a_rejected_one_changes_nothing(mode: Mode) {
    if !Uid::effective().is_root() {
        return harness::skipped("only root can give a socket to another group");
    }
    let mut of = Sockets::new(mode);
    of.site.more = "server.socket_mode = \"0600\"\n".into();
    let server = of.site.start();
    let (before, group) = (inode(&of.path()), || fs::metadata(of.path()).expect("its file").gid());
    let own = group();
    assert_eq!(of.mode_of(), 0o600);
    of.site.more = "server.socket_mode = \"666\"\nserver.socket_group = \"54321\"\n".into();
    of.site.write();
    assert_eq!(reload(&server).name(), "reload done");
    let group = || fs::metadata(of.path()).expect("its file").gid();
    assert_eq!((of.mode_of(), group(), inode(&of.path())), (0o666, 54_321, before));
    // One that can't be: the other socket's place is taken by a file.
    of.site.more = "server.socket_mode = \"0600\"\n".into();
    of.site.scratch.write("taken.sock", "not a socket");
    of.site.unix = vec![NAME, "taken.sock"];
    of.site.write();
    let rejected = reload(&server);
    assert_eq!(rejected.name(), "reload rejected");
    assert!(rejected.text("reason").contains("is no socket, and is left alone"), "{rejected:?}");
    // It is told before it is undone.
    eventually("it is as it was", || {
        let group = fs::metadata(of.path()).expect("its file").gid();
        ((of.mode_of(), group) == (0o666, 54_321)).then_some(())
    });
    assert_eq!(inode(&of.path()), before);
    (of.site.unix, of.site.more) = (vec![NAME], String::new());
    of.site.write();
    assert_eq!(reload(&server).name(), "reload done");
    let group = || fs::metadata(of.path()).expect("its file").gid();
    assert_eq!((of.mode_of(), group()), (0o660, own));
    assert_eq!(of.connect().get("/").text(), OLD);
}

fn a_reload_makes_a_socket_again_whose_file_was_taken_away(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    let mut kept = of.connect();
    assert_eq!(kept.get("/").text(), OLD);
    fs::remove_file(of.path()).expect("take it away");
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(of.connect().get("/").text(), OLD);
    assert_eq!(of.mode_of(), 0o660);
    server.signal(SIGTERM);
    eventually("its file is gone", || inode(&of.path()).is_none().then_some(()));
}

fn lanes_come_and_go(mode: Mode) {
    let of = Sockets::new(mode);
    let server = of.site.start();
    let traffic = of.traffic();
    for (nth, signal) in [SIGTTIN, SIGTTOU, SIGTTOU].into_iter().enumerate() {
        server.signal(signal);
        server.journal.wait_nth("resized", nth + 1);
        traffic.wait_answers(50);
    }
    assert_no_failure(traffic);
    assert_answered(waiting(&of.path(), 8));
}

fn an_upgrade_keeps_the_socket_and_loses_nothing(mode: Mode) {
    let mut of = Sockets::new(mode);
    let mut server = of.site.start();
    let (before, traffic) = (inode(&of.path()), of.traffic());
    of.site.more = "server.socket_mode = \"0606\"\n".into();
    of.site.write();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    assert_eq!(server.wait_exit(), 0);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    assert_eq!(inode(&of.path()), before, "the same socket");
    assert_eq!(of.mode_of(), 0o606, "who may connect is the heir's to say");
    send_signal(heir, SIGTERM);
    server.wait_gone();
    assert_eq!(inode(&of.path()), None, "the heir takes it away");
}

fn an_heir_that_fails_leaves_the_socket_as_it_was(mode: Mode) {
    let mut of = Sockets::new(mode);
    let binary = of.site.scratch.path().join("server");
    fs::hard_link(env!("CARGO_BIN_EXE_server"), &binary).expect("link the binary");
    let server = of.site.setup().binary(&binary).start();
    let (before, traffic) = (inode(&of.path()), of.traffic());
    // It opens a socket of its own and would have other permissions, and then can't have a third one.
    of.site.scratch.write("taken.sock", "not a socket");
    of.site.unix = vec![NAME, "new.sock", "taken.sock"];
    of.site.more = "server.socket_mode = \"0666\"\n".into();
    of.site.write();
    server.signal(SIGUSR2);
    let failed = server.journal.wait_for("upgrade failed");
    assert!(failed.text("reason").contains("left alone"), "{failed:?}");
    replace_program(&binary, "#!/bin/sh\nexit 3\n");
    server.signal(SIGUSR2);
    server.journal.wait_nth("upgrade failed", 2);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    assert_eq!((inode(&of.path()), of.mode_of()), (before, 0o660));
    assert_eq!(inode(&of.of("new.sock")), None, "the heir has taken its own away");
    assert_eq!(fs::read(of.of("taken.sock")).expect("the file"), b"not a socket");
}

fn a_stop_serves_what_waits_and_takes_the_file_away(mode: Mode) {
    let of = Sockets::new(mode);
    let mut server = of.site.start();
    let workers = stop_workers(&server);
    let clients = waiting(&of.path(), 8);
    server.signal(SIGTERM);
    server.journal.wait_for("drain started");
    eventually("its file is gone", || inode(&of.path()).is_none().then_some(()));
    workers.into_iter().for_each(|pid| send_signal(pid, SIGCONT));
    assert_answered(clients);
    assert_eq!(server.wait_exit(), 0);
}

fn an_activated_socket_is_served_and_left_where_it_is(mode: Mode) {
    let of = Sockets::new(mode);
    let socket = UnixListener::bind(of.path()).expect("the manager's socket");
    let copy = socket.try_clone().expect("the manager's own copy");
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let setup = of.site.setup().stdin(socket).under(&["sh", "-c", script, "sh"]);
    let before = inode(&of.path());
    let mut server = setup.start();
    let traffic = of.traffic();
    assert_eq!(reload(&server).name(), "reload done");
    traffic.wait_answers(50);
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    assert_eq!(server.wait_exit(), 0);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    send_signal(heir, SIGTERM);
    server.wait_gone();
    assert_eq!(inode(&of.path()), before);
    // The manager goes on with it.
    let _client = UnixStream::connect(of.path()).expect("it still listens");
    copy.accept().expect("a client");
}

fn large_bodies_pass_both_ways(mode: Mode) {
    const BYTES: usize = 8 << 20;
    let mut of = Sockets::new(mode);
    of.site.more = format!(
        "limits.body = \"16MiB\"\n[[route]]\npath = \"/large\"\nbytes = \"{BYTES}B\"\n\
         [[route]]\npath = \"/echo\"\necho = \"body\"\n"
    );
    let _server = of.site.start();
    let mut client = of.connect();
    assert_eq!(client.get("/large").body.len(), BYTES);
    let body: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n");
    client.send(head);
    client.send(&body);
    assert!(client.response().body == body, "another body came back");
    // One that reads slowly, and in the end no more, holds up no other.
    let mut slow = of.connect();
    slow.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
    assert!(slow.sip(1000) > 0);
    assert_eq!(of.connect().get("/").text(), OLD);
    for _ in 0..4 {
        assert_eq!(slow.response().body.len(), BYTES);
    }
}

fn responses_reach_a_client_that_was_refused_amid_its_body(mode: Mode) {
    let of = Sockets::new(mode);
    let _server = of.site.start();
    let mut client = of.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n");
    // What it still sends is read and thrown away, as far as the server waits for it.
    let _ = client.try_send(vec![b'x'; 1 << 20]);
    let response = client.response();
    assert!((400..500).contains(&response.status), "{response:?}");
    assert!(response.says_close());
}

#[test]
fn the_admin_address_may_be_a_unix_socket() {
    for mode in [Mode::THREADS, Mode::PROCESSES] {
        let mut of = Sockets::new(mode);
        of.site.more = "admin.listen = \"unix:admin.sock\"\nadmin.socket_mode = \"0600\"\n".into();
        let mut server = of.site.start();
        let path = of.of("admin.sock");
        assert_eq!(fs::metadata(&path).expect("its file").mode() & 0o7777, 0o600);
        let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let healthy = |path: &Path| Client::connect(path).request(ask).status == 200;
        assert!(healthy(&path));
        let any = "GET /healthz HTTP/1.1\r\nHost: a.name\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        assert_eq!(Client::connect(&*path).request(any).status, 200, "no browser asks there");
        of.site.more = "admin.listen = [\"unix:admin.sock\", \"unix:other.sock\"]\n".into();
        of.site.write();
        assert_eq!(reload(&server).name(), "reload done");
        assert!(healthy(&path) && healthy(&of.of("other.sock")));
        assert_eq!(fs::metadata(&path).expect("its file").mode() & 0o7777, 0o660);
        server.signal(SIGUSR2);
        let heir = server.journal.wait_for("upgrade done").pid();
        assert_eq!(server.wait_exit(), 0);
        assert!(healthy(&path));
        send_signal(heir, SIGTERM);
        server.wait_gone();
        assert_eq!((inode(&path), inode(&of.of("other.sock"))), (None, None));
    }
}

/// How a start at a path ends, where something is already.
fn start_at(path: &Path) -> Server {
    let listen = format!("unix:{}", path.display());
    Setup::new(Mode::THREADS).set("server.listen", listen).spawn()
}

#[track_caller]
fn assert_refused(path: &Path, expected: &str) {
    let mut server = start_at(path);
    assert_eq!(server.wait_exit(), 1);
    let event = server.journal.wait_for("could not start");
    let reason = event.text("reason");
    assert!(reason.starts_with(&format!("cannot listen on unix:{}: ", path.display())), "{reason}");
    assert!(reason.contains(expected), "{reason}");
}

#[test]
fn what_is_in_the_way_is_left_alone_and_only_what_was_left_behind_is_replaced() {
    let scratch = Scratch::new();
    let of = |name: &str| scratch.path().join(name);
    // What a server leaves that was killed.
    drop(UnixListener::bind(of("left")).expect("a socket"));
    let server = start_at(&of("left"));
    server.journal.wait_for("ready");
    assert_eq!(Client::connect(&*of("left")).get("/").text(), GREETING);
    assert_refused(&of("left"), &format!("pid {} (server) listens there; stop it", server.pid()));
    // A link to it is not followed, wherever it leads.
    for (name, target) in [("link", "left"), ("dangling", "nothing")] {
        symlink(of(target), of(name)).expect("a link");
        assert_refused(&of(name), "what is there is no socket, and is left alone; move it away");
        assert_eq!(fs::read_link(of(name)).expect("the link"), of(target));
    }
    scratch.write("file", "content");
    assert_refused(&of("file"), "what is there is no socket, and is left alone");
    assert_eq!(fs::read(of("file")).expect("the file"), b"content");
    fs::create_dir(of("folder")).expect("a folder");
    assert_refused(&of("folder"), "what is there is no socket, and is left alone");
    let _datagrams = UnixDatagram::bind(of("datagrams")).expect("a socket of another kind");
    assert_refused(&of("datagrams"), "Protocol wrong type for socket");
    assert!(of("datagrams").exists());
    assert_refused(&of("none/http.sock"), &format!("create the folder {}", of("none").display()));
}

#[test]
fn a_server_whose_queue_is_full_is_no_leftover_and_its_clients_wait_or_are_told() {
    let scratch = Scratch::new();
    let path = scratch.path().join("full.sock");
    let listen = format!("unix:{}", path.display());
    let server = Setup::new(Mode::THREADS)
        .set("server.listen", listen)
        .set("server.backlog", 2)
        .set("supervisor.watchdog", "0s")
        .start();
    let workers = stop_workers(&server);
    let full = || {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_nonblocking(true).expect("nonblocking");
        let connected = socket.connect(&socket2::SockAddr::unix(&path).expect("its address"));
        connected.map(|()| socket)
    };
    // The kernel takes one more than the backlog (net/unix/af_unix.c, `unix_recvq_full`).
    let held: Vec<_> = std::iter::from_fn(|| full().ok()).collect();
    assert_eq!(held.len(), 3);
    assert_eq!(full().expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
    let before = inode(&path);
    assert_refused(&path, "a process listens there whose queue is full");
    assert_eq!(inode(&path), before);
    let late = std::thread::spawn({
        let path = path.clone();
        move || Client::connect(&*path).get("/").status
    });
    workers.into_iter().for_each(|pid| send_signal(pid, SIGCONT));
    assert_eq!(late.join().expect("a client that waits"), 200);
}

#[test]
fn a_killed_server_leaves_a_file_that_the_next_one_replaces() {
    for mode in [Mode::THREADS, Mode::PROCESSES] {
        let of = Sockets::new(mode);
        let mut server = of.site.start();
        let left = inode(&of.path());
        server.kill_supervisor();
        server.wait_gone();
        assert_eq!(inode(&of.path()), left);
        assert!(is_refused(&of.path()));
        let server = of.site.start();
        assert_eq!(of.connect().get("/").text(), OLD);
        drop(server);
    }
}

#[test]
fn of_servers_that_start_at_once_one_gets_the_socket() {
    let scratch = Scratch::new();
    let path = scratch.path().join("http.sock");
    for _ in 0..5 {
        drop(UnixListener::bind(&path).expect("a socket that was left behind"));
        let servers: Vec<Server> = (0..4).map(|_| start_at(&path)).collect();
        let ends = servers.iter().map(|server| {
            server.journal.wait_for_any(&["ready", "could not start"]).expect("an outcome")
        });
        let ready = ends.filter(|event| event.name() == "ready").count();
        assert_eq!(ready, 1);
        assert_eq!(Client::connect(&*path).get("/").text(), GREETING);
        drop(servers);
        fs::remove_file(&path).expect("those that were killed leave it");
    }
}

#[test]
fn the_owner_and_the_permissions_are_those_that_were_asked_for() {
    if !Uid::effective().is_root() {
        return harness::skipped("only root can give a socket to another user");
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("http.sock");
    let setup = Setup::new(Mode::THREADS)
        .set("server.listen", format!("unix:{}", path.display()))
        .set("server.socket_owner", "\"54321\"")
        .set("server.socket_group", "nogroup")
        .set("server.socket_mode", "0620")
        .set("supervisor.user", "nobody");
    let mut server = setup.start();
    let found = fs::metadata(&path).expect("its file");
    let nogroup = nix::unistd::Group::from_name("nogroup").ok().flatten().expect("a group");
    assert_eq!((found.uid(), found.gid()), (54_321, nogroup.gid.as_raw()));
    assert_eq!(found.mode() & 0o7777, 0o620);
    assert_eq!(Client::connect(&*path).get("/").text(), GREETING);
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert!(!path.exists());
}

#[test]
fn a_file_that_came_to_its_place_is_not_taken_away() {
    let of = Sockets::new(Mode::THREADS);
    let mut server = of.site.start();
    fs::remove_file(of.path()).expect("take it away");
    let _other = UnixListener::bind(of.path()).expect("another server's");
    let theirs = inode(&of.path());
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert_eq!(inode(&of.path()), theirs);
}

#[test]
fn a_check_says_what_a_start_would_and_leaves_the_server_alone_that_runs() {
    let mut of = Sockets::new(Mode::THREADS);
    let server = of.site.start();
    let check = |of: &Sockets| {
        let output = of.site.command(&server, &["check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = check(&of);
    assert_eq!(code, Some(0), "{text}");
    let _other = UnixListener::bind(of.of("other.sock")).expect("another server's");
    of.site.unix = vec![NAME, "other.sock"];
    of.site.more = "server.socket_group = \"no-such-group\"\n".into();
    of.site.write();
    let (code, text) = check(&of);
    assert_eq!(code, Some(1));
    let name = format!("other.sock: pid {} (", std::process::id());
    assert!(text.contains(&name) && text.contains("listens there; stop it"), "{text}");
    assert!(text.contains("cannot use server.socket_group: there is no group"), "{text}");
    assert_eq!(of.connect().get("/").text(), OLD);
}

/// A program that runs until the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn curl_asks_over_the_socket() {
    if skip_without("curl") {
        return;
    }
    let of = Sockets::new(Mode::THREADS);
    let _server = of.site.start();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--unix-socket"]).arg(of.path());
    let output = curl.args(["http://a/", "http://a/"]).output().expect("run curl");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), OLD.repeat(2));
}

/// Asks a proxy many times while the server is reloaded and upgraded behind it.
fn passes_through(of: &Sockets, server: &mut Server, front: std::net::SocketAddr) {
    eventually("the proxy listens", || Target::from(front).connect().ok());
    let traffic = Traffic::start(front, 4, "/", &[OLD, NEW]);
    traffic.wait_answers(200);
    assert_eq!(reload(server).name(), "reload done");
    traffic.wait_answers(200);
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    traffic.wait_answers(200);
    assert_no_failure(traffic);
    send_signal(heir, SIGTERM);
    server.wait_gone();
    assert!(inode(&of.path()).is_none());
}

#[test]
fn nginx_passes_requests_on() {
    if skip_without("nginx") {
        return;
    }
    let of = Sockets::new(Mode::THREADS);
    let mut server = of.site.start();
    let front = private_loopback(8081);
    let (folder, path) = (of.site.scratch.path().display(), of.path());
    let config = of.site.scratch.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit; events {{}}\n\
             http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; \
             uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
             upstream laneway {{ server unix:{}; keepalive 16; }}\n\
             server {{ listen {front}; location / {{ proxy_pass http://laneway; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header Host a; }} }} }}\n",
            path.display()
        ),
    );
    let mut nginx = Command::new("nginx");
    nginx.arg("-e").arg("stderr").arg("-c").arg(config).stderr(Stdio::null());
    let _nginx = Running(nginx.spawn().expect("run nginx"));
    passes_through(&of, &mut server, front);
}

#[test]
fn haproxy_passes_requests_on() {
    if skip_without("haproxy") {
        return;
    }
    let of = Sockets::new(Mode::THREADS);
    let mut server = of.site.start();
    let front = private_loopback(8082);
    let config = of.site.scratch.write(
        "haproxy.cfg",
        format!(
            "global\n  nbthread 1\n  h1-case-adjust content-length Content-Length\n  \
             h1-case-adjust connection Connection\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend f\n  bind {front}\n  option h1-case-adjust-bogus-client\n  default_backend b\nbackend b\n  retry-on all-retryable-errors\n  \
             server s unix@{}\n",
            of.path().display()
        ),
    );
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    let _haproxy = Running(haproxy.spawn().expect("run haproxy"));
    passes_through(&of, &mut server, front);
}

#[test]
fn a_path_that_is_too_long_is_told_with_its_length() {
    let output = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let set = format!("server.listen={listen}");
        let output = command.args(["--set", &set, "check"]).current_dir("/").output();
        String::from_utf8_lossy(&output.expect("run the binary").stderr).into_owned()
    };
    let longest = format!("/{}", "x".repeat(106));
    assert!(!output(&format!("unix:{longest}")).contains("has 107 bytes"));
    let text = output(&format!("unix:{longest}x"));
    assert!(text.contains("has 108 bytes") && text.contains("at most 107"), "{text}");
    // A path that isn't absolute begins at the folder of the configuration.
    let text = output(&format!("unix:{}", "x".repeat(107)));
    assert!(text.contains(&format!("the path of the socket /{}", "x".repeat(107))), "{text}");
}
