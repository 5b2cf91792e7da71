//! A server under test: started pinned to a CPU, ready when `start` returns, gone when dropped.
//!
//! The bench starts itself, and that process pins itself, asks the kernel to end it should the bench die in
//! whatever way, and becomes the server. So no server outlives the bench, be it by panic, Ctrl-C or SIGKILL.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getppid};

use super::client::{self, REQUEST};
use super::installed::Installed;
use super::{Outcome, raw, usage};

const READY_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// First argument of the bench binary when it is to become a subject: then CPUs, parent, program, arguments.
const BECOME_SUBJECT: &str = "--become-subject";
/// Stands for the program when the subject is the floor; its argument is the response.
const FLOOR: &str = "floor";
const LOG_FILE: &str = "log";

/// What can be started.
#[derive(Clone)]
#[allow(dead_code, reason = "each bench starts its own kinds")]
pub(crate) enum Kind {
    /// The bare epoll loop, answering with these bytes.
    Floor(Vec<u8>),
    /// A laneway binary, with one lane and these settings (`KEY=VALUE`).
    Laneway { program: PathBuf, settings: &'static [&'static str] },
    /// A server from the path, with one worker and the body that laneway has.
    Installed(Installed),
    /// One of the servers in `benches/peers`, built as this program.
    Rust { program: PathBuf, name: &'static str },
}

/// A running server.
pub(crate) struct Subject {
    root: Child,
    /// The processes that serve: the root's children, and the root itself where it has none or serves too.
    workers: Vec<u32>,
    address: SocketAddr,
    directory: PathBuf,
}

impl Subject {
    /// Starts a server on `cpu` and waits until it is ready.
    pub(crate) fn start(kind: &Kind, cpu: usize) -> Outcome<Self> {
        Subject::start_on(kind, &[cpu])
    }

    /// Starts a server on these CPUs and waits until it is ready.
    pub(crate) fn start_on(kind: &Kind, cpus: &[usize]) -> Outcome<Self> {
        let directory = fresh_directory()?;
        let unresolved = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (arguments, fixed_address) = match kind {
            Kind::Floor(response) => (vec![FLOOR.into(), as_argument(response)], None),
            Kind::Laneway { program, settings } => (laneway_arguments(program, settings)?, None),
            Kind::Installed(server) => {
                let free = free_address()?;
                (server.prepare(&directory, free)?, Some(free))
            }
            Kind::Rust { program, name } => {
                let port = free_address()?.port().to_string();
                (vec![program.into(), name.into(), port.into()], None)
            }
        };
        let root = spawn(&arguments, &directory, cpus)?;
        let mut subject = Subject { root, workers: Vec::new(), address: unresolved, directory };
        subject.wait_ready(kind, fixed_address).map_err(|e| {
            let name = arguments[0].to_string_lossy();
            format!("{name}: {e}\n{}", subject.log().trim_end())
        })?;
        Ok(subject)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `server status` tells of a laneway that has `supervisor.pid_file=server.pid`.
    pub(crate) fn status(&self, program: &Path) -> Outcome<serde_json::Value> {
        let mut command = Command::new(program.canonicalize()?);
        command.args(["--set", "supervisor.pid_file=server.pid", "status", "--json"]);
        let output = command.current_dir(&self.directory).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The process that was started.
    pub(crate) fn root(&self) -> u32 {
        self.root.id()
    }

    /// CPU time of the processes that serve.
    pub(crate) fn cpu_time(&self) -> Outcome<usage::CpuTime> {
        self.workers
            .iter()
            .try_fold(usage::CpuTime::default(), |total, &pid| Ok(total + usage::cpu_time(pid)?))
    }

    /// Memory of the processes that serve.
    pub(crate) fn memory_bytes(&self) -> Outcome<u64> {
        self.workers.iter().copied().map(usage::memory_bytes).sum()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join(LOG_FILE)).unwrap_or_default()
    }

    fn wait_ready(&mut self, kind: &Kind, fixed_address: Option<SocketAddr>) -> Outcome<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(status) = self.root.try_wait()? {
                return Err(format!("ended before it was ready: {status}").into());
            }
            let ready = match fixed_address {
                // Accepted is not enough: the kernel does that before there is a worker.
                Some(address) => client::fetch(address).is_ok().then_some(address),
                None => ready_address(&self.log()),
            };
            if let Some(address) = ready {
                self.address = address;
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("not ready within {READY_TIMEOUT:?}").into());
            }
            sleep(POLL_INTERVAL);
        }
        self.workers = usage::children(self.root.id())?;
        let root_serves = matches!(kind, Kind::Installed(server) if server.root_serves());
        if self.workers.is_empty() || root_serves {
            self.workers.push(self.root.id());
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.root.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && matches!(self.root.try_wait(), Ok(None)) {
            sleep(POLL_INTERVAL);
        }
        // The group is its own (see `spawn`), and the workers of a server that did not stop are in it.
        let mut group_lives = killpg(pid, Signal::SIGKILL).is_ok();
        let _ = self.root.wait();
        while group_lives && Instant::now() < deadline + STOP_TIMEOUT {
            sleep(POLL_INTERVAL);
            group_lives = killpg(pid, None).is_ok();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// In a process that [`Subject::start`] made, becomes the subject and does not return while it serves.
/// In any other, returns at once.
pub(crate) fn become_subject_if_asked() -> Outcome<()> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != BECOME_SUBJECT) {
        return Ok(());
    }
    let mut argument = || arguments.next().ok_or("an argument is missing");
    let cpus = argument()?.to_string_lossy().into_owned();
    let parent = argument()?.to_string_lossy().parse()?;
    set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != Pid::from_raw(parent) {
        return Err("the bench died before its subject had started".into());
    }
    let cpus = cpus.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    pin_to(&cpus)?;
    let program = arguments.next().ok_or("no program")?;
    if program == FLOOR {
        let response = arguments.next().ok_or("no response")?;
        return raw::serve(REQUEST.len(), response.as_bytes());
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", program.display()).into())
}

/// Restricts the calling thread, and what it starts, to one CPU.
pub(crate) fn pin(cpu: usize) -> Outcome<()> {
    pin_to(&[cpu])
}

fn pin_to(cpus: &[usize]) -> Outcome<()> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .map_err(|e| format!("cannot run on CPUs {cpus:?}: {e}"))?;
    Ok(())
}

