//! The image that Containerfile describes, made of the static binary, and run as its users run it.

mod harness;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harness::{
    Client, Scratch, Server, Setup, eventually, private_loopback, process_state, send_signal,
    skip_without, skipped,
};
use nix::sys::signal::{SIGCONT, SIGKILL, SIGSTOP};
use serde_json::Value;

/// Limits that any machine allows: where podman may not raise its own, it can't start a container with the defaults.
const PODMAN: &str =
    "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n";
/// Most that the image may have, in bytes.
const IMAGE_BYTES_MAX: u64 = 6_000_000;
const CONFIG: &str = "/etc/laneway/config.toml";

/// What `.ci/run` has made with deploy/build-static.
fn binary() -> PathBuf {
    root().join("target/static/laneway")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A command of podman, which has two minutes.
fn podman(words: &[&str]) -> Command {
    static SETTINGS: OnceLock<PathBuf> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containers.conf");
        // Another test process writes the same.
        fs::write(&path, PODMAN).expect("write podman's settings");
        path
    });
    let mut command = Command::new("timeout");
    command.args(["120", "podman"]).args(words).current_dir(root());
    command.env("CONTAINERS_CONF", settings).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What a command has printed, or what it says is wrong.
fn done(mut command: Command) -> Result<String, String> {
    let output: io::Result<Output> = command.output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// The image and how its containers are run.
struct Image {
    name: String,
    runtime: &'static [&'static str],
}

/// The image, which is built once. None, with a visible reason, where that can't be.
fn image() -> Option<&'static Image> {
    static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
    if skip_without("podman") {
        return None;
    }
    if !binary().is_file() {
        skipped("there is no target/static/laneway: deploy/build-static makes it");
        return None;
    }
    match IMAGE.get_or_init(build) {
        Ok(image) => Some(image),
        Err(reason) => {
            skipped(format_args!("podman builds or runs nothing here: {reason}"));
            None
        }
    }
}

/// Builds it as docs/container.md says; one of this folder that an earlier run has left is replaced.
fn build() -> Result<Image, String> {
    let folder: u64 = root()
        .to_string_lossy()
        .bytes()
        .fold(0, |sum, byte| u64::from(byte).wrapping_add(sum.wrapping_mul(31)));
    let name = format!("localhost/laneway-test-{folder:x}");
    let plain = Scratch::new();
    plain.write("Containerfile", "FROM scratch\nLABEL plain=yes\n");
    let plain_folder = plain.path().to_str().expect("a path in UTF-8");
    // What can't build this can build nothing.
    done(podman(&["build", "--layers=false", "-q", "-t", &name, plain_folder]))?;
    let _ = done(podman(&["rmi", "--force", &name]));
    let words = [
        "build",
        "--layers=false",
        "--format=docker",
        "--build-context",
        "build=target",
        "-t",
        &name,
        ".",
    ];
    done(podman(&words)).unwrap_or_else(|wrong| panic!("the image can't be built: {wrong}"));
    let mut refusal = String::new();
    // podman's own choice of a runtime does not work with every arrangement of cgroups.
    for runtime in [&[][..], &["--runtime=runc"]] {
        let run = [&["run", "--rm", "--network=host"], runtime, &[&name, "--version"]].concat();
        match done(podman(&run)) {
            Ok(version) => {
                assert!(version.ends_with(env!("CARGO_PKG_VERSION")), "{version}");
                return Ok(Image { name, runtime });
            }
            Err(reason) => refusal = reason,
        }
    }
    Err(refusal)
}

/// A container with a server in it. Its end is the container's.
struct Container {
    server: Server,
    name: String,
    _scratch: Scratch,
}

impl Container {
    /// Runs the image with these options, and a configuration in the place of its own, if one is given. None, with a
    /// visible reason, where podman can't run a container with these options.
    fn run(options: &[&str], config: Option<&str>) -> Option<Container> {
        Container::run_at(options, config, private_loopback(9180))
    }

