//! Being replaced by a new binary, and being started by a service manager, as root and not.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{
    Accept, DEADLINE, Mode, NEW, OLD, Server, Setup, Site, Traffic, children_of, eventually,
    in_every_mode, let_time_pass, private_loopback, process_state, reload, send_signal,
    skip_without, skip_without_faults, status_field,
};
use nix::sys::signal::{SIGHUP, SIGKILL, SIGPIPE, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR2, SIGXFSZ};
use nix::unistd::Uid;
use socket2::{Domain, SockAddr, Socket, Type};

in_every_mode!(
    an_upgrade_takes_over_without_a_failure,
    an_upgrade_with_another_configuration_serves_that,
    a_connection_that_was_never_used_is_answered_long_after_an_upgrade,
    a_binary_that_fails_changes_nothing,
    an_upgrade_that_fails_says_what_kept_the_new_server_from_serving,
    an_upgrade_to_a_server_that_could_not_be_asked_fails,
    a_binary_that_says_nothing_is_given_up,
    a_binary_that_cannot_be_executed_yet_holds_up_nothing,
    a_binary_that_is_never_executed_is_given_up,
    a_stop_does_not_wait_for_a_binary_to_be_executed,
    a_file_that_is_no_program_fails_with_the_reason,
    an_heir_is_given_what_an_heir_needs_and_nothing_else,
    a_stop_during_an_upgrade_stops_both,
    changes_during_an_upgrade_are_made_by_the_heir,
    changes_during_an_upgrade_that_fails_are_made_after_it,
    a_killed_supervisor_leaves_its_heir_alone,
    an_heir_knows_the_supervisor_that_was_killed_before_it_served,
    the_first_term_after_a_hand_over_cuts_nothing_and_the_second_forces,
    an_upgrade_and_a_reload_keep_the_lanes_that_signals_made,
    totals_never_go_backwards,
    what_a_server_counts_that_two_have_followed_reaches_the_last,
    a_service_manager_is_told_of_every_change,
    under_a_service_manager_a_server_that_stops_stays_for_the_one_before_it,
    a_service_manager_hears_that_the_loop_turns,
    an_activated_socket_is_joined_by_the_other_lanes,
    an_activated_socket_of_an_address_of_its_own_keeps_the_queue_of_its_unit,
    an_activated_socket_that_cannot_be_joined_is_shared,
    workers_run_as_the_user_and_the_supervisor_does_not,
    an_unknown_user_is_an_error,
    without_a_place_for_its_socket_it_serves_all_the_same,
);

harness::in_mode!(
    reuseport_threads,
    THREADS,
    [
        an_upgrade_while_lanes_leave_serves_every_lane_of_the_heir,
        an_upgrade_while_lanes_leave_serves_every_lane_of_another_configuration,
        an_heir_with_fewer_lanes_that_fails_leaves_every_lane_served,
        an_heir_with_more_lanes_that_fails_loses_no_connection
    ]
);
harness::in_mode!(
    reuseport_processes,
    PROCESSES,
    [
        an_upgrade_while_lanes_leave_serves_every_lane_of_the_heir,
        an_upgrade_while_lanes_leave_serves_every_lane_of_another_configuration,
        an_heir_with_fewer_lanes_that_fails_leaves_every_lane_served,
        an_heir_with_more_lanes_that_fails_loses_no_connection
    ]
);

/// A server that was started from a copy of the binary, which a test may replace.
struct Replaceable {
    site: Site,
    binary: PathBuf,
    server: Server,
}

impl Replaceable {
    fn start(mode: Mode) -> Replaceable {
        Replaceable::start_with(mode, "")
    }

    fn start_with(mode: Mode, more: &str) -> Replaceable {
        Replaceable::start_of(mode, more, 2)
    }

    fn start_of(mode: Mode, more: &str, lanes: usize) -> Replaceable {
        let mut site = Site::new(mode);
        site.more = more.into();
        site.lanes = lanes;
        let binary = site.scratch.path().join("server");
        // A link: many copies of it at once keep the disk busy for seconds.
        fs::hard_link(env!("CARGO_BIN_EXE_server"), &binary).expect("link the binary");
        let server = site.setup().binary(&binary).start();
        Replaceable { site, binary, server }
    }

    fn pid_file(&self) -> i32 {
        let text = fs::read_to_string(self.server.folder().join("server.pid"));
        text.expect("the pid file").trim().parse().expect("a pid")
    }
}