fn spawn(arguments: &[OsString], directory: &Path, cpus: &[usize]) -> Outcome<Child> {
    let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(BECOME_SUBJECT)
        .args([cpus.join(","), std::process::id().to_string()])
        .args(arguments)
        .current_dir(directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(directory.join(LOG_FILE))?);
    for (name, _) in env::vars_os() {
        if name.as_bytes().starts_with(b"LANEWAY_") {
            command.env_remove(name); // would be configuration
        }
    }
    Ok(command.spawn()?)
}

fn laneway_arguments(program: &Path, settings: &[&str]) -> Outcome<Vec<OsString>> {
    let program = program.canonicalize().map_err(|e| format!("{}: {e}", program.display()))?;
    let mut arguments = vec![program.into_os_string()];
    let own = [r#"server.listen="127.0.0.1:0""#, "workers.count=1", "log.format=json"];
    for setting in own.iter().chain(settings) {
        arguments.extend(["--set".into(), (*setting).into()]);
    }
    Ok(arguments)
}

/// For servers that cannot report a port that the kernel chose. This one was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The address of the `listening` event, once the `ready` event is there too.
fn ready_address(log: &str) -> Option<SocketAddr> {
    let mut address = None;
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        match event["message"].as_str() {
            Some("listening") => address = event["address"].as_str()?.parse().ok(),
            Some("ready") => return address,
            _ => {}
        }
    }
    None
}

fn as_argument(bytes: &[u8]) -> OsString {
    std::ffi::OsStr::from_bytes(bytes).to_owned()
}

/// An empty directory, so that no `config.toml` applies.
fn fresh_directory() -> Outcome<PathBuf> {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let name = format!("laneway-bench-{}-{nanos}", std::process::id());
    let directory = env::temp_dir().join(name);
    fs::create_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    Ok(directory)
}