    /// The same, with its admin address here.
    fn run_at(options: &[&str], config: Option<&str>, admin: impl ToString) -> Option<Container> {
        let image = image()?;
        let scratch = Scratch::new();
        let name = scratch.path().file_name()?.to_str()?.to_owned();
        let variables = [
            format!("--env=LANEWAY_SERVER__LISTEN={}", private_loopback(8080)),
            format!("--env=LANEWAY_ADMIN__LISTEN={}", admin.to_string()),
        ];
        let mount = config.map(|config| {
            format!("--volume={}:{CONFIG}:ro", scratch.write("config.toml", config).display())
        });
        let own = variables.iter().chain(&mount).map(String::as_str).collect::<Vec<_>>();
        let tried = [&["run", "--rm", "--network=host"], image.runtime, options, &own].concat();
        if let Err(refusal) = done(podman(&[&tried[..], &[&image.name, "--version"]].concat())) {
            skipped(format_args!("podman runs no container with {options:?}: {refusal}"));
            return None;
        }
        let named = ["--env", harness::MARK, "--name", &name];
        let command = podman(&[&tried[..], &named].concat());
        let launcher = std::iter::once(command.get_program()).chain(command.get_args());
        let launcher: Vec<&str> = launcher.filter_map(|word| word.to_str()).collect();
        let mut setup = Setup::bare().under(&launcher[2..]).binary(&image.name);
        for (variable, value) in command.get_envs() {
            setup = setup.env(variable.to_str()?, value?.to_str()?);
        }
        // It is made before it can end: this takes it away.
        let server = setup.spawn();
        let container = Container { server, name, _scratch: scratch };
        container.server.journal.wait_for("ready");
        Some(container)
    }

    /// What a command of podman about this container says, and its exit code.
    fn podman(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = podman(words).output().expect("run podman");
        (output.status.code(), [text(&output.stdout), text(&output.stderr)].concat())
    }

    /// The same of a command of the server's in it.
    fn exec(&self, words: &[&str]) -> (Option<i32>, String) {
        let command = ["exec", &self.name, "/laneway"];
        self.podman(&[&command, words, &["--config", CONFIG]].concat())
    }

    fn inspect(&self, format: &str) -> String {
        let (code, told) = self.podman(&["inspect", "--format", format, &self.name]);
        assert_eq!(code, Some(0), "{told}");
        told
    }

    /// The processes that the supervisor has started, by their numbers outside: those of the workers of lanes come first.
    fn workers(&self) -> Vec<i32> {
        let supervisor = self.inspect("{{.State.Pid}}");
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let children = fs::read_to_string(children).expect("the children of pid 1");
        children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Of one that has ended by itself there is nothing left.
        let _ = podman(&["rm", "--force", "--ignore", "--time=0", &self.name]).output();
    }
}

#[test]
fn the_static_binary_names_no_folder_of_this_machine_and_has_a_list_of_its_parts() {
    if !binary().is_file() {
        return skipped("there is no target/static/laneway: deploy/build-static makes it");
    }
    let bytes = fs::read(binary()).expect("read the binary");
    let has = |part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
    assert!(!has(root().to_str().expect("a path in UTF-8")), "it names the repository's folder");
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|of| of + "/.cargo"));
    assert!(!has(&home.expect("a home")), "it names the folder of the libraries");
    let list = binary().with_file_name("laneway.cdx.json");
    let list: Value =
        serde_json::from_slice(&fs::read(list).expect("the list of its parts")).expect("JSON");
    assert_eq!(list["bomFormat"], "CycloneDX");
    assert_eq!(list["metadata"]["component"]["name"], "laneway");
    assert_eq!(list["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let parts = list["components"].as_array().expect("components");
    assert!(parts.iter().any(|part| part["name"] == "httparse"));
    assert!(!list.to_string().contains(root().to_str().expect("a path in UTF-8")));
}

#[test]
fn the_image_is_small_and_says_how_it_is_run() {
    let Some(image) = image() else { return };
    let told = done(podman(&["image", "inspect", &image.name])).expect("inspect the image");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let (image, config) = (&told[0], &told[0]["Config"]);
    let size = image["Size"].as_u64().expect("a size");
    assert!(size < IMAGE_BYTES_MAX, "it has {size} bytes");
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/laneway"]));
    assert_eq!(config["Cmd"], serde_json::json!(["--config", CONFIG]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"8080/tcp": {}}));
    let check = serde_json::json!(["CMD", "/laneway", "healthcheck", "--config", CONFIG]);
    assert_eq!(image["Healthcheck"]["Test"], check);
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), "MIT OR Apache-2.0");
}

