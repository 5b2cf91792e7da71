//! What every integration test stands on: a real `server` process, its log as events, and raw sockets.
//!
//! A [`Setup`] says how to start, a [`Server`] is the running process. Every process of a server
//! inherits a mark in its environment; dropping the `Server` kills whatever still carries the mark and
//! fails the test if something survives, so that no test leaves a process behind. Tests wait for events
//! (a log line, a byte, an end of stream), never for a length of time that is hoped to be enough.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test binary uses its own part of the harness"
)]

mod client;
mod front;
mod journal;
mod kernel;
mod link;
mod profile;
mod site;
mod tools;
mod traffic;

pub(crate) use client::{Client, Response, Target, is_refused};
pub(crate) use front::Front;
pub(crate) use journal::{Event, Journal};
pub(crate) use kernel::*;
pub(crate) use link::{Link, ONE_WAY, ROUND_TRIP};
pub(crate) use profile::restricted;
pub(crate) use site::{NEW, OLD, Site, links, reload, replace_program};
pub(crate) use tools::{checked_by, installed, python_with};
pub(crate) use traffic::{Tally, Traffic};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::{self, Display};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long an event may take before its test fails; generous, since only failures ever wait for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The body of the route that every server of these tests has at `/`, unless it states its own routes.
pub(crate) const GREETING: &str = "Hello from the tests\n";

/// How a server spreads its work and moves its bytes: the settings that every test of the suite is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) workers: Workers,
    pub(crate) accept: Accept,
    pub(crate) engine: Engine,
    pub(crate) driver: Driver,
}

/// `workers.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    Threads,
    Processes,
}

/// `workers.accept`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    Reuseport,
    Shared,
    Handoff,
}

/// `workers.driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Auto,
    Epoll,
}

/// `workers.engine`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Native,
    May,
}

impl Mode {
    pub(crate) const THREADS: Mode = Mode::new(Workers::Threads, Accept::Reuseport);
    pub(crate) const PROCESSES: Mode = Mode::new(Workers::Processes, Accept::Reuseport);

    pub(crate) const MAY: Mode = Mode { engine: Engine::May, ..Mode::PROCESSES };

    pub(crate) const fn new(workers: Workers, accept: Accept) -> Mode {
        Mode { workers, accept, engine: Engine::Native, driver: Driver::Auto }
    }

    pub(crate) const fn on_epoll(workers: Workers, accept: Accept) -> Mode {
        Mode { driver: Driver::Epoll, ..Mode::new(workers, accept) }
    }

    pub(crate) fn is_threads(self) -> bool {
        self.workers == Workers::Threads
    }

    /// Threads for processes, and the other way round.
    pub(crate) fn other(self) -> Mode {
        let workers = if self.is_threads() { Workers::Processes } else { Workers::Threads };
        Mode { workers, ..self }
    }

    /// Whether many connections are sure to reach every lane. Where all share a socket, one may be quickest always.
    pub(crate) fn spreads(self) -> bool {
        self.accept != Accept::Shared
    }

    /// How many sockets each address has with so many lanes.
    pub(crate) fn sockets(self, lanes: usize) -> usize {
        if self.accept == Accept::Reuseport { lanes } else { 1 }
    }

    /// The processes of a generation with so many lanes.
    pub(crate) fn processes(self, lanes: usize) -> usize {
        match (self.workers, self.accept) {
            (Workers::Threads, _) => 1,
            (Workers::Processes, Accept::Handoff) => lanes + 1,
            (Workers::Processes, _) => lanes,
        }
    }
}

impl Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Workers::Threads => "threads",
            Workers::Processes => "processes",
        })
    }
}

impl Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Auto => "auto",
            Driver::Epoll => "epoll",
        })
    }
}

impl Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accept::Reuseport => "reuseport",
            Accept::Shared => "shared",
            Accept::Handoff => "handoff",
        })
    }
}

