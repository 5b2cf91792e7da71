//! What `server check` finds of what a start would claim: its pid file, its command socket and the users of its workers. It
//! says what a start says, with the same severity, and leaves everything as it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use harness::{Mode, Scratch, Server, Setup, Site, skip_without, skipped};
use nix::sys::signal::SIGTERM;

const BINARY: &str = env!("CARGO_BIN_EXE_server");
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs the binary in this folder, which is the runtime directory, too; behind these words.
fn run_under(launcher: &[&str], folder: &Path, words: &[&str]) -> Output {
    let line = [launcher, &[BINARY], words].concat();
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(folder).env("XDG_RUNTIME_DIR", folder);
    command.env_remove("RUNTIME_DIRECTORY").output().unwrap()
}

fn check(folder: &Path, words: &[&str]) -> Output {
    run_under(&[], folder, &[&["check"], words].concat())
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The errors that a check has found, or the warnings.
fn found(output: &Output, kind: &str) -> Vec<String> {
    let told = told(output);
    let parts = told.split("\n\n").filter_map(|part| part.strip_prefix(kind));
    parts.map(|part| part.trim_end().to_owned()).collect()
}

/// Everything in a folder: name, kind, owner, content, and when it was changed last.
fn state(folder: &Path) -> Vec<String> {
    let mut all = vec![folder.to_owned()];
    all.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let line = |path: &std::path::PathBuf| {
        let of = fs::symlink_metadata(path).unwrap();
        format!(
            "{path:?} {} {:o} {} {} {}",
            of.ino(),
            of.mode(),
            of.size(),
            of.mtime_nsec(),
            of.ctime_nsec()
        )
    };
    let mut all: Vec<_> = all.iter().map(line).collect();
    all.sort();
    all
}

/// Asserts that `check` fails with exactly this error, that a start says the same, and that check changes nothing.
#[track_caller]
fn fails(launcher: &[&str], folder: &Path, words: &[&str], expected: &str) {
    let before = state(folder);
    let checked = run_under(launcher, folder, &[&["check"], words].concat());
    assert_eq!(state(folder), before);
    assert_eq!(checked.status.code(), Some(1), "{}", told(&checked));
    assert_eq!(found(&checked, "error: "), [expected], "{}", told(&checked));
    assert!(told(&checked).ends_with("\n\nthe server would not start here: 1 error\n"));
    let free = ["--set", "server.listen=127.0.0.1:0", "--set", "log.format=json"];
    let started = run_under(launcher, folder, &[words, &free].concat());
    assert_eq!(started.status.code(), Some(1), "{}", told(&started));
    let reason = format!("\"reason\":{}", serde_json::to_string(expected).unwrap());
    assert!(told(&started).contains(&reason), "{}", told(&started));
}

#[test]
fn check_finds_what_is_in_the_way_of_the_pid_file() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    scratch.write("precious", "precious\n");
    symlink("precious", folder.join("link.pid")).unwrap();
    symlink("precious", folder.join("planted.pid.new")).unwrap();
    fs::create_dir(folder.join("folder.pid")).unwrap();
    // (pid file, what it says)
    let cases = [
        (
            "absent/server.pid",
            "cannot write supervisor.pid_file absent/server.pid: No such file or directory (os error 2); create its \
             folder, or name another file",
        ),
        (
            "precious/server.pid",
            "cannot write supervisor.pid_file precious/server.pid: Not a directory (os error 20); name another file",
        ),
        (
            "link.pid",
            "link.pid is in the way of supervisor.pid_file: it is a symbolic link; name another path",
        ),
        (
            "planted.pid",
            "planted.pid.new is in the way of supervisor.pid_file: it is a symbolic link; name another path",
        ),
        (
            "folder.pid",
            "folder.pid is in the way of supervisor.pid_file: it is not a regular file; name another path",
        ),
        (
            "precious",
            "precious is in the way of supervisor.pid_file: it holds something else than a pid; name another path",
        ),
        (
            "/etc/passwd",
            "/etc/passwd is in the way of supervisor.pid_file: it holds something else than a pid; name another path",
        ),
    ];
    for (path, expected) in cases {
        fails(&[], folder, &["--set", &format!("supervisor.pid_file={path}")], expected);
    }
    // What a killed server has left is in no server's way.
    scratch.write("left.pid", "1\n");
    scratch.write("left.pid.new", "1\n");
    let before = state(folder);
    let checked = check(folder, &["--set", "supervisor.pid_file=left.pid"]);
    assert!(checked.status.success(), "{}", told(&checked));
    assert_eq!(state(folder), before);
}

