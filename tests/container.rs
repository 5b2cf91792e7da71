//! As a container's only program: pid 1, or behind the init that `--init` puts there.

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::{Client, Mode, Scratch, Server, Setup, in_every_mode, private_loopback, skipped};

in_every_mode!(as_pid_1_of_a_container, behind_the_init_of_a_container);

/// A root folder with the server and the libraries that it needs, and nothing else.
fn root_folder(scratch: &Scratch) -> Option<String> {
    let root = scratch.path().join("root");
    let binary = env!("CARGO_BIN_EXE_server");
    let libraries = Command::new("ldd").arg(binary).output().ok()?;
    let libraries = String::from_utf8(libraries.stdout).ok()?;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths {
        let target = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent()?).ok()?;
        fs::copy(path, target).ok()?;
    }
    fs::create_dir_all(&root).ok()?;
    fs::copy(binary, root.join("server")).ok()?;
    Some(root.to_str()?.to_owned())
}

/// A name for a test's container, which is gone with this.
struct Container(String);

impl Container {
    fn of(scratch: &Scratch) -> Container {
        let folder = scratch.path().file_name().expect("a name");
        Container(folder.to_str().expect("text").to_owned())
    }

    fn podman(&self, command: &[&str]) -> Output {
        let podman = Command::new("podman").args(command).arg(&self.0).output();
        podman.expect("run podman")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Of one that has ended by itself there is nothing left.
        let _ = Command::new("podman").args(["rm", "--force", "--ignore", &self.0]).output();
    }
}

/// Runs it in a container, or says why that can't be done here.
fn run(mode: Mode, scratch: &Scratch, options: &[&str]) -> Option<(Server, Container)> {
    let Some(root) = root_folder(scratch) else {
        skipped("the server's libraries can't be found with `ldd`");
        return None;
    };
    let container = Container::of(scratch);
    let podman = ["podman", "run", "--rm", "--network=host", "--name", &container.0];
    // No more than any machine allows.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];
    let mut refusal = String::new();
    // podman's own choice of a runtime does not work with every arrangement of cgroups.
    for runtime in [&[][..], &["--runtime=runc"]] {
        let launcher = [&podman[..], runtime, &limits, options, &["--rootfs", &root]].concat();
        match tried(&launcher) {
            Ok(()) => return Some((start(mode, &launcher), container)),
            Err(text) => refusal = text,
        }
    }
    skipped(format_args!("podman runs no container here: {refusal}"));
    None
}

/// Whether the server can be run like this at all.
fn tried(launcher: &[&str]) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.arg("60").args(launcher).args(["/server", "--version"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}

fn start(mode: Mode, launcher: &[&str]) -> Server {
    let server = Setup::bare()
        .binary(Path::new("/server"))
        .under(launcher)
        .set("server.listen", private_loopback(8080))
        .set("workers.mode", if mode.is_threads() { "threads" } else { "processes" })
        .set("workers.count", 2)
        .set("log.format", "json");
    server.start()
}

fn serves_and_leaves(mut server: Server, container: &Container) {
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/").status, 200);
    // As `podman stop` does. A signal to `podman run` itself may come before that passes signals on, and end it alone.
    let kill = container.podman(&["kill", "--signal=TERM"]);
    assert!(kill.status.success(), "{}", String::from_utf8_lossy(&kill.stderr));
    server.journal.wait_for("drain started");
    assert_eq!(server.wait_exit(), 0);
    assert_eq!(server.journal.wait_for("stopped").number("code"), 0);
}

fn as_pid_1_of_a_container(mode: Mode) {
    let scratch = Scratch::new();
    if let Some((server, container)) = run(mode, &scratch, &[]) {
        assert_eq!(server.journal.wait_for("ready").pid(), 1);
        serves_and_leaves(server, &container);
    }
}

fn behind_the_init_of_a_container(mode: Mode) {
    let scratch = Scratch::new();
    if let Some((server, container)) = run(mode, &scratch, &["--init"]) {
        assert_ne!(server.journal.wait_for("ready").pid(), 1);
        serves_and_leaves(server, &container);
    }
}
