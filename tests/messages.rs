//! What a server tells people: a warning once, an address that can't be, lines on a terminal.

mod harness;

use std::fs::File;
use std::io::Read;
use std::process::Command;

use nix::pty::openpty;
use nix::sys::signal::{SIGTERM, SIGUSR2};

use harness::{Mode, Setup, Site, allowed_cpus, in_every_mode, reload, skip_without};

in_every_mode!(a_reload_repeats_no_warning,);

fn a_reload_repeats_no_warning(mode: Mode) {
    let setup =
        Setup::new(mode).route("/users/:id", "text = \"\"").env("LANEWAY_WORKERS_COUNT", "9");
    let server = setup.lanes(allowed_cpus().len() + 1).start();
    let warned = |what: &str| {
        let mut events = server.journal.named("configuration warning");
        events.retain(|event| event.text("reason").contains(what));
        events
    };
    let path = &warned("`:id` in a route's path is no parameter: it matches itself alone")[0];
    assert!(path.text("place").ends_with("test-config.toml:6:8"), "{path:?}");
    assert_eq!(path.text("remedy"), "path = \"/users/*\" takes everything below /users/");
    let variable = &warned("the variable LANEWAY_WORKERS_COUNT is no setting, and is ignored")[0];
    assert!(variable.text("remedy").starts_with("did you mean LANEWAY_WORKERS__COUNT? "));
    assert_eq!(server.journal.named("more lanes than CPUs").len(), 1);
    for _ in 0..2 {
        assert_eq!(reload(&server).name(), "reload done");
    }
    assert_eq!(server.journal.named("configuration warning").len(), 2);
    assert_eq!(server.journal.named("more lanes than CPUs").len(), 1);
    // One that went away is told again when it comes back.
    let file = server.journal.named("configuration warning");
    let file = file.iter().find_map(|event| event.text("place").strip_suffix(":6:8"));
    let file = std::path::PathBuf::from(file.expect("the place of the route"));
    let text = std::fs::read_to_string(&file).expect("the configuration");
    for (text, warnings) in [(text.replace("/users/:id", "/users/*"), 2), (text.clone(), 3)] {
        std::fs::write(&file, text).expect("write the configuration");
        assert_eq!(reload(&server).name(), "reload done");
        assert_eq!(server.journal.named("configuration warning").len(), warnings);
    }
}

#[test]
fn an_upgrade_from_a_terminal_says_that_it_leaves_the_foreground() {
    if skip_without("setsid") {
        return;
    }
    let terminal = openpty(None, None).expect("a terminal");
    let setup = Setup::new(Mode::THREADS).set("supervisor.pid_file", "server.pid");
    let server = setup.stdin(terminal.slave).under(&["setsid", "--ctty"]).start();
    server.signal(SIGUSR2);
    let done = server.journal.wait_for("upgrade done");
    let left = server.journal.wait_for("no longer in the foreground");
    assert_eq!(left.pid(), done.pid());
    let expected =
        format!("Ctrl-C does not reach it: stop it with `kill {}` or `server stop`", done.pid());
    assert_eq!(left.text("remedy"), expected);
}

#[test]
fn an_upgrade_without_a_terminal_says_nothing_of_one() {
    // In a session of its own, whatever the tests were started from.
    if skip_without("setsid") {
        return;
    }
    let server = Setup::new(Mode::THREADS).under(&["setsid"]).start();
    server.signal(SIGUSR2);
    server.journal.wait_for("upgrade done");
    server.journal.wait_for("drain started");
    assert!(server.journal.named("no longer in the foreground").is_empty());
}

/// What a command that fails writes on a terminal that is called `term`.
fn on_a_terminal(term: &str, colour: Option<&str>) -> String {
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["check", "--set", "log.level=loud"]).env("TERM", term).env_remove("NO_COLOR");
    command.envs(colour.map(|value| ("NO_COLOR", value)));
    let mut child = command.stderr(terminal.slave).spawn().expect("start the server");
    drop(command); // With it this process's copy of the terminal's end goes.
    let mut text = Vec::new();
    // EIO: the other end is closed.
    let _ = File::from(terminal.master).read_to_end(&mut text);
    child.wait().expect("its end");
    String::from_utf8(text).expect("text")
}

#[test]
fn colours_are_for_terminals_that_show_them() {
    // (TERM, NO_COLOR, whether there are any)
    let cases = [
        ("xterm", None, true),
        ("dumb", None, false),
        ("xterm", Some("1"), false),
        ("xterm", Some(""), true),
    ];
    for (term, colour, expected) in cases {
        let text = on_a_terminal(term, colour);
        assert!(text.contains("unknown word `loud`"), "{text}");
        assert_eq!(text.contains('\x1b'), expected, "{term} {colour:?}: {text:?}");
    }
}

#[test]
fn stop_says_what_it_waits_for_and_when_it_is_done() {
    let site = Site::new(Mode::THREADS);
    let mut server = site.start();
    let output = site.command(&server, &["stop"]);
    assert!(output.status.success(), "{output:?}");
    let expected =
        format!("pid {} finishes what is in flight, for 30s at most\nstopped\n", server.pid());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn stop_says_that_the_server_was_stopped_by_force() {
    let site = Site::new(Mode::THREADS);
    let mut server = site.start();
    let mut client = server.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| site.command(&server, &["stop"]));
        server.journal.wait_for("drain started");
        server.signal(SIGTERM);
        let output = stop.join().expect("the command");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let expected = "it ended with code 1; its log says why\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    });
    assert_eq!(server.wait_exit(), 1);
}

#[test]
fn an_address_that_the_machine_does_not_have_is_told_without_a_number() {
    // TEST-NET-2 of RFC 5737: an interface has it only by mistake.
    let mut server = Setup::new(Mode::THREADS).set("server.listen", "198.51.100.1:0").spawn();
    assert_eq!(server.wait_exit(), 1);
    let failed = server.journal.wait_for("could not start");
    let expected = "cannot listen on 198.51.100.1:0: no interface of this machine has that address; `ip address` \
                    shows those it has, and 0.0.0.0 or [::] stands for all";
    assert_eq!(failed.text("reason"), expected);
}