#[test]
fn check_finds_that_a_folder_is_not_writable() {
    if !nix::unistd::Uid::effective().is_root() || skip_without("setpriv") {
        return;
    }
    let scratch = Scratch::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(scratch.path(), open).unwrap();
    let mut test = Command::new(UNPRIVILEGED[0]);
    test.args(&UNPRIVILEGED[1..]).args([BINARY, "--version"]).current_dir(scratch.path());
    if !test.output().is_ok_and(|output| output.status.success()) {
        return skipped("another user can't reach the binary");
    }
    let expected = "cannot write supervisor.pid_file server.pid: Permission denied (os error 13); name a file in a folder \
                    that this user may write to";
    fails(&UNPRIVILEGED, scratch.path(), &["--set", "supervisor.pid_file=server.pid"], expected);
    let expected = "cannot open the command socket own.sock: Permission denied (os error 13); name another place with \
                    --socket PATH";
    fails(&UNPRIVILEGED, scratch.path(), &["--socket", "own.sock"], expected);
}

#[test]
fn check_finds_that_a_disk_is_full_or_read_only() {
    let mount = |options: &str, then: &str| {
        let script = format!(
            "mount -t tmpfs -o {options} none . && cd \"$PWD\" && {then} && exec \"$0\" \"$@\""
        );
        ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned)
    };
    if !nix::unistd::Uid::effective().is_root() || skip_without("unshare") {
        return;
    }
    let words = ["--set", "supervisor.pid_file=server.pid"];
    // (options, what is done there, what it says)
    let cases = [
        (
            "size=4k",
            "head -c 4096 /dev/zero > full",
            "cannot write supervisor.pid_file server.pid: No space left on device (os error 28); name another file",
        ),
        (
            "size=4k",
            "mount -o remount,ro .",
            "cannot write supervisor.pid_file server.pid: Read-only file system (os error 30); name a file in a folder \
             that this user may write to",
        ),
    ];
    for (options, then, expected) in cases {
        let scratch = Scratch::new();
        let launcher = mount(options, then);
        let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let tried = run_under(&launcher, scratch.path(), &["--version"]);
        if !tried.status.success() {
            return skipped(format_args!("no file system can be mounted: {}", told(&tried)));
        }
        fails(&launcher, scratch.path(), &words, expected);
    }
}

#[test]
fn check_finds_what_keeps_the_command_socket_from_being_opened() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    scratch.write("server.sock", "precious\n");
    let long = format!("{}.sock", "x".repeat(120));
    // (path, what it says)
    let cases = [
        ("server.sock", "what is there is no socket, and is left alone"),
        ("absent/server.sock", "No such file or directory (os error 2)"),
        (&long, "path must be shorter than SUN_LEN"),
    ];
    for (path, reason) in cases {
        let expected = format!(
            "cannot open the command socket {path}: {reason}; name another place with --socket PATH"
        );
        fails(&[], folder, &["--socket", path], &expected);
    }
    // Not asked for by name, it is a warning, as it is for a start.
    let checked = check(folder, &["--set", "supervisor.pid_file=server.pid"]);
    assert!(checked.status.success(), "{}", told(&checked));
    let expected = "no command socket at server.sock: what is there is no socket, and is left alone\n  = help: name a place \
                    with --socket PATH, or with supervisor.pid_file, for this server and for `server status`, `reload`, \
                    `upgrade` and `stop`";
    let warnings = found(&checked, "warning: ");
    assert!(warnings.iter().any(|of| of == expected), "{warnings:?}");
    drop(std::os::unix::net::UnixListener::bind(folder.join("left.sock")).unwrap());
    let before = state(folder);
    assert!(check(folder, &["--socket", "left.sock"]).status.success());
    assert_eq!(state(folder), before);
}