fn assert_no_failure(traffic: Traffic) {
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

fn an_upgrade_takes_over_without_a_failure(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let old = of.server.pid();
    let traffic = of.site.traffic();
    of.server.signal(SIGUSR2);
    let new = of.server.journal.wait_for("upgrade done").pid();
    assert_eq!(of.server.wait_exit(), 0);
    traffic.wait_answers(50);
    assert_ne!(new, old);
    assert_eq!(of.pid_file(), new);
    // And the heir has an heir.
    let output = of.site.command(&of.server, &["upgrade"]);
    assert!(output.status.success(), "{output:?}");
    let newest = of.server.journal.wait_nth("upgrade done", 2).pid();
    eventually("the second one leaves", || {
        process_state(new).is_none_or(|state| state == 'Z').then_some(())
    });
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    let output = of.site.command(&of.server, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["pid"], newest);
    let history = status["history"].as_array().expect("a history");
    assert_eq!(history.iter().filter(|event| event["event"] == "ready").count(), 3, "{history:?}");
    send_signal(newest, SIGTERM);
    of.server.wait_gone();
}

fn an_upgrade_with_another_configuration_serves_that(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let traffic = of.site.traffic();
    of.site.text = NEW;
    of.site.lanes = 1;
    of.site.mode = mode.other();
    of.site.write();
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade done");
    assert_eq!(of.server.wait_exit(), 0);
    assert_eq!(of.site.get(), NEW);
    if mode.accept == Accept::Reuseport {
        of.server.journal.wait_for("lane closed");
    }
    traffic.wait_answers(50);
    assert_no_failure(traffic);
}

fn a_connection_that_was_never_used_is_answered_long_after_an_upgrade(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let clients: Vec<_> = (0..10).map(|_| of.server.connect()).collect();
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade done");
    let_time_pass(Duration::from_millis(1_200));
    for mut client in clients {
        assert_eq!(client.get("/").text(), OLD);
    }
    assert_eq!(of.server.wait_exit(), 0);
}

fn a_binary_that_fails_changes_nothing(mode: Mode) {
    let of = Replaceable::start(mode);
    let traffic = of.site.traffic();
    harness::replace_program(&of.binary, "#!/bin/sh\nexit 7\n");
    let output = of.site.command(&of.server, &["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    let failed = of.server.journal.wait_for("upgrade failed");
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), failed.text("reason"));
    // It knows no way to tell more.
    let said = "exited with code 7 and did not say why; what it wrote to standard error is where";
    assert!(failed.text("reason").contains(said), "{failed:?}");
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    assert_eq!(of.pid_file(), of.server.pid());
    // It is still good for everything.
    assert_eq!(reload(&of.server).name(), "reload done");
}

/// What `server upgrade`, which fails, prints.
fn failing_upgrade(of: &Replaceable) -> String {
    // By its name, since the configuration may tell nothing of it.
    let output = of.site.command(&of.server, &["--socket", "server.sock", "upgrade"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn an_upgrade_that_fails_says_what_kept_the_new_server_from_serving(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let binary = of.binary.display().to_string();
    // A configuration that it can't read.
    of.site.scratch.write("site.toml", "workers.count = \"two\"\n");
    let text = failing_upgrade(&of);
    assert!(text.starts_with("the new server, pid "), "{text}");
    for part in [&binary, "could not start: ", "site.toml:1:", "workers.count"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // One that it can't carry out.
    let taken = TcpListener::bind(private_loopback(8081)).expect("a port that is taken");
    of.site.listen.push(taken.local_addr().expect("its address"));
    of.site.write();
    let text = failing_upgrade(&of);
    assert!(text.contains("could not start: cannot listen on"), "{text}");
    assert!(text.contains("the port is in use by pid"), "{text}");
    of.site.listen.pop();
    // Workers that can't be.
    if !skip_without_faults() {
        of.site.write();
        fs::write(of.server.folder().join("fail-start"), "").expect("write");
        let text = failing_upgrade(&of);
        assert!(text.contains("could not start: fault injected at start"), "{text}");
        fs::remove_file(of.server.folder().join("fail-start")).expect("remove it");
    }
    // However much there is to say.
    let mistakes: String = (0..500).map(|number| format!("mistake{number} = 1\n")).collect();
    of.site.scratch.write("site.toml", mistakes);
    let text = failing_upgrade(&of);
    assert!(text.contains("could not start: ") && text.contains("site.toml:1:"), "{text}");
    assert!(text.len() < 4_096 + 1_024, "{} bytes", text.len());
    assert_eq!(of.site.get(), OLD);
}

/// A new server that gets no command socket: whether the old one can be asked still, and serves.
fn assert_old_one_serves(of: &Replaceable, traffic: Traffic) {
    let old = of.server.pid();
    assert_eq!(status_of(of, old)["pid"], old);
    assert_eq!(of.pid_file(), old);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    assert!(of.server.journal.named("upgrade done").is_empty());
}

fn an_upgrade_to_a_server_that_could_not_be_asked_fails(mode: Mode) {
    let of = Replaceable::start(mode);
    let traffic = of.site.traffic();
    let written = fs::read_to_string(of.site.path()).expect("the configuration");
    // Its command socket would lie where something else is.
    fs::create_dir(of.server.folder().join("run")).expect("a folder");
    fs::write(of.server.folder().join("run/server.sock"), "precious\n").expect("a file");
    let moved = written.replace("\"server.pid\"", "\"run/server.pid\"");
    of.site.scratch.write("site.toml", moved);
    // The commands find the old one by its file.
    of.server.signal(SIGUSR2);
    let reason = of.server.journal.wait_for("upgrade failed").text("reason").to_owned();
    assert!(reason.contains("could not start: cannot open the command socket"), "{reason}");
    assert!(reason.contains("what is there is no socket, and is left alone"), "{reason}");
    of.site.scratch.write("site.toml", written);
    assert!(!of.server.folder().join("run/server.pid").exists());
    assert_old_one_serves(&of, traffic);
}

#[test]
fn whatever_the_limit_of_descriptors_an_upgrade_leaves_a_server_that_can_be_asked() {
    if !Uid::effective().is_root() {
        return harness::skipped("only root may raise a limit again");
    }
    for mode in [Mode::THREADS, Mode::PROCESSES] {
        let of = Replaceable::start_of(mode, "", 1);
        let limit = "ulimit -n $(cat limit) || exit 1";
        harness::replace_program(
            &of.binary,
            &format!("#!/bin/sh\n{limit}\n{}\n", become_the_server()),
        );
        let (mut failed, mut files) = (0, 5);
        loop {
            fs::write(of.server.folder().join("limit"), files.to_string()).expect("write");
            let output = of.site.command(&of.server, &["upgrade"]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!text.contains("in time"), "{files}: {text}");
            if output.status.success() {
                let heir = of.server.journal.wait_for("upgrade done").pid();
                assert_eq!(status_of(&of, heir)["pid"], heir, "{files}");
                break;
            }
            let old = of.server.pid();
            assert_eq!(status_of(&of, old)["pid"], old, "{files}");
            // What is missing, and not what that led to.
            assert!(text.contains("Too many open files"), "{files}: {text}");
            assert!(!text.contains("name another"), "{files}: {text}");
            failed += 1;
            files += 1;
            assert!(files < 60, "{files} descriptors are enough: {text}");
        }
        assert!(failed > 3, "{failed}");
    }
}

fn a_binary_that_says_nothing_is_given_up(mode: Mode) {
    let of = Replaceable::start_with(mode, "supervisor.ready_timeout = \"4s\"\n");
    harness::replace_program(&of.binary, "#!/bin/sh\nexec sleep 600\n");
    of.server.signal(SIGUSR2);
    let failed = of.server.journal.wait_for("upgrade failed");
    assert_eq!(failed.text("reason"), "it was not ready in time");
    assert_eq!(of.site.get(), OLD);
    eventually("the silent program is gone", || {
        let names = of.server.processes().into_iter();
        let mut names =
            names.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        (!names.any(|name| name.trim() == "sleep")).then_some(())
    });
}

fn a_stop_during_an_upgrade_stops_both(mode: Mode) {
    let mut of = Replaceable::start(mode);
    harness::replace_program(&of.binary, "#!/bin/sh\nexec sleep 600\n");
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade started");
    of.server.signal(SIGTERM);
    assert_eq!(of.server.wait_exit(), 0);
    of.server.wait_gone();
}

/// A process of Python's that does something to what it is given, says that it has, and undoes it when this is dropped.
struct Holder(Child);

impl Holder {
    /// None if it couldn't.
    fn start(script: &str, of: &str) -> Option<Holder> {
        let mut command = Command::new("python3");
        let script = format!("import sys\n{script}\nprint('held', flush=True)\nsys.stdin.read()\n");
        command.args(["-c", &script, of]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run python3");
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
        let holder = Holder(child);
        said.expect("a line");
        (line == "held\n").then_some(holder)
    }

    /// Keeps a program from being executed, as a file system does that doesn't answer: it has a lease on the file (fcntl(2),
    /// `F_SETLEASE`), for whose end the kernel waits before another process opens it, 45 s at most.
    fn of_program(program: &Path) -> Holder {
        let lease = "import fcntl, signal\n\
                     signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                     file = open(sys.argv[1])\n\
                     fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)";
        Holder::start(lease, program.to_str().expect("a path of text")).expect("a lease")
    }

    /// Keeps the end of a process from its parent, as a call to the kernel does that doesn't return: it is the process's
    /// tracer (ptrace(2), `PTRACE_SEIZE`), and doesn't wait for it.
    fn of_end(pid: i32) -> Option<Holder> {
        let seize = "import ctypes\n\
                     if ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None): sys.exit(1)";
        Holder::start(seize, &pid.to_string())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Kills the worker of lane 0 and waits for another.
fn assert_workers_are_replaced(server: &Server) {
    let old = server.worker_pid(0);
    send_signal(old, SIGKILL);
    eventually("the worker is replaced", || (server.worker_pid(0) != old).then_some(()));
}

/// Asks for an upgrade to a program that can't be executed for now, and waits until its execution hangs.
fn begin_to_hang(of: &Replaceable, script: &str) -> Holder {
    harness::replace_program(&of.binary, script);
    let withheld = Holder::of_program(&of.binary);
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade started");
    withheld
}

fn a_binary_that_cannot_be_executed_yet_holds_up_nothing(mode: Mode) {
    if skip_without("python3") {
        return;
    }
    let mut of = Replaceable::start(mode);
    let script = format!("#!/bin/sh\n{}\n", become_the_server());
    let withheld = begin_to_hang(&of, &script);
    assert_workers_are_replaced(&of.server);
    of.server.signal(SIGHUP);
    of.server.journal.wait_for("change waits");
    assert_eq!(of.site.get(), OLD);
    assert_eq!(status_of(&of, of.server.pid())["pid"], of.server.pid());
    assert!(of.server.journal.named("upgrade done").is_empty());
    drop(withheld);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    assert_eq!(of.server.wait_exit(), 0);
    // The change that has waited.
    assert_eq!(of.server.journal.wait_for("reload done").number("generation"), 2);
    assert_eq!(of.site.get(), OLD);
    send_signal(heir, SIGTERM);
    of.server.wait_gone();
}

fn a_binary_that_is_never_executed_is_given_up(mode: Mode) {
    if skip_without("python3") {
        return;
    }
    let of = Replaceable::start_with(mode, "supervisor.ready_timeout = \"4s\"\n");
    let withheld = begin_to_hang(&of, "#!/bin/sh\n: > executed\n");
    let failed = of.server.journal.wait_for("upgrade failed");
    let expected = format!(
        "cannot start the binary: {} was not executed in time; look whether the file systems of it and of the folder that \
         this server was started in answer",
        of.binary.display()
    );
    assert_eq!(failed.text("reason"), expected);
    eventually("what was to execute it is gone", || {
        let names = of.server.processes().into_iter();
        let mut names = names.map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")));
        (!names.any(|name| name.is_ok_and(|name| name == "laneway upgrade\n"))).then_some(())
    });
    drop(withheld);
    assert_workers_are_replaced(&of.server);
    assert_eq!(reload(&of.server).name(), "reload done");
    assert!(!of.server.folder().join("executed").exists());
}

fn a_stop_does_not_wait_for_a_binary_to_be_executed(mode: Mode) {
    if skip_without("python3") {
        return;
    }
    let mut of = Replaceable::start(mode);
    let withheld = begin_to_hang(&of, "#!/bin/sh\n: > executed\n");
    of.server.signal(SIGTERM);
    let failed = of.server.journal.wait_for("upgrade failed");
    assert_eq!(failed.text("reason"), "this server was told to stop");
    assert_eq!(of.server.wait_exit(), 0);
    of.server.wait_gone();
    drop(withheld);
    assert!(!of.server.folder().join("executed").exists());
}

#[test]
fn a_command_socket_of_a_server_that_accepts_nothing_is_not_waited_for() {
    let of = Replaceable::start(Mode::PROCESSES);
    let foreign = of.server.folder().join("foreign.sock");
    let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    stopped.bind(&SockAddr::unix(&foreign).expect("a path that fits")).expect("bind it");
    stopped.listen(0).expect("listen");
    let connect = || {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("make it nonblocking");
        client.connect(&SockAddr::unix(&foreign).expect("a path that fits")).ok().map(|()| client)
    };
    let clients: Vec<_> = std::iter::from_fn(connect).collect();
    assert!(!clients.is_empty());
    // An heir that fails, after its socket was replaced by that of a server whose queue is full.
    harness::replace_program(&of.binary, "#!/bin/sh\nmv foreign.sock server.sock\nexit 7\n");
    of.server.signal(SIGUSR2);
    let reason = of.server.journal.wait_for("no command socket").text("reason").to_owned();
    assert!(reason.contains("another server that takes no commands now has the"), "{reason}");
    of.server.journal.wait_for("upgrade failed");
    assert_workers_are_replaced(&of.server);
    assert_eq!(of.site.get(), OLD);
    // A start does not wait for it either.
    let mut second = Setup::new(Mode::THREADS)
        .arguments(&["--socket", of.server.folder().join("server.sock").to_str().expect("text")])
        .spawn();
    assert_eq!(second.wait_exit(), 1);
}

#[test]
fn a_binary_that_says_nothing_and_cannot_be_killed_is_given_up() {
    if skip_without("python3") {
        return;
    }
    let of = Replaceable::start_with(Mode::PROCESSES, "supervisor.ready_timeout = \"3s\"\n");
    harness::replace_program(&of.binary, "#!/bin/sh\necho $$ > begun\nexec sleep 600\n");
    of.server.signal(SIGUSR2);
    let heir = eventually("the heir begins", || {
        fs::read_to_string(of.server.folder().join("begun")).ok()?.trim().parse().ok()
    });
    let Some(holder) = Holder::of_end(heir) else {
        return harness::skipped("this user may not trace");
    };
    let failed = of.server.journal.wait_for("upgrade failed");
    let expected = "it was not ready in time; it was killed, and has not ended";
    assert_eq!(failed.text("reason"), expected);
    assert_workers_are_replaced(&of.server);
    assert_eq!(reload(&of.server).name(), "reload done");
    assert_eq!(process_state(heir), Some('Z'));
    drop(holder);
    eventually("its end is taken note of", || process_state(heir).is_none().then_some(()));
    assert_eq!(status_of(&of, of.server.pid())["pid"], of.server.pid());
    harness::replace_program(&of.binary, &format!("#!/bin/sh\n{}\n", become_the_server()));
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade done");
}

fn a_file_that_is_no_program_fails_with_the_reason(mode: Mode) {
    let of = Replaceable::start(mode);
    let heads = [
        ("", "Exec format error (os error 8)"),
        ("#!/no/such\n", "No such file or directory (os error 2)"),
    ];
    for (content, why) in heads {
        harness::replace_program(&of.binary, content);
        assert_eq!(failing_upgrade(&of), format!("cannot start the binary: {why}\n"));
    }
    fs::remove_file(&of.binary).expect("remove it");
    let why = "No such file or directory (os error 2)";
    assert_eq!(failing_upgrade(&of), format!("cannot start the binary: {why}\n"));
    assert_eq!(reload(&of.server).name(), "reload done");
}

fn an_heir_is_given_what_an_heir_needs_and_nothing_else(mode: Mode) {
    let of = Replaceable::start(mode);
    // The shell's own descriptor of the script is 10 or more, and that of the listing is closed with it.
    let script = "#!/bin/sh\nls -l /proc/self/fd > files\nenv > variables\npwd -P > folder\n\
                  grep SigIgn /proc/self/status > signals\nprintf '%s\\n' \"$0\" \"$@\" > words\n";
    harness::replace_program(&of.binary, script);
    failing_upgrade(&of);
    let read = |name: &str| {
        fs::read_to_string(of.server.folder().join(name)).expect("what the script has written")
    };
    let files = read("files");
    let sockets: Vec<_> = files.lines().filter(|line| line.contains("socket:[")).collect();
    let variables = read("variables");
    let value = |name: &str| {
        let mut found = variables.lines().filter_map(|line| line.strip_prefix(&format!("{name}=")));
        found.next().map(str::to_owned)
    };
    let number = value("LANEWAY_UPGRADE").expect("the number of its socket");
    assert_eq!(sockets.len(), 1, "{files}");
    assert!(sockets[0].contains(&format!(" {number} -> socket:[")), "{number}: {files}");
    assert!(!files.contains("anon_inode"), "{files}");
    let folder = of.server.folder().canonicalize().expect("the folder");
    assert_eq!(read("folder").trim(), folder.to_str().expect("text"));
    assert_eq!(value("PWD").as_deref(), of.server.folder().to_str());
    assert_eq!(value("LANEWAY_FAULTS").as_deref(), Some("requests"));
    let config = of.site.path();
    let words = [&of.binary, Path::new("--config"), &config].map(|word| word.display().to_string());
    assert_eq!(read("words").lines().collect::<Vec<_>>(), words);
    // As whatever this test starts, but for those that the server ignores in its own processes.
    let ignored = |text: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        u64::from_str_radix(found.expect("the line").trim(), 16).expect("a mask")
    };
    let own = fs::read_to_string(format!("/proc/{}/status", of.server.pid())).expect("its status");
    let of_server = [SIGPIPE, SIGXFSZ].iter().fold(0, |all, of| all | 1 << (*of as i32 - 1));
    assert_eq!(ignored(&own) & of_server, of_server);
    assert_eq!(ignored(&read("signals")), ignored(&own) & !of_server);
}

/// Replaces the binary by a script that waits for a file `go`, and then becomes the server, or fails.
fn delay_heir(of: &Replaceable, then: &str) {
    harness::replace_program(
        &of.binary,
        &format!("#!/bin/sh\n: > begun\nwhile [ ! -e go ]; do sleep 0.02; done\n{then}\n"),
    );
}

fn become_the_server() -> String {
    format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_server"))
}

fn go(of: &Replaceable) {
    fs::write(of.server.folder().join("go"), "").expect("write into the server's folder");
}

/// Asks for every change during an upgrade: signals wait, commands are refused.
fn ask_during_an_upgrade(of: &Replaceable) {
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade started");
    for (signal, change) in [(SIGTTIN, "resize"), (SIGHUP, "reload")] {
        of.server.signal(signal);
        of.server.journal.wait_where("change waits", |event| event.text("change") == change);
    }
    for command in ["reload", "upgrade"] {
        let output = of.site.command(&of.server, &[command]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("an upgrade, to pid"), "{text}");
    }
}

fn changes_during_an_upgrade_are_made_by_the_heir(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let traffic = of.site.traffic();
    delay_heir(&of, &become_the_server());
    ask_during_an_upgrade(&of);
    go(&of);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    let resized = of.server.journal.wait_for("resized");
    assert_eq!(resized.number("lanes"), 3);
    of.server.journal.wait_where("reload done", |event| event.number("generation") == 2);
    assert_eq!(of.server.wait_exit(), 0);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
    send_signal(heir, SIGTERM);
    of.server.wait_gone();
}

fn changes_during_an_upgrade_that_fails_are_made_after_it(mode: Mode) {
    let mut of = Replaceable::start(mode);
    let traffic = of.site.traffic();
    delay_heir(&of, "exit 7");
    ask_during_an_upgrade(&of);
    of.site.text = NEW;
    of.site.write();
    go(&of);
    of.server.journal.wait_for("upgrade failed");
    let resized = of.server.journal.wait_for("resized");
    assert_eq!(resized.number("lanes"), 3);
    of.server.journal.wait_for("reload done");
    assert_eq!(of.site.get(), NEW);
    traffic.wait_answers(50);
    assert_no_failure(traffic);
}

/// What the server's status says, once it comes from this process.
fn status_of(of: &Replaceable, pid: i32) -> serde_json::Value {
    eventually("it tells its status", || {
        let output = of.site.command(&of.server, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["pid"] == pid).then_some(status)
    })
}

/// Asserts that there are so many lanes, and that each of them gets connections.
fn assert_lanes_served(of: &Replaceable, pid: i32, lanes: usize) {
    let accepted = || -> Vec<u64> {
        let status = status_of(of, pid);
        let lanes = status["lanes"].as_array().expect("lanes").iter();
        lanes.map(|lane| lane["accepted"].as_u64().expect("a number")).collect()
    };
    let before = accepted();
    assert_eq!(before.len(), lanes);
    for _ in 0..200 {
        of.site.get();
    }
    let more: Vec<u64> =
        accepted().iter().zip(&before).map(|(after, before)| after - before).collect();
    assert!(more.iter().all(|more| *more > 0), "{more:?}");
}

/// Four lanes, of which two have just begun to leave: for seconds yet, all connections are steered to two.
fn while_lanes_leave(mode: Mode) -> Replaceable {
    let of = Replaceable::start_of(mode, "", 4);
    for nth in 1..=2 {
        of.server.signal(SIGTTOU);
        of.server.journal.wait_nth("resized", nth);
    }
    of
}

fn an_upgrade_while_lanes_leave_serves_every_lane_of_the_heir(mode: Mode) {
    let of = while_lanes_leave(mode);
    of.server.signal(SIGUSR2);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    let lanes = status_of(&of, heir)["lanes"].as_array().map_or(0, Vec::len);
    assert_lanes_served(&of, heir, lanes);
}

fn an_upgrade_while_lanes_leave_serves_every_lane_of_another_configuration(mode: Mode) {
    let mut of = while_lanes_leave(mode);
    of.site.lanes = 3;
    of.site.write();
    of.server.signal(SIGUSR2);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    assert_lanes_served(&of, heir, 3);
    of.server.journal.wait_where("lane closed", |event| event.number("lane") == 3);
    assert_lanes_served(&of, heir, 3);
}

/// Has an heir with so many lanes fail in the moment before it would say that it serves.
fn fail_at_the_last_moment(of: &mut Replaceable, lanes: usize) {
    of.site.lanes = lanes;
    of.site.more = "server.backlog = 1\n".into();
    of.site.write();
    fs::write(of.server.folder().join("fail-ready"), "").expect("write");
    of.server.signal(SIGUSR2);
    let failed = of.server.journal.wait_for("upgrade failed");
    assert!(failed.text("reason").contains("exited with code 9"), "{failed:?}");
}

fn an_heir_with_fewer_lanes_that_fails_leaves_every_lane_served(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut of = Replaceable::start_of(mode, "", 4);
    fail_at_the_last_moment(&mut of, 1);
    let pid = of.server.pid();
    // What the heir had replaced by then is back.
    eventually("the pid file is its own again", || (of.pid_file() == pid).then_some(()));
    let folder = of.server.folder();
    assert_eq!(harness::links(folder), [folder.join("server.sock")]);
    let socket = std::os::unix::net::UnixStream::connect(&harness::links(folder)[0]);
    assert!(socket.is_ok(), "{socket:?}");
    assert_lanes_served(&of, pid, 4);
    let status = status_of(&of, pid);
    let lanes = status["lanes"].as_array().expect("lanes");
    assert!(lanes.iter().all(|lane| lane["backlog"].as_u64() > Some(1)), "{lanes:?}");
}

fn an_heir_with_more_lanes_that_fails_loses_no_connection(mode: Mode) {
    if skip_without_faults() {
        return;
    }
    let mut of = Replaceable::start_of(mode, "", 1);
    let traffic = of.site.traffic();
    delay_heir(&of, "exit 7");
    of.server.signal(SIGUSR2);
    of.server.journal.wait_for("upgrade started");
    go(&of);
    of.server.journal.wait_for("upgrade failed");
    // One whose workers don't get ready: its sockets are open by then.
    harness::replace_program(&of.binary, &format!("#!/bin/sh\n{}\n", become_the_server()));
    of.site.lanes = 4;
    of.site.write();
    fs::write(of.server.folder().join("hold-start"), "").expect("write");
    of.server.signal(SIGUSR2);
    let is_heirs = |event: &harness::Event| event.number("lane") == 3;
    of.server.journal.wait_where("worker started", is_heirs);
    traffic.wait_answers(200);
    let children = of.server.journal.named("worker started");
    send_signal(children.last().expect("a worker of the heir").pid(), SIGKILL);
    of.server.journal.wait_nth("upgrade failed", 2);
    traffic.wait_answers(200);
    assert_no_failure(traffic);
    assert_lanes_served(&of, of.server.pid(), 1);
}

fn a_killed_supervisor_leaves_its_heir_alone(mode: Mode) {
    let mut of = Replaceable::start(mode);
    of.server.signal(SIGUSR2);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    // Whether it has drained by now or not.
    of.server.kill_supervisor();
    assert_eq!(of.site.get(), OLD);
    assert!(process_state(heir).is_some());
}

fn an_heir_knows_the_supervisor_that_was_killed_before_it_served(mode: Mode) {
    let site = Site::new(mode);
    let manager = Manager::new(site.scratch.path());
    let binary = site.scratch.path().join("server");
    fs::hard_link(env!("CARGO_BIN_EXE_server"), &binary).expect("link the binary");
    let notify = manager.path.to_string_lossy().into_owned();
    let server = site.setup().binary(&binary).env("NOTIFY_SOCKET", &notify).start();
    let mut of = Replaceable { site, binary, server };
    manager.hear("READY=1");
    let old = of.server.pid();
    delay_heir(&of, &become_the_server());
    of.server.signal(SIGUSR2);
    eventually("the heir begins", || of.server.folder().join("begun").exists().then_some(()));
    // When it hears a signal after that, it has handed over what it has.
    of.server.signal(SIGHUP);
    of.server.journal.wait_for("change waits");
    of.server.kill_supervisor();
    go(&of);
    let received = of.server.journal.wait_for("upgrade received");
    assert_eq!(received.number("predecessor"), u64::from(old.unsigned_abs()), "{received:?}");
    // The one that would have told the manager is gone.
    let ready = manager.hear("READY=1");
    assert!(ready.contains(&format!("MAINPID={}\n", received.pid())), "{ready}");
    assert_eq!(of.site.get(), OLD);
    send_signal(received.pid(), SIGTERM);
    of.server.wait_gone();
}

fn the_first_term_after_a_hand_over_cuts_nothing_and_the_second_forces(mode: Mode) {
    let slow = "[[route]]\npath = \"/slower\"\ntext = \"slow\"\ndelay = \"1500ms\"\n\
                [[route]]\npath = \"/slowest\"\ntext = \"slow\"\ndelay = \"60s\"\n";
    let mut of = Replaceable::start_of(mode, slow, 1);
    let mut client = of.server.in_flight("GET /slower HTTP/1.1\r\nHost: a\r\n\r\n");
    of.server.signal(SIGUSR2);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    of.server.signal(SIGTERM);
    assert_eq!(client.response().text(), "slow");
    assert_eq!(of.server.wait_exit(), 0);
    of.server.journal.wait_for("drain goes on");
    // The heir in its turn is told twice, after it has handed over.
    let mut client = of.server.in_flight("GET /slowest HTTP/1.1\r\nHost: a\r\n\r\n");
    send_signal(heir, SIGUSR2);
    of.server.journal.wait_nth("upgrade done", 2);
    send_signal(heir, SIGTERM);
    of.server.journal.wait_nth("drain goes on", 2);
    send_signal(heir, SIGTERM);
    of.server.journal.wait_for("stop forced");
    client.expect_end();
}

fn an_upgrade_and_a_reload_keep_the_lanes_that_signals_made(mode: Mode) {
    let mut of = Replaceable::start(mode);
    of.server.signal(SIGTTIN);
    of.server.journal.wait_for("resized");
    of.site.text = NEW;
    of.site.write();
    let done = reload(&of.server);
    assert_eq!((done.name(), done.number("lanes")), ("reload done", 3));
    assert!(done.text("reason").contains("TTIN"), "{done:?}");
    let output = of.site.command(&of.server, &["upgrade"]);
    assert!(output.status.success(), "{output:?}");
    let heir = of.server.journal.wait_for("upgrade done").pid();
    assert_eq!(of.server.wait_exit(), 0);
    let lanes = |pid| status_of(&of, pid)["lanes"].as_array().map_or(0, Vec::len);
    assert_eq!(lanes(heir), 3);
    // Another number in the file is another wish.
    of.site.lanes = 1;
    of.site.write();
    let output = of.site.command(&of.server, &["reload"]);
    assert!(output.status.success(), "{output:?}");
    let lanes = status_of(&of, heir)["lanes"].as_array().map_or(0, Vec::len);
    assert_eq!(lanes, 1);
    send_signal(heir, SIGTERM);
    of.server.wait_gone();
}

fn totals_never_go_backwards(mode: Mode) {
    let of = Replaceable::start(mode);
    let totals = |pid: i32| {
        let totals = &status_of(&of, pid)["totals"];
        ["accepted", "requests", "restarts"].map(|name| totals[name].as_u64().expect("a number"))
    };
    let old = of.server.pid();
    // It is in flight until this test sends the end of it.
    let mut upload = of.server.connect();
    upload.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    of.server.signal(SIGTTIN);
    of.server.journal.wait_for("resized");
    of.server.journal.wait_where("worker ready", |event| event.number("lane") == 2);
    (0..30).for_each(|_| drop(of.site.get()));
    eventually("every request is counted", || (totals(old)[1] == 31).then_some(()));
    for nth in 2..=3 {
        of.server.signal(SIGTTOU);
        of.server.journal.wait_nth("resized", nth);
        assert_eq!(totals(old)[..2], [31, 31]);
    }
    send_signal(of.server.worker_pid(0), SIGKILL);
    of.server.journal.wait_for("worker exited");
    of.server.journal.wait_for("worker restarting");
    let before = totals(old);
    assert!(before[2] >= 1, "{before:?}");
    of.server.signal(SIGUSR2);
    let heir = of.server.journal.wait_for("upgrade done").pid();
    let after = totals(heir);
    assert!(after >= before && after[2] >= before[2], "{before:?} {after:?}");
    of.site.get();
    // Where one process hosts all lanes it was killed with them.
    let _ = upload.try_send("xGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the old one leaves", || {
        process_state(old).is_none_or(|state| state == 'Z').then_some(())
    });
    let all = before[1] + 1;
    eventually("what the old one did last is known", || (totals(heir)[1] >= all).then_some(()));
    send_signal(heir, SIGTERM);
    let stopped = of.server.journal.wait_where("stopped", |event| event.number("requests") >= all);
    assert!(stopped.number("connections") > 30, "{stopped:?}");
}

fn what_a_server_counts_that_two_have_followed_reaches_the_last(mode: Mode) {
    let mut of = Replaceable::start(mode);
    // A server waits for the first request of a connection that was never used.
    let mut unused = of.server.connect();
    let old = of.server.pid();
    let count = |pid: i32, name: &str| status_of(&of, pid)["totals"][name].as_u64();
    eventually("it is accepted", || (count(old, "accepted") == Some(1)).then_some(()));
    let mut upload = of.server.connect();
    upload.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    eventually("the request is counted", || (count(old, "requests") == Some(1)).then_some(()));
    of.server.signal(SIGUSR2);
    let second = of.server.journal.wait_for("upgrade done").pid();
    send_signal(second, SIGUSR2);
    let third = of.server.journal.wait_nth("upgrade done", 2).pid();
    // The second has nothing in flight: it is there for the first one's sake.
    eventually("the second one's workers leave", || {
        let children = children_of(second);
        children.iter().all(|pid| *pid == third || process_state(*pid) == Some('Z')).then_some(())
    });
    assert_eq!(unused.get("/").text(), OLD);
    upload.send("x");
    let two = || (count(third, "requests") == Some(2)).then_some(());
    eventually("what the first one did last is known", two);
    eventually("the second one leaves", || {
        process_state(second).is_none_or(|state| state == 'Z').then_some(())
    });
    assert_eq!(of.server.wait_exit(), 0);
    send_signal(third, SIGTERM);
    of.server.wait_gone();
}

/// A socket that listens as a service manager does.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind the manager's socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
        Manager { socket, path }
    }

    /// The next message.
    fn hear_next(&self) -> String {
        let mut buffer = [0; 1024];
        let count = self.socket.recv(&mut buffer).expect("a message to the manager");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// The next message that says `wanted`.
    fn hear(&self, wanted: &str) -> String {
        loop {
            let text = self.hear_next();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    }
}

fn a_service_manager_is_told_of_every_change(mode: Mode) {
    let site = Site::new(mode);
    let manager = Manager::new(site.scratch.path());
    let server = site.setup().env("NOTIFY_SOCKET", &manager.path.to_string_lossy()).start();
    assert!(manager.hear("READY=1").contains("STATUS=2 lanes serve"));
    server.signal(SIGHUP);
    assert!(manager.hear("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.hear("READY=1");
    site.scratch.write("site.toml", "what = 1\n");
    server.signal(SIGHUP);
    manager.hear("RELOADING=1");
    // Rejected, and serving.
    manager.hear("READY=1");
    site.write();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    // In this order: a manager may listen to the main process only.
    assert_eq!(manager.hear_next(), format!("MAINPID={heir}\n"));
    let ready = manager.hear_next();
    assert!(
        ready.starts_with(&format!("MAINPID={heir}\nREADY=1\nSTATUS=2 lanes serve")),
        "{ready}"
    );
    send_signal(heir, SIGTERM);
    manager.hear("STOPPING=1");
}

fn under_a_service_manager_a_server_that_stops_stays_for_the_one_before_it(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "[[route]]\npath = \"/slowest\"\ntext = \"slow\"\ndelay = \"60s\"\n".into();
    let manager = Manager::new(site.scratch.path());
    let mut server = site.setup().env("NOTIFY_SOCKET", &manager.path.to_string_lossy()).start();
    let old = server.pid();
    let _client = server.in_flight("GET /slowest HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    send_signal(heir, SIGTERM);
    server.journal.wait_for("drain done");
    let is_gone = |pid: i32| process_state(pid).is_none_or(|state| state == 'Z');
    eventually("its own workers have ended", || children_of(heir).is_empty().then_some(()));
    // At its end the manager would kill the other, which has a request in flight.
    assert!(!is_gone(heir) && !is_gone(old));
    send_signal(old, SIGTERM);
    server.journal.wait_for("drain goes on");
    send_signal(old, SIGTERM);
    server.wait_exit();
    eventually("nothing keeps it any more", || is_gone(heir).then_some(()));
}

fn a_service_manager_hears_that_the_loop_turns(mode: Mode) {
    let site = Site::new(mode);
    let manager = Manager::new(site.scratch.path());
    let setup = site.setup().env("NOTIFY_SOCKET", &manager.path.to_string_lossy());
    let _server = setup.env("WATCHDOG_USEC", "100000").start();
    for _ in 0..5 {
        manager.hear("WATCHDOG=1");
    }
}

/// Starts a server that is passed a socket as a service manager passes it.
fn activated(site: &Site, socket: TcpListener, through: &str) -> Setup {
    // The server is given it as its standard input; the shell puts it where the protocol wants it.
    let script =
        format!("exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec {through} \"$@\"");
    site.setup().stdin(socket).under(&["sh", "-c", &script, "sh"])
}

fn an_activated_socket_is_joined_by_the_other_lanes(mode: Mode) {
    let site = Site::new(mode);
    let socket = TcpListener::bind(site.listen[0]).expect("the manager's socket");
    let server = activated(&site, socket, "").start();
    if mode.accept == Accept::Reuseport {
        let event = server.journal.wait_for("socket activated");
        assert_eq!(event.text("accept"), "reuseport");
    }
    assert_eq!(server.addresses(), site.listen);
    for _ in 0..20 {
        assert_eq!(site.get(), OLD);
    }
    assert_eq!(harness::listeners_at(site.listen[0]), mode.sockets(2));
}

fn an_activated_socket_of_an_address_of_its_own_keeps_the_queue_of_its_unit(mode: Mode) {
    let site = Site::new(mode);
    let socket = TcpListener::bind("127.0.0.1:0").expect("the manager's socket");
    let address = socket.local_addr().expect("its address");
    let server = activated(&site, socket, "").start();
    let is_it = |event: &harness::Event| event.text("address") == address.to_string();
    let clamped = server.journal.wait_where("backlog clamped", is_it);
    assert!(clamped.text("remedy").starts_with("Backlog=4096 in its unit"), "{clamped:?}");
}

fn an_activated_socket_that_cannot_be_joined_is_shared(mode: Mode) {
    if !Uid::effective().is_root() || skip_without("setpriv") {
        return;
    }
    let others = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let binary = env!("CARGO_BIN_EXE_server");
    let test = Command::new("setpriv").args(others).args(["test", "-x", binary]).status();
    if !test.is_ok_and(|status| status.success()) {
        return harness::skipped("another user can't reach the binary");
    }
    let mut site = Site::new(mode);
    site.more = String::new();
    let socket = TcpListener::bind(site.listen[0]).expect("the manager's socket");
    let folder = site.scratch.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("open the folder");
    // Another user than the one that opened the socket may not join its port.
    let setup = activated(&site, socket, &format!("setpriv {}", others.join(" ")));
    fs::set_permissions(setup.scratch().path(), fs::Permissions::from_mode(0o777))
        .expect("open it");
    let server = setup.start();
    if mode.accept == Accept::Reuseport {
        let event = server.journal.wait_for("socket activated");
        assert_eq!(event.text("accept"), "shared", "{event:?}");
    }
    let traffic = site.traffic();
    traffic.wait_answers(100);
    assert_eq!(reload(&server).name(), "reload done");
    traffic.wait_answers(100);
    assert_no_failure(traffic);
    assert_eq!(harness::listeners_at(site.listen[0]), 1);
}

fn workers_run_as_the_user_and_the_supervisor_does_not(mode: Mode) {
    if !Uid::effective().is_root() {
        return harness::skipped("only root can start workers as somebody else");
    }
    let mut site = Site::new(mode);
    site.more = "supervisor.user = \"nobody\"\n".into();
    let server = site.start();
    let worker = server.worker_pid(0);
    let uid = |pid: i32, name: &str| status_field(&format!("/proc/{pid}/status"), name);
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("nobody");
    let expected = |id: u32| Some(format!("{id}\t{id}\t{id}\t{id}"));
    assert_eq!(uid(worker, "Uid"), expected(nobody.uid.as_raw()));
    assert_eq!(uid(worker, "Gid"), expected(nobody.gid.as_raw()));
    assert_eq!(uid(server.pid(), "Uid"), expected(0));
    assert_eq!(site.get(), OLD);
    send_signal(worker, SIGKILL);
    server.journal.wait_where("worker exited", |event| event.number("lane") == 0);
    eventually("a new one serves", || (server.worker_pid(0) != worker).then_some(()));
    assert_eq!(uid(server.worker_pid(0), "Uid"), expected(nobody.uid.as_raw()));
    assert_eq!(uid(server.worker_pid(0), "NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(uid(server.worker_pid(0), "CapBnd"), Some("0".repeat(16)));
    // The signal of its parent's death survived the change of user.
    let mut server = server;
    server.kill_supervisor();
    server.wait_gone();
}

fn an_unknown_user_is_an_error(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = "supervisor.user = \"nobody-of-this-name\"\n".into();
    let mut server = site.setup().spawn();
    assert_eq!(server.wait_exit(), 1);
    let failed = server.journal.wait_for("could not start");
    assert!(failed.text("reason").contains("there is no user"), "{failed:?}");
}

fn without_a_place_for_its_socket_it_serves_all_the_same(mode: Mode) {
    // No user may make a file there, not even root: as on a read-only file system.
    let mut server = Setup::new(mode).env("XDG_RUNTIME_DIR", "/proc/self").start();
    let told = server.journal.wait_for("no command socket");
    assert!(told.text("remedy").starts_with("name a place with --socket PATH"), "{told:?}");
    assert_eq!(server.get("/").status, 200);
    server.signal(SIGHUP);
    server.journal.wait_for("reload done");
    // One that had none is followed by one that has none.
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    assert_eq!(server.wait_exit(), 0);
    assert_eq!(server.get("/").status, 200);
    send_signal(heir, SIGTERM);
    server.wait_gone();
}

#[test]
fn a_variable_that_names_no_socket_of_a_supervisor_is_refused_with_a_remedy() {
    // 4 would be the supervisor's own epoll, if it were believed.
    for number in ["4", "2", "-1", "four"] {
        let site = Site::new(Mode::THREADS);
        let mut server = site.setup().env("LANEWAY_UPGRADE", number).spawn();
        assert_eq!(server.wait_exit(), 1, "{number}");
        let event = server.journal.wait_for("could not start");
        let reason = event.text("reason");
        assert!(reason.contains(&format!("LANEWAY_UPGRADE is {number:?}")), "{reason}");
        assert!(reason.contains("unset it"), "{reason}");
    }
}
