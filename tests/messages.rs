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

/// What `server check` says of a file called `c.toml` with this in it: without the empty lines of the frame, and the
/// number of errors at the end.
fn said_of(toml: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.toml"), toml).expect("write the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let command = command.args(["check", "-c", "c.toml"]).current_dir(folder.path());
    let output = command.output().expect("the command");
    assert_eq!(output.status.code(), Some(2), "{toml}: {output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    let (errors, _) = text.rsplit_once("\n\nthe configuration is not valid: ").expect("the end");
    let lines = errors.lines().filter(|line| !line.is_empty() && *line != "  |");
    lines.collect::<Vec<_>>().join("\n")
}

/// Asserts that the one error of `toml` is `title` at `place` (line and column), with `help`.
#[track_caller]
fn assert_one_error(toml: &str, place: &str, title: &str, help: &str) {
    let said = said_of(toml);
    let first = format!("error: {title}\n --> c.toml:{place}\n");
    let last = format!("\n  = help: {help}");
    assert!(said.starts_with(&first) && said.ends_with(&last), "{toml}\n--- says:\n{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

/// Asserts that the one error of `toml` has `label` at its caret.
#[track_caller]
fn assert_label(toml: &str, label: &str) {
    let said = said_of(toml);
    let has_label = said.lines().any(|line| line.trim_end().ends_with(&format!("^ {label}")));
    assert!(has_label, "{toml}\n--- says:\n{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

#[test]
fn an_ipv6_address_without_brackets_is_written_with_the_port_that_was_meant() {
    let cases = [
        ("::1:8080", "[::1]:8080"),
        ("::1", "[::1]:8080"),
        (":::8080", "[::]:8080"),
        ("::8080", "[::]:8080"),
        ("[::1:8080", "[::1]:8080"),
        ("::1]:8080", "[::1]:8080"),
        ("2001:db8::1:443", "[2001:db8::1]:443"),
        ("1:2:3:4:5:6:7:8080", "[1:2:3:4:5:6:7:8080]:8080"),
        ("fe80::a", "[fe80::a]:8080"),
    ];
    for (address, written) in cases {
        let title = format!(
            "`server.listen`: \"{address}\" is no address: an IPv6 address needs brackets, and a port behind them"
        );
        let toml = format!("[server]\nlisten = [\"{address}\"]\n");
        assert_one_error(&toml, "2:11", &title, &format!("write \"{written}\""));
    }
    let more = [
        (
            "fe80::1%eth0:80",
            "the interface of a link-local address is written as its number",
            "write \"[fe80::1%2]:8080\"; `ip link` shows the numbers",
        ),
        (
            "${HOST}:80",
            "variables are not replaced in a configuration",
            "the variable LANEWAY_SERVER__LISTEN sets it from the environment",
        ),
        (
            "127.0.0.1 8080",
            "it has white space",
            "such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"",
        ),
    ];
    for (address, what, help) in more {
        let title = format!("`server.listen`: \"{address}\" is no address: {what}");
        assert_one_error(&format!("[server]\nlisten = \"{address}\"\n"), "2:10", &title, help);
    }
}

#[test]
fn a_key_without_a_value_is_told_so() {
    let help = "write count = and the value; `server show-config` prints each key with its value";
    let cases = [
        ("[workers]\ncount =", "2:8"),
        ("[workers]\ncount = \nmode = \"threads\"\n", "2:9"),
        ("[workers]\ncount = # a comment\n", "2:9"),
        ("[workers]\ncount = # a comment", "2:9"),
        ("[workers]\ncount\n", "2:6"),
        ("[workers]\ncount", "2:6"),
    ];
    for (toml, place) in cases {
        assert_one_error(toml, place, "`count` has no value", help);
    }
}

#[test]
fn the_name_of_a_table_is_told_how_it_is_written() {
    let open = |name: &str| format!("the name of the table `{name}` is not closed");
    let cases = [
        ("[server\nbacklog = 3\n", "1:8", open("server"), "write [server]"),
        ("[server", "1:8", open("server"), "write [server]"),
        ("[server # here\n", "1:8", open("server"), "write [server]"),
        ("[[route]\npath = \"/\"\n", "1:9", open("route"), "write [[route]]"),
        ("[[route\npath = \"/\"\n", "1:8", open("route"), "write [[route]]"),
        ("[route\npath = \"/\"\n", "1:7", open("route"), "write [[route]]"),
        (
            "[route]]\npath = \"/\"\n",
            "1:8",
            "the name of the table `route` has too many brackets".to_owned(),
            "write [[route]]",
        ),
        (
            "[[route]] path = \"/\"\n",
            "1:11",
            "something stands behind the name of the table [[route]]".to_owned(),
            "the keys of a table begin in the next line",
        ),
        (
            "[ser ver]\n",
            "1:5",
            "the name of a table has letters, digits, `-` and `_`".to_owned(),
            "such as [server]",
        ),
    ];
    for (toml, place, title, help) in cases {
        assert_one_error(toml, place, &title, help);
    }
}

#[test]
fn a_duration_that_is_none_is_told_what_it_is_and_which_there_are() {
    // (value, what of it is wrong)
    let cases = [
        ("\"1y\"", "is longer than 365d, the most"),
        ("\"366d\"", "is longer than 365d, the most"),
        ("\"99999999999s\"", "is longer than 365d, the most"),
        ("\"99999999999999999999999s\"", "is longer than 365d, the most"),
        ("\"-1s\"", "is no duration: it is negative"),
        ("-1", "is no duration: it is negative"),
        ("-1.5", "is no duration: it is negative"),
        ("\"0s\"", "is shorter than 1ms, the least"),
        ("\"1us\"", "is no whole number of milliseconds"),
        ("\"1M\"", "has the unit of a month: a minute is written m"),
        ("\"soon\"", "is no duration"),
        ("\"\"", "is no duration"),
        ("\"1 x\"", "is no duration"),
        ("\"s\"", "is no duration"),
    ];
    let forms =
        "write a number with a unit (ms, s, m, h, d), such as \"250ms\", \"30s\" or \"1h 30m\":";
    for (value, what) in cases {
        let shown = value.trim_matches('"');
        let toml = format!("[timeouts]\nbody = {value}\n");
        let title = format!("`timeouts.body`: \"{shown}\" {what}");
        assert_one_error(&toml, "2:8", &title, &format!("{forms} from 1ms to 365d"));
    }
    let title = "`supervisor.watchdog`: \"1ms\" is shorter than 100ms, the least";
    let help = format!("{forms} from 100ms to 365d, or \"0s\" for never");
    assert_one_error("[supervisor]\nwatchdog = \"1ms\"\n", "2:12", title, &help);
}

#[test]
fn a_size_that_is_none_is_told_what_it_is_and_which_there_are() {
    let cases = [
        ("\"1y\"", "is no size"),
        ("\"\"", "is no size"),
        ("\"64 bytes\"", "is no size"),
        ("\"-1KiB\"", "is no size: it is negative"),
        ("-1", "is no size: it is negative"),
        ("\"17MiB\"", "is more than 16MiB, the most"),
        ("\"99999999999999999999999GiB\"", "is more than 16MiB, the most"),
        ("16777217", "is more than 16MiB, the most"),
        ("\"255B\"", "is less than 256B, the least"),
        ("0", "is less than 256B, the least"),
    ];
    let help = "write a number of bytes, or one with a unit (KiB, MiB, GiB; kB, MB, GB in steps of 1000), such as \
                \"64KiB\": from 256B to 16MiB";
    for (value, what) in cases {
        let toml = format!("[limits]\nheader_bytes = {value}\n");
        let title = format!("`limits.header_bytes`: {value} {what}");
        assert_one_error(&toml, "2:16", &title, help);
    }
}

#[test]
fn what_stands_twice_is_shown_with_the_first_wherever_that_is() {
    const ROUTE: &str = "[[route]]\npath = \"/\"\n";
    // (text, what stands twice, lines and columns of the second and of the first, what to do)
    let cases = [
        ("[server]\n[log]\n[server]\n", "server", (3, 2), (1, 2), "put its keys there"),
        ("[server]\n[log]\n[\"server\"]\n", "server", (3, 2), (1, 2), "put its keys there"),
        ("server.backlog = 3\n[server]\n", "server", (2, 2), (1, 1), "put its keys there"),
        ("server = { backlog = 3 }\n[server]\n", "server", (2, 2), (1, 1), "put its keys there"),
        (
            "[route]\npath = \"/\"\n[[route]]\npath = \"/b\"\n",
            "route",
            (3, 3),
            (1, 2),
            "each is written [[route]], if there are several",
        ),
        (
            &format!(
                "{ROUTE}headers.a = \"1\"\n{ROUTE}headers.b = \"1\"\n[route.headers]\nc = \"1\"\n"
            ),
            "headers",
            (7, 8),
            (6, 1),
            "put its keys there",
        ),
        (
            "server = { backlog = 3, backlog = 4 }\n",
            "backlog",
            (1, 25),
            (1, 12),
            "leave one of them out",
        ),
        (
            &format!("{ROUTE}headers = {{\n a = \"1\",\n a = \"2\" }}\n"),
            "a",
            (5, 2),
            (4, 2),
            "leave one of them out",
        ),
        (
            "route = [{ path = \"/\", path = \"/b\" }]\n",
            "path",
            (1, 24),
            (1, 12),
            "leave one of them out",
        ),
        (
            &format!("{ROUTE}{ROUTE}path = \"/b\"\n"),
            "path",
            (5, 1),
            (4, 1),
            "leave one of them out",
        ),
    ];
    for (toml, name, (line, column), (first_line, first_column), what) in cases {
        let said = said_of(toml);
        let start = format!("error: `{name}` stands twice\n --> c.toml:{line}:{column}\n");
        assert!(said.starts_with(&start) && said.contains(what), "{toml}\n--- says:\n{said}");
        let shown = |text: &str| said.lines().find(|line| line.contains(text)).map(str::to_owned);
        let first = shown("here first").expect("the first");
        let at =
            |line: &str| line.find('-').or(line.find('|').filter(|at| *at > 4)).map(|at| at - 3);
        // Labels in one line stand below each other, led to their places by bars.
        let column_is_it = if line == first_line && !first.contains('-') {
            said.lines().any(|line| line.starts_with("  | ") && at(line) == Some(first_column))
        } else {
            at(&first) == Some(first_column)
        };
        assert!(column_is_it, "{said}");
        let begins = format!("{first_line} | ");
        assert!(said.lines().any(|line| line.starts_with(&begins)), "{said}");
    }
    let both = said_of("server.listen = \"a:1\"\n[server]\nlisten = \"b:1\"\n");
    let expected = "\
error: `server` stands twice
 --> c.toml:2:2
1 | server.listen = \"a:1\"
  | ------ here first
2 | [server]
  |  ^^^^^^ put its keys there
error: `listen` stands twice
 --> c.toml:3:1
1 | server.listen = \"a:1\"
  |        ------ here first
2 | [server]
3 | listen = \"b:1\"
  | ^^^^^^ leave one of them out";
    assert_eq!(both, expected, "\n--- says:\n{both}");
}

#[test]
fn what_other_languages_write_is_told_how_toml_has_it() {
    const ROUTE: &str = "[[route]]\npath = \"/\"\n";
    let behind_text = "write text = \"…\", with \\\" for each \" that is part of the text; if what follows is a key, it \
                       begins in the next line";
    let commas = "values of a list, and keys in braces, are separated by commas";
    let comment = "a comment begins with #";
    let ends = "leave it out: a line ends by itself";
    // (text, line and column, what is wrong, what to do)
    let cases = [
        ("[server]\nlisten 8080;\n", "2:8", "`listen` has no equals sign", "write listen = 8080"),
        (
            "[server]\nlisten a:80\n",
            "2:8",
            "`listen` has no equals sign",
            "write listen = \"a:80\"",
        ),
        ("[server]\nbacklog := 3\n", "2:9", "`:=` is no equals sign", "write backlog = 3"),
        (
            "[server]\nbacklog == 3\n",
            "2:10",
            "there are two equals signs",
            "one stands between a key and its value",
        ),
        ("[server]\nbacklog = 3;\n", "2:12", "`;` stands behind a value", ends),
        ("[server]\nlisten = \"a:1\",\n", "2:15", "`,` stands behind a value", ends),
        ("[server]\nlisten = [\"a:1\" \"b:1\"]\n", "2:17", "a comma is missing", commas),
        ("[server]\nlisten = [\"a:1\"; \"b:1\"]\n", "2:16", "`;` is no comma", commas),
        ("[server]\nbacklog = 1,000\n", "2:12", "a number has no commas", "write backlog = 1000"),
        ("[server]\nbacklog = 010\n", "2:11", "a number begins without zeros", "leave them out"),
        ("[server]\n// x\nbacklog = 3\n", "2:1", "`//` begins no comment", comment),
        ("[server]\n; x\n", "2:1", "`;` begins no comment", comment),
        (
            "[workers]\nmax connections = 3\n",
            "2:5",
            "`max connections` is no key: it has white space",
            "write max_connections = 3",
        ),
        (
            &format!("{ROUTE}text = \"say \"hi\"\"\n"),
            "3:14",
            "something stands behind the \" that ends the text",
            behind_text,
        ),
        (
            &format!("{ROUTE}text = 'it's'\n"),
            "3:12",
            "something stands behind the ' that ends the text",
            behind_text,
        ),
        (
            &format!("{ROUTE}text = \"C:\\d\"\n"),
            "3:12",
            "`\\d` is no escape",
            "write \\\\ for a backslash, or the text in single quotes, where a backslash is one",
        ),
        (
            &format!("{ROUTE}text = \"a\nb\"\n"),
            "3:10",
            "a text is not closed",
            "it ends with \" in its own line; one of several lines stands between \"\"\" and \"\"\"",
        ),
        (&format!("{ROUTE}json = null\n"), "3:8", "TOML has no null", "leave the key out"),
        (
            &format!("{ROUTE}json = {{ a = null }}\n"),
            "3:14",
            "TOML has no null",
            "leave the key out",
        ),
        (
            &format!("{ROUTE}json = {{ \"a\": 1 }}\n"),
            "3:13",
            "`:` is how JSON writes a key",
            "TOML has an equals sign: { key = value }",
        ),
    ];
    for (toml, place, title, help) in cases {
        assert_one_error(toml, place, title, help);
    }
    for (toml, language) in [
        ("[Unit]\nDescription=x\n[Service]\nExecStart=/x\n", "a unit of systemd"),
        ("module.exports = {\n  apps: [{ name: \"x\" }]\n}\n", "JavaScript"),
        ("<VirtualHost *:80>\n</VirtualHost>\n", "Apache's configuration"),
    ] {
        let said = said_of(toml);
        let title = format!("error: this looks like {language}; laneway's configuration is TOML\n");
        assert!(said.starts_with(&title), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}

#[test]
fn a_value_of_another_type_is_told_how_it_is_written() {
    const ROUTE: &str = "[[route]]\npath = \"/\"\n";
    let routes = "write [[route]] and its keys below it, or set the whole list: route=[{path=\"/\", text=\"hello\"}]";
    let cases = [
        (
            "[workers]\npin = \"yes\"\n",
            "2:7",
            "`workers.pin`: invalid type: string \"yes\", expected true or false",
            "write pin = true",
        ),
        (
            "[workers]\npin = 0\n",
            "2:7",
            "`workers.pin`: invalid type: integer `0`, expected true or false",
            "write pin = false",
        ),
        (
            &format!("{ROUTE}text = 404\n"),
            "3:8",
            "`route.text`: invalid type: integer `404`, expected a text in quotes",
            "write text = \"404\"",
        ),
        (
            &format!("{ROUTE}text = \"\"\nheaders = [\"a: b\"]\n"),
            "4:11",
            "`route.headers`: invalid type: list, expected a table",
            "write headers = { X-Name = \"value\" }",
        ),
        ("[route]\npath = \"/\"\n", "1:1", "`route` is a list of tables", routes),
    ];
    for (toml, place, title, help) in cases {
        assert_one_error(toml, place, title, help);
    }
}

#[test]
fn what_has_another_name_elsewhere_is_told_its_name_here() {
    const ROUTE: &str = "[[route]]\npath = \"/\"\n";
    let cases = [
        ("[log]\nlevel = \"warning\"\n", "did you mean `warn`?"),
        ("[server]\nport = 80\n", "`server.listen` has host and port: listen = \"127.0.0.1:8080\""),
        ("[server]\nListen = \"a:1\"\n", "did you mean `listen`?"),
        ("worker_processes = 4\n", "did you mean `workers.count`?"),
        ("[workers]\ninstances = 4\n", "did you mean `workers.count`?"),
        ("[server]\nkeepalive_timeout = \"65s\"\n", "did you mean `timeouts.keep_alive`?"),
        ("[server]\nroot = \"/srv\"\n", "a route serves the files of a folder: files = \"public\""),
        ("[tls]\ncert = \"a\"\n", "laneway speaks no TLS: a proxy before it has to"),
        (
            "[log]\nfile = \"x\"\n",
            "the log goes to standard error, which systemd, a container or the shell keeps",
        ),
        (
            "[[location]]\npath = \"/\"\n",
            "each path that is answered has a table [[route]], with path and, if wanted, host",
        ),
        (
            &format!("{ROUTE}body = \"x\"\n"),
            "what a route answers is its text, json, body_file, bytes, files, redirect or echo",
        ),
        (
            &format!("{ROUTE}proxy_pass = \"http://a\"\n"),
            "laneway passes no requests on to other servers",
        ),
        ("LANEWAY_WORKERS__COUNT = 4\n", "in a file it is `workers.count`"),
    ];
    for (toml, label) in cases {
        assert_label(toml, label);
    }
}

#[test]
fn a_command_of_another_server_is_told_what_it_is_here() {
    let cases: [(&[&str], &str); 5] = [
        (&["start"], "'server run' starts the server"),
        (&["-t"], "'server check' validates the configuration"),
        (&["check", "-p", "80"], "'--listen 127.0.0.1:8080' names address and port"),
        (&["check", "c.toml"], "a configuration file is named with '--config c.toml'"),
        (&["--daemon"], "the server stays in the foreground; systemd or '&' puts it behind"),
    ];
    for (arguments, tip) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_server")).args(arguments).output();
        let output = output.expect("the command");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("\n\n  tip: {tip}\n\n")), "{text}");
    }
}

#[test]
fn a_hundred_errors_are_told_and_of_more_that_there_are_some() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.toml");
    let tables = |count: usize| format!("[server]\n{}", "backlog 4\n".repeat(count));
    let keys = |count: usize| (0..count).map(|key| format!("[x{key}]\n")).collect::<String>();
    let twice = |count: usize| "[server]\n".repeat(count + 1);
    let texts: [&dyn Fn(usize) -> String; 3] = [&tables, &keys, &twice];
    let cases = [
        (100, 100, "100 errors"),
        (101, 101, "more than 100 errors"),
        (30_000, 101, "more than 100 errors"),
    ];
    for text in texts {
        for (count, told, counted) in cases {
            std::fs::write(&file, text(count)).expect("write the configuration");
            let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
            let output = command.arg("check").arg("-c").arg(&file).output().expect("the command");
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), told);
            let more = "\n\nerror: there are more errors, which are not shown\n";
            assert_eq!(said.contains(more), count > 100, "{count}");
            assert!(said.ends_with(&format!("\n\nthe configuration is not valid: {counted}\n")));
        }
    }
}
