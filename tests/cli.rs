//! The command line: what each command prints, where, and with which exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::process::{Command, Output, Stdio};

/// Runs the server's binary in an empty folder, without any of its variables.
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANEWAY_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_says_what_would_run() {
    let output = run(&["check", "--set", "workers.count=3", "--set", "workers.mode=processes"]);
    assert_eq!(output.status.code(), Some(0));
    let cpus = match allowed_cpus() {
        1 => "1 CPU".to_owned(),
        cpus => format!("{cpus} CPUs"),
    };
    let expected = "\x20 file    built-in defaults\n\
                    \x20 listen  127.0.0.1:8080\n\
                    \x20 lanes   3 (workers.count asks for 3; CPUS allowed)\n\
                    \x20 mode    processes (one for each lane)\n\
                    \x20 accept  reuseport (each lane from its own sockets)\n\
                    \x20 engine  native\n\
                    \x20 driver  auto (io_uring where the kernel allows it, else epoll)\n\
                    \x20 routes  1\n\
                    \x20   /                        200 19 bytes\n\
                    \n\
                    the configuration is valid: built-in defaults\n";
    assert_eq!(text(&output.stdout), expected.replace("CPUS", &cpus));
    // What it warns of depends on the machine.
    assert!(!text(&output.stderr).contains("error"), "{}", text(&output.stderr));
}

/// How many CPUs this process may use.
fn allowed_cpus() -> usize {
    let mask = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    (0..nix::sched::CpuSet::count()).filter(|cpu| mask.is_set(*cpu).unwrap_or(false)).count()
}

/// Asserts that `check` fails with these settings as a start would, and returns what it says.
fn check_fails(settings: &[&str]) -> String {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let output = run(&["check"].into_iter().chain(set).collect::<Vec<_>>());
    let told = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!text(&output.stdout).contains("is valid"), "{}", text(&output.stdout));
    assert!(told.ends_with("\nthe server would not start here: 1 error\n"), "{told}");
    let error = told.split("\n\n").find(|part| part.starts_with("error: "));
    error.unwrap().strip_prefix("error: ").unwrap().to_owned()
}

#[test]
fn check_finds_what_would_keep_the_server_from_starting() {
    // (settings, what it says)
    let cases = [
        (
            &["supervisor.user=nobody-of-this-name"][..],
            "cannot use supervisor.user: there is no user \"nobody-of-this-name\"",
        ),
        (
            &["supervisor.group=no-such-group"],
            "cannot use supervisor.group: there is no group \"no-such-group\"",
        ),
        (
            &["server.listen=['0.0.0.0:8080', '127.0.0.1:8080']"],
            "cannot listen on 127.0.0.1:8080: 0.0.0.0:8080 of server.listen takes the port, too; leave one of them out",
        ),
        (
            // TEST-NET-2 of RFC 5737: an interface has it only by mistake.
            &["server.listen=198.51.100.1:8080"],
            "cannot listen on 198.51.100.1:8080: no interface of this machine has that address; `ip address` \
             shows those it has, and 0.0.0.0 or [::] stands for all",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(check_fails(settings), expected);
    }
    let unresolved = check_fails(&["server.listen=no-such-host.invalid:8080"]);
    let expected = "cannot listen on no-such-host.invalid:8080: the name does not resolve: ";
    assert!(unresolved.starts_with(expected), "{unresolved}");
}

#[test]
fn check_takes_no_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("server.listen={}", taken.local_addr().unwrap());
    let output = run(&["check", "--set", &listen]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn check_tells_each_way_to_accept_and_each_driver() {
    for setting in ["accept=shared", "accept=handoff", "driver=epoll", "driver=io_uring"] {
        let output = run(&["check", "--set", &format!("workers.{setting}")]);
        assert_eq!(output.status.code(), Some(0), "{setting}");
        let (key, value) = setting.split_once('=').unwrap();
        let line = format!("\n  {key:<7} {value}");
        assert!(text(&output.stdout).contains(&line), "{}", text(&output.stdout));
        assert!(!text(&output.stdout).contains("warning"), "{setting}");
    }
}

#[cfg(feature = "may")]
#[test]
fn check_tells_of_the_engine_and_warns_as_its_start_does() {
    let may = ["--set", "workers.engine=may", "--set", "workers.mode=processes"];
    let output = run(&[&["check"], &may[..]].concat());
    assert_eq!(output.status.code(), Some(0));
    let words = "\n  engine  may (may_minihttp)\n  driver  the engine's own\n";
    assert!(text(&output.stdout).contains(words), "{}", text(&output.stdout));
    let told = text(&output.stderr);
    for words in [
        "warning: this engine is for comparison: it has no timeouts and no limits on heads, ",
        "; [timeouts], server.backlog and workers.driver have no effect\n  = help: docs/engines.md ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_wrong_configuration_is_told_on_standard_error_with_code_2_by_every_command() {
    for command in ["check", "run", "show-config"] {
        let output = run(&["--set", "workers.count=0", command, "--set", "log.level=loud"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
        let errors = text(&output.stderr);
        assert!(errors.starts_with("error: `workers.count`: invalid value"), "{errors}");
        assert!(errors.contains("error: `log.level`: unknown word `loud`"), "{errors}");
        assert!(errors.ends_with("the configuration is not valid: 2 errors\n"), "{errors}");
        assert!(!errors.contains('\x1b'), "no colour where there is no terminal");
    }
}

#[test]
fn wrong_usage_is_told_with_code_2() {
    for arguments in
        [&["--conifg", "x"][..], &["serve"], &["completions"], &["completions", "tcsh-ish"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{arguments:?}");
    }
}

#[test]
fn a_file_that_does_not_exist_is_named() {
    let output = run(&["check", "--config", "absent.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    assert!(
        errors.starts_with("error: cannot read absent.toml: No such file or directory"),
        "{errors}"
    );
}

#[test]
fn show_config_prints_every_default() {
    let output = run(&["show-config"]);
    assert_eq!(output.status.code(), Some(0));
    let printed: toml::Table = text(&output.stdout).parse().unwrap();
    assert_eq!(printed["timeouts"]["keep_alive"].as_str(), Some("75s"));
    assert_eq!(printed["limits"]["header_bytes"].as_str(), Some("32KiB"));
    assert_eq!(printed["server"]["backlog"].as_integer(), Some(4096));
    assert_eq!(printed["route"][0]["path"].as_str(), Some("/"));
}

#[test]
fn completions_and_manual_page_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("show-config"), "{shell}");
    }
    let output = run(&["manpage"]);
    assert_eq!(output.status.code(), Some(0));
    let page = text(&output.stdout);
    assert!(page.contains(".TH server 1"));
    assert!(page.contains("show\\-config"));
    for section in ["COMMANDS", "SIGNALS", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}");
    }
    for signal in ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "TTIN", "TTOU"] {
        assert!(page.contains(&format!("SIG{signal}")), "{signal}");
    }
    // No command has a page of its own to refer to.
    let page = page.split_whitespace().find(|word| word.contains("(1)"));
    assert_eq!(page, None, "a page that does not exist");
}

/// As packages install it.
#[test]
fn under_another_name_it_speaks_of_itself_by_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("laneway");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_server"), &program).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(folder.path()).output().unwrap()
    };
    assert!(text(&run(&["manpage"]).stdout).contains(".TH laneway 1"));
    let script = run(&["completions", "bash"]);
    assert!(text(&script.stdout).contains("complete -F _laneway -o "), "{}", text(&script.stdout));
    assert!(text(&run(&["--help"]).stdout).contains("Usage: laneway [OPTIONS]"));
    assert!(text(&run(&["start"]).stderr).contains("tip: 'laneway run' starts the server"));
}

