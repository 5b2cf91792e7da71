//! By what a server is found, and found to be there already: its pid file and its command socket.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness::{
    Mode, NEW, OLD, Server, Setup, Site, cpu_ticks, eventually, let_time_pass, private_loopback,
    reload, skip_without, skip_without_faults,
};
use nix::sys::signal::{SIGTERM, SIGUSR2};

const BINARY: &str = env!("CARGO_BIN_EXE_server");

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A command of the binary, in the server's folder and session.
fn command(server: &Server, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).current_dir(server.folder()).env("XDG_RUNTIME_DIR", server.folder());
    command.env_remove("RUNTIME_DIRECTORY").output().expect("run the server's binary")
}

#[track_caller]
fn assert_refused(mut second: Server, with: &[&str]) {
    assert_eq!(second.wait_exit(), 1);
    let failed = second.journal.wait_for("could not start");
    for part in with {
        assert!(failed.text("reason").contains(part), "{part}: {failed:?}");
    }
}

fn ends(mut server: Server) {
    server.signal(SIGTERM);
    assert_eq!(server.wait_exit(), 0);
}

fn on_another_port(pid_file: &Path) -> Setup {
    Setup::new(Mode::THREADS).set("supervisor.pid_file", pid_file.display())
}

#[test]
fn a_second_server_with_the_same_pid_file_is_refused() {
    let scratch = harness::Scratch::new();
    let path = scratch.path().join("server.pid");
    let first = on_another_port(&path).start();
    let pid = format!("with pid {}", first.pid());
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", first.pid()));
    assert_refused(on_another_port(&path).spawn(), &[&pid, "has supervisor.pid_file /"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", first.pid()));
    assert!(!scratch.path().join("server.pid.new").exists());
    ends(first);
    assert!(!path.exists() && !scratch.path().join("server.sock").exists());
    // What a killed one leaves is no obstacle.
    let mut killed = on_another_port(&path).start();
    killed.kill_supervisor();
    killed.wait_gone();
    assert!(path.exists() && scratch.path().join("server.sock").exists());
    let third = on_another_port(&path).start();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", third.pid()));
    UnixStream::connect(scratch.path().join("server.sock")).expect("its command socket");
    ends(third);
}

#[test]
fn of_servers_that_start_at_once_with_one_pid_file_one_serves() {
    let scratch = harness::Scratch::new();
    let path = scratch.path().join("server.pid");
    for _ in 0..5 {
        let servers: Vec<Server> = (0..4).map(|_| on_another_port(&path).spawn()).collect();
        let (mut serving, mut refused) = (Vec::new(), 0);
        for mut server in servers {
            let first = server.journal.wait_for_any(&["ready", "could not start"]);
            if first.expect("one or the other").name() == "ready" {
                serving.push(server);
            } else {
                assert_eq!(server.wait_exit(), 1);
                refused += 1;
            }
        }
        assert_eq!((serving.len(), refused), (1, 3));
        let mut server = serving.remove(0);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
        // Killed every other time, so that something is left behind.
        server.kill_supervisor();
        server.wait_gone();
    }
}

#[test]
fn an_heir_takes_the_pid_file_and_the_socket_over() {
    let site = Site::new(Mode::PROCESSES);
    let server = site.start();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    let path = server.folder().join("server.pid");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{heir}\n"));
    let status = site.command(&server, &["status"]);
    assert!(text(&status).contains(&format!("pid {heir}")), "{}", text(&status));
    let second = on_another_port(&path);
    assert_refused(second.spawn(), &[&format!("with pid {heir}")]);
    // The link leads to the same path as before, and the old one leaves it alone.
    eventually("the old one is gone", || {
        (!server.processes().contains(&server.pid())).then_some(())
    });
    assert_eq!(harness::links(server.folder()), [server.folder().join("server.sock")]);
    let stopped = site.command(&server, &["stop"]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert!(!path.exists());
    assert!(harness::links(server.folder()).is_empty());
}

#[test]
fn what_a_planted_link_leads_to_is_not_written() {
    let scratch = harness::Scratch::new();
    let victim = scratch.write("victim", "precious\n");
    let path = scratch.path().join("server.pid");
    symlink(&victim, scratch.path().join("server.pid.new")).unwrap();
    assert_refused(
        on_another_port(&path).spawn(),
        &[
            "server.pid.new is in the way of supervisor.pid_file: it is a symbolic link; name another path",
        ],
    );
    fs::rename(scratch.path().join("server.pid.new"), &path).unwrap();
    assert_refused(on_another_port(&path).spawn(), &["server.pid is in the way", "symbolic link"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    // A name that was meant for something else.
    let reason = "it holds something else than a pid; name another path";
    assert_refused(on_another_port(&victim).spawn(), &[reason]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    assert!(!scratch.path().join("victim.new").exists());
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let scratch = harness::Scratch::new();
    let victim = scratch.write("server.sock", "precious\n");
    let server = on_another_port(&scratch.path().join("server.pid")).start();
    let told = server.journal.wait_for("no command socket");
    assert!(told.text("reason").contains("no socket, and is left alone"), "{told:?}");
    ends(server);
    let explicit = Setup::new(Mode::THREADS).arguments(&["--socket", victim.to_str().unwrap()]);
    assert_refused(explicit.spawn(), &["cannot open the command socket"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
}

#[test]
fn a_pid_file_that_can_not_be_written_is_an_error_at_the_start() {
    let missing = on_another_port(Path::new("/nonexistent/server.pid"));
    let reason = "cannot write supervisor.pid_file /nonexistent/server.pid: No such file or directory \
                  (os error 2); create its folder, or name another file";
    assert_refused(missing.spawn(), &[reason]);
    assert_refused(on_another_port(Path::new("/proc/self/server.pid")).spawn(), &["cannot write"]);
}

#[test]
fn a_reload_of_another_address_leaves_the_server_where_it_is_found() {
    let mut site = Site::new(Mode::THREADS);
    site.write();
    let toml = |site: &Site| {
        let whole = fs::read_to_string(site.path()).unwrap();
        let without: Vec<&str> = whole.lines().filter(|line| !line.contains("pid_file")).collect();
        site.scratch.write("site.toml", without.join("\n"));
    };
    toml(&site);
    let server = Setup::bare().config_at(site.path()).start();
    let path = site.path();
    let config = ["--config", path.to_str().unwrap()];
    site.listen = vec![private_loopback(8085)];
    site.text = NEW;
    site.write();
    toml(&site);
    let reloaded = command(&server, &[&config[..], &["reload"]].concat());
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    assert_eq!(site.get(), NEW);
    // What needs nothing of the file works although it has a mistake.
    site.scratch.write("site.toml", "[[[ nonsense");
    let status = command(&server, &[&config[..], &["status"]].concat());
    assert!(status.status.success(), "{}", text(&status));
    let rejected = command(&server, &[&config[..], &["reload"]].concat());
    assert_eq!(rejected.status.code(), Some(2));
    assert!(text(&rejected).contains("site.toml:1:"), "{}", text(&rejected));
    let stopped = command(&server, &[&config[..], &["stop"]].concat());
    assert!(stopped.status.success(), "{}", text(&stopped));
    // Where none runs, the mistake is what there is to tell.
    let status = command(&server, &[&config[..], &["status"]].concat());
    assert_eq!(status.status.code(), Some(2));
    assert!(text(&status).contains("site.toml:1:"), "{}", text(&status));
}

/// The site's file with this pid file, or none.
fn write_with(site: &Site, pid_file: Option<&str>) {
    site.write();
    let whole = fs::read_to_string(site.path()).expect("the configuration");
    let lines = whole.lines().filter_map(|line| match pid_file {
        _ if !line.starts_with("supervisor.pid_file") => Some(line.to_owned()),
        pid_file => pid_file.map(|path| format!("supervisor.pid_file = {path:?}")),
    });
    site.scratch.write("site.toml", lines.collect::<Vec<_>>().join("\n"));
}

/// A server is found by every command after its file has come to name another pid file than it was started with.
fn is_found_after(started: Option<&str>, changed: Option<&str>) {
    let mut site = Site::new(Mode::THREADS);
    write_with(&site, started);
    let server = Setup::bare().config_at(site.path()).start();
    let path = site.path();
    let ask = |word: &str| command(&server, &["--config", path.to_str().expect("a path"), word]);
    site.text = NEW;
    write_with(&site, changed);
    let status = ask("status");
    assert!(text(&status).contains(&format!("pid {}", server.pid())), "{}", text(&status));
    for _ in 0..2 {
        let reloaded = ask("reload");
        assert!(reloaded.status.success(), "{}", text(&reloaded));
    }
    assert_eq!(site.get(), NEW);
    let told = server.journal.named("pid file unchanged");
    assert_eq!(told.len(), 1, "once, and not with each reload");
    assert_eq!(
        told[0].text("reason"),
        "a reload changes neither the pid file nor the command socket"
    );
    let socket = told[0].text("socket");
    UnixStream::connect(server.folder().join(socket)).expect("where it says that it listens");
    // The next one has what the file names now, and is found by it.
    let upgraded = ask("upgrade");
    assert!(upgraded.status.success(), "{}", text(&upgraded));
    let heir = server.journal.wait_for("upgrade done").pid();
    eventually("the old one is gone", || {
        (!server.processes().contains(&server.pid())).then_some(())
    });
    let status = ask("status");
    assert!(text(&status).contains(&format!("pid {heir}")), "{}", text(&status));
    if let Some(changed) = changed {
        let written = fs::read_to_string(server.folder().join(changed)).expect("the pid file");
        assert_eq!(written, format!("{heir}\n"));
    }
    // And after the file has been changed back, before anything reads it.
    write_with(&site, started);
    let stopped = ask("stop");
    assert!(stopped.status.success(), "{}", text(&stopped));
    server.wait_gone();
    let left = fs::read_dir(server.folder()).expect("the folder");
    let left = left.map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name != "test-config.toml").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_server_is_found_after_its_file_has_come_to_name_a_pid_file() {
    is_found_after(None, Some("server.pid"));
}

#[test]
fn a_server_is_found_after_its_file_has_come_to_name_another_pid_file() {
    is_found_after(Some("server.pid"), Some("other.pid"));
}

#[test]
fn a_server_is_found_after_its_file_has_come_to_name_no_pid_file() {
    is_found_after(Some("server.pid"), None);
}

#[test]
fn an_heir_with_another_pid_file_that_fails_leaves_the_server_where_it_is_found() {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    write_with(&site, Some("other.pid"));
    fs::write(server.folder().join("fail-ready"), "").unwrap();
    server.signal(SIGUSR2);
    server.journal.wait_for("upgrade failed");
    eventually("the link is its own again", || {
        (harness::links(server.folder()) == [server.folder().join("server.sock")]).then_some(())
    });
    let path = site.path();
    let status = command(&server, &["--config", path.to_str().unwrap(), "status"]);
    assert!(text(&status).contains(&format!("pid {}", server.pid())), "{}", text(&status));
    ends(server);
}

#[test]
fn a_link_to_a_socket_leads_no_command_to_another_server() {
    let site = Site::new(Mode::THREADS);
    site.write();
    let folder = site.scratch.path().to_str().unwrap();
    let path = site.path();
    let start = |more: &[&str]| {
        let port = format!("server.listen={}", private_loopback(8087));
        let setup = Setup::bare().config_at(site.path()).env("XDG_RUNTIME_DIR", folder);
        setup.arguments(&[&["--set", &port], more].concat()).start()
    };
    let ask = |server: &Server, words: &[&str]| {
        let mut asking = Command::new(BINARY);
        asking.args(["--config", path.to_str().unwrap()]).args(words);
        asking.current_dir(server.folder()).env("XDG_RUNTIME_DIR", folder);
        asking.env_remove("RUNTIME_DIRECTORY").output().expect("run the server's binary")
    };
    let first = start(&[]);
    let second = start(&["--socket", "own.sock", "--set", "supervisor.pid_file=own.pid"]);
    let third = start(&["--set", "supervisor.pid_file=third.pid"]);
    let link = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let links: Vec<_> =
        link.filter(|path| path.extension().is_some_and(|of| of == "link")).collect();
    assert_eq!(links.len(), 1, "of the one that the file alone tells of: {links:?}");
    let leads_to = fs::read_link(&links[0]).unwrap();
    assert_eq!(leads_to, first.folder().join("server.sock"));
    ends(first);
    // Neither of those that their command lines tell apart.
    write_with(&site, Some("changed.pid"));
    let stopped = ask(&second, &["stop"]);
    assert_eq!(stopped.status.code(), Some(1), "{}", text(&stopped));
    let nowhere = format!("none listens at changed.sock or {}", links[0].display());
    assert!(text(&stopped).contains(&nowhere), "{}", text(&stopped));
    // A link that a killed server left, to a place that a server of another file has now.
    let other = Site::new(Mode::THREADS);
    let other = other.start();
    symlink(other.folder().join("server.sock"), &links[0]).unwrap();
    assert_eq!(ask(&other, &["stop"]).status.code(), Some(1));
    for server in [second, third, other] {
        ends(server);
    }
}

#[test]
fn a_server_of_another_user_is_told_as_such() {
    let others = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let setpriv = || {
        let mut command = Command::new("setpriv");
        command.args(others);
        command
    };
    if !nix::unistd::Uid::effective().is_root() || skip_without("setpriv") {
        return;
    }
    if !setpriv().args(["test", "-x", BINARY]).status().is_ok_and(|status| status.success()) {
        return harness::skipped("another user can't reach the binary");
    }
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    use std::os::unix::fs::PermissionsExt;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(server.folder(), open.clone()).unwrap();
    let ask = |socket: &Path| {
        let mut asking = setpriv();
        asking.args([BINARY, "--socket"]).arg(socket).arg("status").current_dir("/");
        let asked = asking.output().expect("run the server's binary");
        assert_eq!(asked.status.code(), Some(1));
        text(&asked)
    };
    let user = nix::unistd::User::from_uid(65534.into()).unwrap();
    let user = user.map_or_else(|| "65534".into(), |user| user.name);
    let socket = server.folder().join("server.sock");
    let expected = |owner: &str, so: &str| {
        format!(
            "cannot ask the server at {}: it belongs to the user {owner}, and this command runs as the user {user}; \
             run it as {so}\n",
            socket.display()
        )
    };
    assert_eq!(ask(&socket), expected("root", "root"));
    std::os::unix::fs::chown(&socket, Some(54321), None).unwrap();
    assert_eq!(ask(&socket), expected("54321", "54321 or as root"));
    // In a folder that is the owner's alone.
    fs::set_permissions(server.folder(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(ask(&socket), expected("root", "root"));
    ends(server);
}

#[test]
fn servers_of_one_file_are_told_apart_by_their_sockets() {
    let site = Site::new(Mode::THREADS);
    site.write();
    let start = |more: &[&str]| {
        let port = format!("server.listen={}", private_loopback(8086));
        let setup = Setup::bare()
            .config_at(site.path())
            .env("XDG_RUNTIME_DIR", site.scratch.path().to_str().unwrap());
        setup.arguments(&[&["--set", "supervisor.pid_file=", "--set", &port], more].concat())
    };
    let first = start(&[]).start();
    let pid = format!("another server with pid {} has the command socket", first.pid());
    assert_refused(start(&[]).spawn(), &[&pid, "with --socket PATH"]);
    let second = start(&["--socket", "own.sock"]).start();
    let status = command(&second, &["--socket", "own.sock", "status"]);
    assert!(text(&status).contains(&format!("pid {}", second.pid())), "{}", text(&status));
    let nowhere = command(&second, &["--socket", "no.sock", "status"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere).contains("none listens at no.sock"), "{}", text(&nowhere));
    ends(first);
    ends(second);
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_a_failed_start_leaves_none() {
    let scratch = harness::Scratch::new();
    let path = scratch.path().join("left.sock");
    drop(UnixListener::bind(&path).unwrap());
    let socket = path.to_str().unwrap().to_owned();
    let server = Setup::new(Mode::THREADS).arguments(&["--socket", &socket]).start();
    let port = server.address();
    ends(server);
    assert!(!path.exists());
    let holder = std::net::TcpListener::bind(port).unwrap();
    let taken =
        Setup::new(Mode::THREADS).set("server.listen", port).arguments(&["--socket", &socket]);
    assert_refused(taken.spawn(), &["in use"]);
    drop(holder);
    assert!(!path.exists());
}

#[test]
fn at_its_limit_of_descriptors_a_client_of_the_socket_costs_no_cpu() {
    if skip_without("prlimit") {
        return;
    }
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    let limit = |files: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &server.pid().to_string(), &format!("--nofile={files}:")]);
        assert!(prlimit.status().expect("run prlimit").success());
    };
    // The descriptor in reserve is enough to say so.
    let highest = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let highest =
        highest.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    limit(&(highest.unwrap() + 1).to_string());
    let status = site.command(&server, &["status"]);
    let told = text(&status);
    assert!(told.contains("the server can't take a command") || status.status.success(), "{told}");
    // Not even that one.
    limit("3");
    let mut client = UnixStream::connect(server.folder().join("server.sock")).unwrap();
    let before = cpu_ticks(server.pid());
    let_time_pass(Duration::from_millis(1500));
    let spent = cpu_ticks(server.pid()) - before;
    assert!(spent < 30, "{spent} hundredths of a second in one and a half");
    limit("1024");
    client.write_all(b"status\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"Status\":"), "{answer}");
    ends(server);
}

/// What the command socket answers to these pieces, before it ends the connection.
fn answer_to(server: &Server, pieces: &[&[u8]]) -> String {
    let mut client =
        UnixStream::connect(server.folder().join("server.sock")).expect("connect to it");
    client.set_read_timeout(Some(harness::DEADLINE)).expect("set a timeout");
    for piece in pieces {
        client.write_all(piece).expect("it is read");
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer and an end, and no reset");
    answer
}

#[test]
fn a_request_of_more_than_64_bytes_is_answered_with_the_limit_and_no_reset() {
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    let too_long = "{\"Failed\":\"the request is too long: it may have 64 bytes at most, its line end included\"}\n";
    let of_length = |bytes: usize| {
        let mut request = vec![b'x'; bytes];
        request[bytes - 1] = b'\n';
        request
    };
    assert!(answer_to(&server, &[&of_length(64)]).contains("unknown request \\\"xxx"));
    assert_eq!(answer_to(&server, &[&of_length(65)]), too_long);
    assert_eq!(answer_to(&server, &[&[b'x'; 65]]), too_long);
    assert_eq!(answer_to(&server, &[&of_length(10_000)]), too_long);
    // It may come in pieces, and go on after the answer is on its way.
    let piece: &[u8] = &[b'x'; 50];
    assert_eq!(answer_to(&server, &[piece; 100]), too_long);
    // What is behind a request is nothing to the server.
    let behind = [b"status\n".as_slice(), &[b'x'; 1_000]].concat();
    assert!(answer_to(&server, &[&behind]).starts_with("{\"Status\":"));
    let behind = [b"reload\n".as_slice(), &[b'x'; 1_000]].concat();
    assert_eq!(answer_to(&server, &[&behind]), "{\"Done\":\"generation 2 serves\"}\n");
    ends(server);
}

#[test]
fn clients_that_were_refused_and_stay_make_way_for_others() {
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    let stay: Vec<UnixStream> = (0..100)
        .map(|_| {
            let client = UnixStream::connect(server.folder().join("server.sock"));
            let mut client = client.expect("connect to it");
            // One that was closed to make way takes nothing.
            let _ = client.write_all(&[b'x'; 65]);
            client
        })
        .collect();
    let status = site.command(&server, &["status"]);
    assert!(status.status.success(), "{}", text(&status));
    drop(stay);
    ends(server);
}

#[test]
fn a_client_that_waits_for_its_answer_does_not_make_way_for_others() {
    if skip_without_faults() {
        return;
    }
    let site = Site::new(Mode::THREADS);
    let server = site.start();
    fs::write(server.folder().join("hang-load"), "").expect("write into the server's folder");
    let socket = || UnixStream::connect(server.folder().join("server.sock")).expect("connect");
    let mut waits = socket();
    waits.write_all(b"reload\n").expect("ask");
    server.journal.wait_for("reload started");
    // More than there may be.
    let idle: Vec<UnixStream> = (0..100).map(|_| socket()).collect();
    let status = site.command(&server, &["status"]);
    assert!(status.status.success(), "{}", text(&status));
    drop(idle);
    server.signal(SIGTERM);
    let mut answer = String::new();
    waits.read_to_string(&mut answer).expect("the answer");
    assert!(answer.contains("told to stop"), "{answer}");
    let mut server = server;
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn a_pipe_in_the_place_of_the_configuration_keeps_no_command_waiting() {
    let site = Site::new(Mode::THREADS);
    site.write();
    let socket = site.scratch.path().join("named.sock");
    let server = Setup::bare()
        .config_at(site.path())
        .arguments(&["--set", "supervisor.pid_file=", "--socket", socket.to_str().unwrap()])
        .start();
    fs::remove_file(site.path()).unwrap();
    nix::unistd::mkfifo(&site.path(), nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    // Neither where none is found, nor where one is.
    let path = site.path();
    let status = command(&server, &["--config", path.to_str().unwrap(), "status"]);
    assert_eq!(status.status.code(), Some(2), "{}", text(&status));
    assert!(text(&status).contains("not a regular file but a pipe"), "{}", text(&status));
    let words = ["--config", path.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
    let status = command(&server, &[&words[..], &["status"]].concat());
    assert!(status.status.success(), "{}", text(&status));
    ends(server);
}

#[test]
fn a_configuration_that_was_found_and_is_gone_is_missed_by_reload_and_upgrade() {
    let site = Site::new(Mode::THREADS);
    site.write();
    let folder = harness::Scratch::new();
    let file = folder.path().join("config.toml");
    fs::copy(site.path(), &file).unwrap();
    let script = format!("cd {} && PWD=$(pwd) exec \"$@\"", folder.path().display());
    let server = Setup::bare().under(&["sh", "-c", &script, "sh"]).start();
    fs::rename(&file, folder.path().join("away")).unwrap();
    assert!(reload(&server).text("reason").contains("config.toml"), "a reload is rejected");
    server.signal(SIGUSR2);
    server.journal.wait_for("upgrade failed");
    assert_eq!(server.get("/").text(), OLD);
    // And found again.
    fs::rename(folder.path().join("away"), &file).unwrap();
    assert_eq!(reload(&server).name(), "reload done");
    ends(server);
}

/// A release: the binary, or a script that says that it was started and then is the binary, and a configuration.
fn release(site: &Site, name: &str, body: &str, marks: bool) {
    let folder = site.scratch.path().join(name);
    fs::create_dir_all(&folder).expect("prepare the releases");
    let server = folder.join("server");
    if marks {
        let script = format!(
            "#!/bin/sh\n: > {}\nexec {BINARY} \"$@\"\n",
            site.scratch.path().join("marked").display()
        );
        fs::write(&server, script).expect("prepare the releases");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&server, executable).expect("prepare the releases");
    } else if fs::hard_link(BINARY, &server).is_err() {
        fs::copy(BINARY, &server).expect("prepare the releases");
    }
    let whole = fs::read_to_string(site.path()).expect("prepare the releases");
    fs::write(folder.join("site.toml"), whole.replace(OLD.trim_end(), body.trim_end()))
        .expect("prepare the releases");
}

/// Starts the server as `script` says in a folder where `current` leads to the release r1, moves `current` to r2, removes
/// r1, and upgrades.
fn upgrade_of_a_moved_link(script: &str) {
    let site = Site::new(Mode::THREADS);
    site.write();
    release(&site, "r1", OLD, false);
    release(&site, "r2", NEW, true);
    let current = site.scratch.path().join("current");
    symlink("r1", &current).expect("prepare the releases");
    let root = site.scratch.path().to_str().expect("prepare the releases");
    let script = format!("cd {root} && {script}");
    let server = Setup::bare().binary("sh").arguments(&["-c", &script]).start();
    assert_eq!(site.get(), OLD);
    fs::remove_file(&current).expect("prepare the releases");
    symlink("r2", &current).expect("prepare the releases");
    fs::remove_dir_all(site.scratch.path().join("r1")).expect("prepare the releases");
    // A reload reads what the name leads to now.
    assert_eq!(reload(&server).name(), "reload done");
    assert_eq!(site.get(), NEW);
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    let started = server.journal.wait_for("upgrade started");
    assert!(started.text("binary").ends_with("/current/server"), "{started:?}");
    let received = server.journal.wait_for("upgrade received");
    assert_eq!(received.text("version"), env!("CARGO_PKG_VERSION"));
    assert!(site.scratch.path().join("marked").exists(), "the binary of r2 was started");
    eventually("the old one is gone", || {
        server.processes().iter().all(|pid| *pid != server.pid()).then_some(())
    });
    assert_eq!(site.get(), NEW);
    harness::send_signal(heir, SIGTERM);
    server.wait_gone();
}

#[test]
fn an_upgrade_starts_what_a_moved_link_leads_to() {
    upgrade_of_a_moved_link("exec current/server --config current/site.toml");
}

#[test]
fn an_upgrade_from_a_folder_that_is_gone_starts_what_its_name_leads_to() {
    upgrade_of_a_moved_link("cd current && exec ./server --config site.toml");
}

#[test]
fn an_upgrade_of_what_was_found_on_path_starts_what_is_there_now() {
    upgrade_of_a_moved_link(
        "PATH=$PWD/r3:$PWD/current:$PATH exec server --config current/site.toml",
    );
}

#[test]
fn without_proc_it_starts_serves_and_is_upgraded() {
    if !nix::unistd::Uid::effective().is_root() || skip_without("unshare") || skip_without_faults()
    {
        return;
    }
    let site = Site::new(Mode::PROCESSES);
    let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let server = site.setup().under(&["unshare", "--mount", "sh", "-c", script]).start();
    assert_eq!(site.get(), OLD);
    assert_eq!(reload(&server).name(), "reload done");
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    assert_eq!(site.get(), OLD);
    harness::send_signal(heir, SIGTERM);
    server.wait_gone();
}
