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
    let expected = "the configuration is valid: built-in defaults\n\
                    \x20 listen  127.0.0.1:8080\n\
                    \x20 lanes   3\n\
                    \x20 mode    processes (one for each lane)\n\
                    \x20 accept  reuseport (each lane from its own sockets)\n\
                    \x20 engine  native\n\
                    \x20 driver  auto (io_uring where the kernel allows it, else epoll)\n\
                    \x20 routes  1\n\
                    \x20   /                        200 19 bytes\n";
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(text(&output.stderr), "");
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
    let told = text(&output.stdout);
    for words in [
        "\n  engine  may (may_minihttp)\n  driver  the engine's own\n",
        "\nwarning: this engine is for comparison\n  reason  it has no timeouts and no limits on heads, ",
        "; [timeouts], server.backlog and workers.driver have no effect\n  remedy  docs/engines.md ",
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
    assert!(text(&output.stdout).contains(".TH server 1"));
    assert!(text(&output.stdout).contains("show\\-config"));
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