/// Makes a test of each named function for every mode, and for either driver with each way to accept.
///
/// A function that takes a [`Mode`] and is missing here is never used, which the compiler reports.
macro_rules! in_every_mode {
    ($($case:ident),+ $(,)?) => {
        $crate::harness::in_mode!(threads, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        $crate::harness::in_mode!(threads_epoll, on_epoll(Workers::Threads, Accept::Reuseport), [$($case),+]);
        $crate::harness::in_mode!(processes, new(Workers::Processes, Accept::Reuseport), [$($case),+]);
        $crate::harness::in_mode!(threads_shared, new(Workers::Threads, Accept::Shared), [$($case),+]);
        $crate::harness::in_mode!(processes_shared, on_epoll(Workers::Processes, Accept::Shared), [$($case),+]);
        $crate::harness::in_mode!(threads_handoff, on_epoll(Workers::Threads, Accept::Handoff), [$($case),+]);
        $crate::harness::in_mode!(processes_handoff, new(Workers::Processes, Accept::Handoff), [$($case),+]);
    };
}
pub(crate) use in_every_mode;

/// The same for the engine `may`, with those of the functions that it can pass.
macro_rules! in_may {
    ($($case:ident),+ $(,)?) => {
        #[cfg(feature = "may")]
        $crate::harness::in_mode!(may, MAY, [$($case),+]);
    };
}
pub(crate) use in_may;

macro_rules! in_mode {
    ($name:ident, $mode:ident $(($($of:expr),+))?, [$($case:ident),+ $(,)?]) => {
        mod $name {
            #[allow(unused_imports, reason = "not every mode is made of these")]
            use $crate::harness::{Accept, Mode, Workers};
            const MODE: Mode = Mode::$mode $(($($of),+))?;
            $(#[test] fn $case() { crate::$case(MODE) })+
        }
    };
}
pub(crate) use in_mode;

/// Reports why a test does not run here. Written past libtest's capture, so that it is always seen.
pub(crate) fn skipped(reason: impl Display) {
    let test = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", test.name().unwrap_or("unnamed test"));
    // A closed stderr is no reason to fail a test that is not run.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// True, with a visible reason, where a program that the test is made with is not installed.
pub(crate) fn skip_without(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    if !found {
        skipped(format_args!("`{program}` is not installed"));
    }
    !found
}

/// True, with a visible reason, in a release build: it has no fault injection.
pub(crate) fn skip_without_faults() -> bool {
    if !cfg!(debug_assertions) {
        skipped("fault injection exists in debug builds only");
    }
    !cfg!(debug_assertions)
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn unique_name() -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("laneway-test-{}-{number}", std::process::id())
}

/// A loopback address that no other test uses, so that a test may choose its ports freely: up to 2,500 of each test
/// process, and the same only for processes whose pids differ by a multiple of 6,250.
pub(crate) fn private_loopback(port: u16) -> SocketAddr {
    static ADDRESSES: AtomicU32 = AtomicU32::new(0);
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let parts = [process, process / 250 % 25 * 10 + number / 250 % 10, number];
    let [of_process, high, low] = parts.map(|part| 1 + (part % 250) as u8);
    let ip = Ipv4Addr::new(127, of_process, high, low);
    SocketAddrV4::new(ip, port).into()
}

/// A folder of one test's own; removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique_name());
        fs::create_dir_all(&path).expect("make the test's folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        // Whole at once: a server may be about to read it.
        let draft = self.0.join(format!("{name}.draft"));
        fs::write(&draft, content).expect("write into the test's folder");
        fs::rename(&draft, &path).expect("put the file in place");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies under the target folder, where `cargo clean` finds it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How to start a server: the arguments and the environment, a launcher around it.
pub(crate) struct Setup {
    scratch: Scratch,
    config: Option<String>,
    config_path: Option<PathBuf>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    arguments: Vec<String>,
    binary: PathBuf,
    stdin: Option<OwnedFd>,
    cpus: Option<Vec<usize>>,
}

impl Setup {
    /// Two lanes on a free port of 127.0.0.1, with a greeting at `/`.
    pub(crate) fn new(mode: Mode) -> Self {
        Self::bare()
            .config(format!("[[route]]\npath = \"/\"\ntext = {GREETING:?}\n# more routes follow\n"))
            .set("workers.mode", mode.workers)
            .set("workers.accept", mode.accept)
            .engine(mode.engine)
            .set("workers.driver", mode.driver)
            .set("workers.count", 2)
            .set("server.listen", "127.0.0.1:0")
            .set("log.format", "json")
    }

    fn engine(self, engine: Engine) -> Self {
        // A binary that was built without the feature knows no other than the native one.
        if engine == Engine::May { self.set("workers.engine", "may") } else { self }
    }

    /// No arguments at all, in an empty folder.
    pub(crate) fn bare() -> Self {
        Self {
            scratch: Scratch::new(),
            config: None,
            config_path: None,
            settings: Vec::new(),
            environment: Vec::new(),
            launcher: Vec::new(),
            arguments: Vec::new(),
            binary: env!("CARGO_BIN_EXE_server").into(),
            stdin: None,
            cpus: None,
        }
    }

    /// Sets a key; the last value counts. Strings need no quotes, since `--set` takes them plain.
    pub(crate) fn set(mut self, key: &str, value: impl Display) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Leaves a key to the file, the environment or its default.
    pub(crate) fn unset(mut self, key: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self
    }

    pub(crate) fn lanes(self, count: usize) -> Self {
        self.set("workers.count", count)
    }

    /// Replaces the configuration file.
    pub(crate) fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// Names a configuration file of the test's own making, or one that does not exist.
    pub(crate) fn config_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_path = Some(path.into());
        self
    }

    /// Adds `[[route]]` tables to the configuration file.
    pub(crate) fn routes(mut self, toml: &str) -> Self {
        let config = self.config.get_or_insert_default();
        config.push_str(toml);
        config.push('\n');
        self
    }

    /// Adds one route from the lines of its table.
    pub(crate) fn route(self, path: &str, lines: &str) -> Self {
        self.routes(&format!("[[route]]\npath = {path:?}\n{lines}\n"))
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Enables fault injection, as in `requests` or `start`.
    pub(crate) fn faults(self, kind: &str) -> Self {
        self.env("LANEWAY_FAULTS", kind)
    }

    /// Starts this binary instead of the one that was built.
    pub(crate) fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = path.into();
        self
    }

    /// Further arguments, behind the others.
    pub(crate) fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// What it finds as its standard input.
    pub(crate) fn stdin(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(file.into());
        self
    }

    /// Starts the server through another program, which must end up executing its last arguments.
    pub(crate) fn under(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// The affinity mask that the server finds at its start, as `taskset` sets it.
    pub(crate) fn on_cpus(mut self, cpus: &[usize]) -> Self {
        self.cpus = Some(cpus.to_vec());
        self
    }

    /// The folder that the server is started in; `config.toml` of `--config` lies elsewhere.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Starts it and waits until it says `ready`.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let server = self.spawn();
        server.journal.wait_for("ready");
        server
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(mut self) -> Server {
        let mark = unique_name();
        let mut command = self.command(&mark);
        if let Some(file) = self.stdin.take() {
            command.stdin(file);
        }
        let child = match self.cpus {
            None => command.spawn(),
            Some(cpus) => spawn_on(&mut command, &cpus),
        };
        let mut child = child.expect("start the server");
        let stderr = child.stderr.take().expect("stderr is piped");
        Server { child, status: None, mark, journal: Journal::read(stderr), scratch: self.scratch }
    }

    fn command(&self, mark: &str) -> Command {
        let binary = self.binary.to_string_lossy().into_owned();
        let mut words = self.launcher.iter().cloned().chain([binary]);
        let mut command = Command::new(words.next().expect("at least the server itself"));
        command.args(words);
        let written = self.config.as_ref();
        let written = written.map(|config| self.scratch.write("test-config.toml", config));
        if let Some(path) = self.config_path.clone().or(written) {
            command.arg("--config").arg(path);
        }
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.args(&self.arguments);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"LANEWAY_") {
                command.env_remove(name);
            }
        }
        command
            // Its command socket is its own, where it has no pid file.
            .env("XDG_RUNTIME_DIR", self.scratch.path())
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.iter().cloned())
            .env(MARK, mark)
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// A child inherits the mask of the thread that starts it; the thread is one made for this alone.
fn spawn_on(command: &mut Command, cpus: &[usize]) -> std::io::Result<Child> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).expect("a CPU that the mask can hold");
    }
    std::thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            sched_setaffinity(Pid::from_raw(0), &set).expect("set the affinity mask");
            command.spawn()
        });
        spawned.join().expect("the starting thread")
    })
}

