//! A server under test: started on one core, asked for its address, measured through /proc, and ended.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use laneway::sys::cpu;

/// The core that servers run on.
pub const SERVER_CPU: usize = 0;
/// The core that the client runs on.
pub const CLIENT_CPU: usize = 1;

/// A running server. It is ended when this is dropped, after a panic too.
pub struct Subject {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// The processes whose cost counts: the workers.
    workers: Vec<u32>,
}

/// The environment variable that makes this program the floor; its value is where the response is.
pub const FLOOR: &str = "LANEWAY_BENCH_FLOOR";

impl Subject {
    /// laneway with one lane, from the binary at `program`, with the built-in defaults.
    pub fn laneway(program: &str) -> Subject {
        let mut command = Command::new(program);
        command.args(["--set", "server.listen=127.0.0.1:0", "--set", "workers.count=1"]);
        command.args(["--set", "log.format=json"]).current_dir(std::env::temp_dir());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANEWAY_")) {
            command.env_remove(name);
        }
        let mut child = spawn(command.stderr(Stdio::piped()).stdout(Stdio::null()));
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut address = None;
        loop {
            let line = lines.next().expect("it becomes ready").expect("text");
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            match event["message"].as_str() {
                Some("listening") => {
                    address = event["address"].as_str().and_then(|text| text.parse().ok())
                }
                Some("ready") => break,
                _ => {}
            }
        }
        // Somebody has to read the log on, or the supervisor would wait for room in the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let workers = children(child.id());
        assert!(!workers.is_empty(), "the supervisor has workers");
        Subject { child, address: address.expect("its address"), workers }
    }

    /// The floor, as a process of its own that answers `request_bytes` with `response`.
    pub fn floor(request_bytes: usize, response: &[u8]) -> Subject {
        let file = floor_file();
        std::fs::write(&file, response).expect("write the floor's response");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(FLOOR, &file).arg(request_bytes.to_string());
        let mut child = spawn(command.stdout(Stdio::piped()));
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        output.read_line(&mut line).expect("its address");
        let workers = vec![child.id()];
        Subject { child, address: line.trim().parse().expect("its address"), workers }
    }

    /// CPU time of the workers so far, user and system.
    pub fn cpu_time(&self) -> Duration {
        let of_task = |path: PathBuf| {
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0_u64)
        };
        let tasks = self.workers.iter().flat_map(|pid| entries(&format!("/proc/{pid}/task")));
        Duration::from_nanos(tasks.map(of_task).sum())
    }

    /// Anonymous memory of the workers in bytes: heap and stacks, no code, nothing of the kernel's.
    pub fn memory_bytes(&self) -> u64 {
        let of_worker = |pid: &u32| {
            let text =
                std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let kib = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
            kib.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.workers.iter().map(of_worker).sum::<u64>() * 1024
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for pid in &self.workers {
            // The workers drain when the supervisor is gone; there is nothing to drain for here.
            let pid = nix::unistd::Pid::from_raw(*pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn floor_file() -> PathBuf {
    std::env::temp_dir().join(format!("laneway-floor-{}", std::process::id()))
}

/// Starts a program on the servers' core, and comes back to the client's.
fn spawn(command: &mut Command) -> Child {
    assert!(cpu::pin(SERVER_CPU), "cannot pin to CPU {SERVER_CPU}");
    let child = command.spawn().expect("start the server");
    assert!(cpu::pin(CLIENT_CPU), "cannot pin to CPU {CLIENT_CPU}: two CPUs are needed");
    child
}

fn children(pid: u32) -> Vec<u32> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