#[test]
fn short_forms_set_what_people_set_most() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "[server]\nbacklog = 7\n").unwrap();
    let file = file.to_str().unwrap();
    let shown = |arguments: &[&str]| -> toml::Table {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).parse().unwrap()
    };
    let table = shown(&["-c", file, "--listen", "0.0.0.0:80", "--workers", "3", "show-config"]);
    assert_eq!(table["server"]["backlog"].as_integer(), Some(7));
    assert_eq!(table["server"]["listen"].as_array().unwrap()[0].as_str(), Some("0.0.0.0:80"));
    assert_eq!(table["workers"]["count"].as_integer(), Some(3));
    let several = ["show-config", "--listen", "0.0.0.0:80", "--listen=[::]:80", "--workers=auto"];
    let table = shown(&several);
    let listen = table["server"]["listen"].as_array().unwrap();
    let listen: Vec<_> = listen.iter().map(|address| address.as_str().unwrap()).collect();
    assert_eq!(listen, ["0.0.0.0:80", "[::]:80"]);
    assert_eq!(table["workers"]["count"].as_str(), Some("auto"));
    // A short form counts more than the setting that it stands for.
    let table = shown(&["show-config", "--set", "workers.count=1", "--workers", "2"]);
    assert_eq!(table["workers"]["count"].as_integer(), Some(2));
}

#[test]
fn a_file_in_the_place_of_a_command_is_told_how_to_be_named() {
    for file in ["config.toml", "./laneway", "/etc/laneway.conf"] {
        let output = run(&[file]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let expected = format!(
            "error: unrecognized subcommand '{file}'\n\n  tip: a configuration file is named with \
             '--config {file}'\n"
        );
        assert!(text(&output.stderr).starts_with(&expected), "{}", text(&output.stderr));
    }
    let output = run(&["statsu"]);
    assert!(text(&output.stderr).contains("tip: a similar subcommand exists: 'status'"));
}

#[test]
fn version_and_help_are_no_error() {
    for (argument, expected) in
        [("--version", "server 0.1.0\n"), ("--help", "A multi-core HTTP server")]
    {
        let output = run(&[argument]);
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(text(&output.stdout).starts_with(expected), "{argument}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
        .arg("manpage")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}