/// A started server. Dropping it leaves no process behind.
pub(crate) struct Server {
    child: Child,
    status: Option<ExitStatus>,
    mark: String,
    pub(crate) journal: Journal,
    scratch: Scratch,
}

impl Server {
    /// The pid of what was started: the supervisor, or the launcher where that one stays.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Every address of the internet's families it said that it serves, in that order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let listening = self.journal.named("listening");
        let serving = listening.iter().filter(|event| !event.has("role"));
        let addresses = serving.map(|event| event.text("address"));
        let internet = addresses.filter(|address| !address.starts_with("unix:"));
        internet.map(|address| address.parse().expect("a socket address")).collect()
    }

    /// The folder that it was started in.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// The first address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    /// Connections that have each been answered once, so that a worker has accepted every one.
    #[track_caller]
    pub(crate) fn served_connections(&self, count: usize) -> Vec<Client> {
        let served = |_| {
            let mut client = self.connect();
            assert_eq!(client.get("/").status, 200);
            client
        };
        (0..count).map(served).collect()
    }

    /// Sends a request on a connection of its own and returns once the lane has read it. Needs a server
    /// with one lane: a second connection's answer proves that the loop got past the first's bytes.
    #[track_caller]
    pub(crate) fn in_flight(&self, request: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect();
        assert_eq!(client.get("/").status, 200);
        let mut pacer = self.connect();
        assert_eq!(pacer.get("/").status, 200);
        client.send(request);
        assert_eq!(pacer.get("/").status, 200);
        client
    }

    /// The process of the worker that last became ready on a lane.
    #[track_caller]
    pub(crate) fn worker_pid(&self, lane: u64) -> i32 {
        let ready = self.journal.named("worker ready");
        let is_its = |event: &&Event| event.has("lane") && event.number("lane") == lane;
        let of_lane = ready.iter().rfind(is_its);
        of_lane.expect("the lane's worker was ready").pid()
    }

    /// Signals the supervisor.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "the server has exited already");
        send_signal(self.pid(), signal);
    }

    /// Waits for its end and returns the exit code.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> i32 {
        let status = eventually("the server exits", || self.exited());
        status.code().unwrap_or_else(|| panic!("the server was ended by a signal: {status}"))
    }

    /// The exit status, if it has exited.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for the server");
        }
        self.status
    }

    /// Kills the supervisor with SIGKILL and reaps it.
    pub(crate) fn kill_supervisor(&mut self) {
        self.child.kill().expect("kill the supervisor");
        self.status = Some(self.child.wait().expect("reap the supervisor"));
    }

    /// Every living process that descends from what was started. A zombie is none.
    pub(crate) fn processes(&self) -> Vec<i32> {
        marked_processes(&self.mark)
    }

    /// Waits until no process of this server is left.
    #[track_caller]
    pub(crate) fn wait_gone(&self) {
        eventually("every process of the server ends", || {
            self.processes().is_empty().then_some(())
        });
    }

    fn clean_up(&mut self) -> Result<(), String> {
        if self.exited().is_none() {
            // Fails only if it exited in between, and then `wait` says so.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("processes {left:?} could not be killed"));
            }
            for pid in left {
                // ESRCH: it ended by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let cleaned = self.clean_up();
        if std::thread::panicking() {
            eprintln!("the log of the server:\n{}", self.journal);
        } else if let Err(problem) = cleaned {
            panic!("{problem}");
        }
    }
}

/// Signals a process that is known to live.
pub(crate) fn send_signal(pid: i32, signal: Signal) {
    assert!(pid > 1, "{pid} is no process of a test");
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("send {signal} to {pid}: {e}"));
}

/// Waits for something that announces itself in no other way than by being looked at.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass where time itself is what the test is about (a slow client, a measured second).
pub(crate) fn let_time_pass(time: Duration) {
    std::thread::sleep(time);
}