#[test]
fn as_it_is_it_greets_and_serves_what_is_mounted_at_srv() {
    let folder = Scratch::new();
    folder.write("page.html", "<h1>mounted</h1>");
    // Another user than the folder's reads it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let volume = format!("--volume={}:/srv:ro", folder.path().display());
    for (options, found) in [(vec![], false), (vec![volume.as_str()], true)] {
        let Some(container) = Container::run(&options, None) else { return };
        let greeting = container.server.get("/");
        assert_eq!((greeting.status, greeting.text().contains("/srv")), (200, true));
        let page = container.server.get("/page.html");
        match found {
            true => assert_eq!((page.status, page.text()), (200, "<h1>mounted</h1>")),
            false => assert_eq!(page.status, 404),
        }
    }
}

#[test]
fn pid_1_replaces_and_reaps_a_worker_and_drains_when_it_is_stopped() {
    let config = "[workers]\nmode = \"processes\"\ncount = 1\n[[route]]\npath = \"/slow\"\ntext = \"slow\"\ndelay = \"2s\"\n\
                  [[route]]\npath = \"/\"\ntext = \"fast\"\n";
    let Some(mut container) = Container::run(&[], Some(config)) else { return };
    assert_eq!(container.server.journal.wait_for("ready").pid(), 1);
    let killed = container.workers()[0];
    send_signal(killed, SIGKILL);
    container.server.journal.wait_for("worker exited");
    eventually("it is reaped", || process_state(killed).is_none().then_some(()));
    container.server.journal.wait_nth("worker ready", 2);
    assert_eq!(container.workers().len(), 2, "of the lane, and of the admin address");
    let mut client = container.server.in_flight("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    let begun = Instant::now();
    let stopped = container.podman(&["stop", "--time=30", &container.name]);
    assert_eq!(stopped.0, Some(0), "{}", stopped.1);
    assert!(begun.elapsed() < Duration::from_secs(20), "the grace was not used up");
    assert_eq!(client.response().text(), "slow");
    container.server.journal.wait_for("drain started");
    assert_eq!(container.server.journal.wait_for("stopped").number("code"), 0);
    assert_eq!(container.server.wait_exit(), 0);
}

#[test]
fn cpus_of_the_container_are_the_number_of_lanes_and_the_log_says_why() {
    let Some(container) = Container::run(&["--cpus=1"], None) else { return };
    let sized = container.server.journal.wait_for("sized");
    assert_eq!(sized.number("lanes"), 1);
    if sized.number("affinity") > 1 {
        assert_eq!(sized.text("decided_by"), "quota");
        assert!(sized.text("reason").starts_with("the cgroup quota of 1.00 CPUs"), "{sized:?}");
    }
}

#[test]
fn a_worker_that_the_container_has_no_memory_for_is_replaced() {
    let config = "[workers]\nmode = \"processes\"\ncount = 1\n[limits]\nbody = \"1GiB\"\n[[route]]\npath = \"/\"\necho = \"body\"\n";
    let Some(container) = Container::run(&["--memory=48m", "--memory-swap=48m"], Some(config))
    else {
        return;
    };
    let mut client = Client::connect(container.address());
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n");
    let piece = vec![b'x'; 1 << 20];
    // Until the worker is gone, and its connections with it.
    let sent = (0..500).take_while(|_| client.try_send(&piece).is_ok()).count();
    assert!(sent < 500, "it has taken all of it");
    let exited = container.server.journal.wait_for("worker exited");
    assert!(exited.text("reason").contains("out of memory"), "{exited:?}");
    container.server.journal.wait_where("worker ready", |event| {
        event.has("lane") && event.number("pid") != exited.number("pid")
    });
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(Client::connect(container.address()).request(post).text(), "hi");
    assert_eq!(container.exec(&["healthcheck"]).0, Some(0));
}

#[test]
fn it_serves_from_a_file_system_that_it_may_not_write_to() {
    let options =
        ["--read-only", "--user=65532", "--cap-drop=all", "--security-opt=no-new-privileges"];
    let Some(container) = Container::run(&options, None) else { return };
    container.server.journal.wait_for("no command socket");
    assert!(Client::connect(container.address()).get("/").text().contains("from a container"));
    let (code, told) = container.exec(&["healthcheck"]);
    assert!(code == Some(0) && told.starts_with("alive: "), "{told}");
    let (code, told) = container.podman(&["healthcheck", "run", &container.name]);
    assert_eq!(code, Some(0), "{told}");
    drop(container);
    let Some(without) = Container::run_at(&options, None, "off") else { return };
    let (code, told) = without.exec(&["healthcheck"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("admin.listen is \"off\": set admin.listen"), "{told}");
    assert_eq!(without.podman(&["healthcheck", "run", &without.name]).0, Some(1));
}

#[test]
fn variables_count_more_than_the_configuration_in_the_image() {
    let variables = ["--env=LANEWAY_WORKERS__MODE=processes", "--env=LANEWAY_WORKERS__COUNT=3"];
    let Some(container) = Container::run(&variables, None) else { return };
    let listening = container.server.journal.wait_for("listening");
    assert_eq!((listening.text("mode"), listening.number("lanes")), ("processes", 3));
    // With a place for its socket it can be asked more than its health.
    let (code, told) = container.exec(&["status"]);
    assert!(code == Some(0) && told.contains("mode processes"), "{told}");
}

#[test]
fn a_container_whose_lanes_all_hang_is_unhealthy() {
    let variables = ["--env=LANEWAY_SUPERVISOR__WATCHDOG=0s", "--env=LANEWAY_WORKERS__COUNT=2"];
    let Some(container) = Container::run(&variables, None) else { return };
    assert_eq!(container.podman(&["healthcheck", "run", &container.name]).0, Some(0));
    let lanes = container.workers()[0];
    send_signal(lanes, SIGSTOP);
    eventually("the check fails", || {
        let (code, _) = container.podman(&["healthcheck", "run", &container.name]);
        (code == Some(1)).then_some(())
    });
    let (_, told) = container.exec(&["healthcheck"]);
    assert!(told.contains("every lane hangs"), "{told}");
    // As often as the image asks for.
    eventually("it is unhealthy", || {
        container.podman(&["healthcheck", "run", &container.name]);
        (container.inspect("{{.State.Health.Status}}") == "unhealthy").then_some(())
    });
    send_signal(lanes, SIGCONT);
    eventually("it is healthy again", || {
        let (code, _) = container.podman(&["healthcheck", "run", &container.name]);
        (code == Some(0)).then_some(())
    });
}

#[test]
fn epoll_serves_where_the_default_profile_forbids_io_uring_and_another_allows_it() {
    let driver = |options: &[&str]| {
        let container = Container::run(options, None)?;
        let ready = container.server.journal.wait_for("worker ready");
        let told = container.server.journal.named("no io_uring").len();
        assert!(Client::connect(container.address()).get("/").status == 200);
        Some((ready.text("driver").to_owned(), told))
    };
    let Some((free, _)) = driver(&["--security-opt=seccomp=unconfined"]) else { return };
    if free == "epoll" {
        return skipped("this kernel has no io_uring for a container");
    }
    let profile =
        format!("--security-opt=seccomp={}", root().join("deploy/seccomp.json").display());
    assert_eq!(driver(&[&profile]), Some(("io_uring".to_owned(), 0)));
    let by_default = driver(&[]).expect("a container");
    if by_default.0 == "io_uring" {
        return skipped("podman's default profile here allows io_uring");
    }
    assert_eq!(by_default, ("epoll".to_owned(), 1), "one line says so");
}

#[test]
fn the_profile_is_podmans_default_and_three_system_calls() {
    let mut package = Command::new("dpkg-query");
    package.args(["-W", "-f=${Version}", "golang-github-containers-common"]);
    if !done(package).is_ok_and(|version| version.starts_with("0.50.1")) {
        return skipped("the profile that is installed is not the one that it was made from");
    }
    if skip_without("python3") {
        return;
    }
    let made = done(Command::new(root().join("deploy/seccomp-profile"))).expect("run the script");
    let committed = fs::read(root().join("deploy/seccomp.json")).expect("the committed one");
    assert!(made == text(&committed), "deploy/seccomp-profile >deploy/seccomp.json makes it");
}