fn ends(mut server: Server) {
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn check_passes_the_file_of_a_running_server() {
    for pid_file in [true, false] {
        let site = Site::new(Mode::THREADS);
        site.write();
        if !pid_file {
            let whole = fs::read_to_string(site.path()).unwrap();
            site.scratch.write("site.toml", whole.replace("supervisor.pid_file", "# "));
        }
        let server = Setup::bare().config_at(site.path()).start();
        let before = state(server.folder());
        let path = site.path();
        let checked = check(server.folder(), &["--config", path.to_str().unwrap()]);
        assert_eq!(state(server.folder()), before);
        let summary = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{}", told(&checked));
        assert!(found(&checked, "error: ").is_empty(), "{}", told(&checked));
        let running = format!(
            "  running pid {}; `server reload` applies this, and a second server would be refused\n",
            server.pid()
        );
        assert!(summary.starts_with(&running), "{summary}");
        let verdict = format!("\n\nthe configuration is valid: {}\n", path.display());
        assert!(summary.ends_with(&verdict), "{summary}");
        ends(server);
    }
}

#[test]
fn check_finds_that_the_server_of_another_file_has_the_pid_file_or_the_socket() {
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    let (pid, folder) = (server.pid(), server.folder());
    let expected = format!(
        "another server with pid {pid} has supervisor.pid_file server.pid; stop that one, or name another file for this one"
    );
    fails(&[], folder, &["--set", "supervisor.pid_file=server.pid"], &expected);
    let expected = format!(
        "another server with pid {pid} has the command socket server.sock; stop that one, or give this one a socket of its \
         own with --socket PATH"
    );
    fails(&[], folder, &["--socket", "server.sock"], &expected);
    ends(server);
}

#[test]
fn check_names_every_user_and_group_that_there_is_not() {
    let scratch = Scratch::new();
    let words =
        ["--set", "supervisor.user=no-such-user", "--set", "supervisor.group=no-such-group"];
    let checked = check(scratch.path(), &words);
    let expected = [
        "cannot use supervisor.user: there is no user \"no-such-user\"",
        "cannot use supervisor.group: there is no group \"no-such-group\"",
    ];
    assert_eq!(found(&checked, "error: "), expected);
    assert!(told(&checked).ends_with("\n\nthe server would not start here: 2 errors\n"));
    assert_eq!(checked.status.code(), Some(1));
    let started =
        run_under(&[], scratch.path(), &[&words[..], &["--set", "log.format=json"]].concat());
    let reason = serde_json::to_string(&expected.join("; ")).unwrap();
    assert!(told(&started).contains(&reason), "{}", told(&started));
}

#[test]
fn the_verdict_of_check_comes_last() {
    let scratch = Scratch::new();
    // Both streams into one, as on a terminal.
    let last = |words: &str| {
        let script = format!("\"$0\" check {words} 2>&1");
        let shell = run_under(&["sh", "-c", &script], scratch.path(), &[]);
        let whole = String::from_utf8(shell.stdout).unwrap();
        assert!(whole.contains("\n\nwarning: more lanes than CPUs\n"), "{whole}");
        let verdicts =
            whole.lines().filter(|line| line.contains("is valid") || line.contains("would not"));
        assert_eq!(verdicts.count(), 1, "{whole}");
        whole.lines().last().unwrap().to_owned()
    };
    let lanes = "--set workers.count=1000 --set workers.max_connections=1";
    assert_eq!(last(lanes), "the configuration is valid: built-in defaults");
    let wrong = format!("{lanes} --set supervisor.group=no-such-group");
    assert_eq!(last(&wrong), "the server would not start here: 1 error");
}

#[test]
fn where_the_access_log_would_be_written_is_said_and_whether_it_cannot_be() {
    let scratch = Scratch::new();
    for (path, problem) in [
        ("stdout", None),
        ("logs.txt", None),
        ("none/logs.txt", Some("No such file or directory")),
        ("/proc", Some("Is a directory")),
    ] {
        let output = check(scratch.path(), &["--set", &format!("log.access={path}")]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), told(&output));
        let shown = format!("{path} (json)\n");
        let row = out.lines().find(|line| line.starts_with("  access  "));
        assert!(row.is_some_and(|row| row.ends_with(shown.trim_end())), "{out}");
        assert_eq!(output.status.code(), Some(0), "{err}");
        match problem {
            None => assert!(!err.contains("access log"), "{err}"),
            Some(problem) => {
                assert!(err.contains("can't be written: ") && err.contains(problem), "{err}")
            }
        }
    }
    assert!(!scratch.path().join("logs.txt").exists(), "it changes nothing");
}
