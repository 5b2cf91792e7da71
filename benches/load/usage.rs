//! CPU time and memory of processes, and the machine they run on, read from `/proc`.

use std::fs;
use std::ops::{Add, Sub};
use std::time::Duration;

use super::Outcome;

/// What the scheduler has counted for a process since it started.
#[derive(Clone, Copy, Default)]
pub(crate) struct CpuTime {
    /// On a CPU, user and system.
    pub(crate) used: Duration,
    /// Runnable, but waiting for a CPU.
    pub(crate) waited: Duration,
}

impl Add for CpuTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        CpuTime { used: self.used + other.used, waited: self.waited + other.waited }
    }
}

impl Sub for CpuTime {
    type Output = Self;

    /// Saturates: a thread that ended in between takes its time with it.
    fn sub(self, earlier: Self) -> Self {
        CpuTime {
            used: self.used.saturating_sub(earlier.used),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// CPU time of all threads of a process. In nanoseconds where `/proc/<pid>/stat` counts in ticks of 10 ms.
pub(crate) fn cpu_time(pid: u32) -> Outcome<CpuTime> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|e| format!("process {pid} is gone: {e}"))?;
    let mut total = CpuTime::default();
    for task in tasks {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(used_ns)), Some(Ok(waited_ns))) = (fields.next(), fields.next()) else {
            return Err(format!("schedstat of process {pid} reads {text:?}").into());
        };
        total = total
            + CpuTime {
                used: Duration::from_nanos(used_ns),
                waited: Duration::from_nanos(waited_ns),
            };
    }
    Ok(total)
}

/// Memory that a process has written and no file backs, in bytes: its heap, its stacks, its part of what it
/// shares with other processes.
pub(crate) fn memory_bytes(pid: u32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| -> Outcome<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
        Ok(number.ok_or_else(|| format!("smaps_rollup has no {name}"))?.parse()?)
    };
    Ok((kib("Anonymous:")? + kib("Pss_Shmem:")?) * 1024)
}

/// The children of a process, whichever of its threads made them.
pub(crate) fn children(pid: u32) -> Outcome<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("children"))
            .map_err(|e| format!("the kernel lists no children (CONFIG_PROC_CHILDREN): {e}"))?;
        for child in text.split_ascii_whitespace() {
            children.push(child.parse()?);
        }
    }
    Ok(children)
}

/// CPU model, number of CPUs and kernel.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    // Not `num_cpus`: the bench has pinned itself to one of them.
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    // What follows the version names a build of it.
    let version = kernel.trim().split('-').next().unwrap_or_default();
    format!("{model}, {cpus} CPUs, Linux {version}")
}

/// Whether two CPUs are hyper-threads of one core, which makes their figures depend on each other.
fn share_a_core(one: usize, other: usize) -> bool {
    let core = |cpu| {
        fs::read_to_string(format!(
            "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        ))
        .ok()
    };
    core(one).is_some() && core(one) == core(other)
}

/// Says on what is measured.
pub(crate) fn print_machine(server_cpu: usize, client_cpu: usize) {
    println!("{}; server on CPU {server_cpu}, client on CPU {client_cpu}", machine());
    if share_a_core(server_cpu, client_cpu) {
        println!(
            "note: both CPUs are threads of one core; choose others with --server-cpu and --client-cpu"
        );
    }
}
