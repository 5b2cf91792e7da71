//! CPUs and descriptors: the affinity mask, pinning, the machine's own count, `RLIMIT_NOFILE`.

pub mod cgroup;

use std::io;
use std::time::Duration;

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::Pid;

/// The CPUs that this thread may run on, in ascending order; empty if the kernel doesn't tell.
pub fn allowed() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|core| core.id).collect()
}

/// What num_cpus makes of this process: the affinity mask, limited by the quota of its own cgroup,
/// rounded up. It remembers the quota it read first.
pub fn counted() -> usize {
    num_cpus::get()
}

/// Pins this thread to `cpu`; false if the kernel refuses, or that is beyond what a mask has room for.
pub fn pin(cpu: usize) -> bool {
    cpu < libc::CPU_SETSIZE as usize
        && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Has this thread run wherever the first thread of its process may, and not where the one that started it is pinned.
pub fn run_where_process_does() {
    // A thread that is not allowed to is slower, and does its work.
    let _ = sched_getaffinity(Pid::this())
        .and_then(|allowed| sched_setaffinity(Pid::from_raw(0), &allowed));
}

/// How long this thread has been on a CPU, for itself and within the kernel, since it started.
pub fn thread_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    let times = [usage.user_time(), usage.system_time()];
    Some(
        times
            .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
            .iter()
            .sum(),
    )
}

/// Descriptors that a process needs, at most, besides its connections, its listening sockets, and what the supervisor
/// has of each process.
pub const OTHER_FILES: u64 = 32;

/// The limit on open descriptors.
pub fn file_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Raises the limit on open descriptors to its hard limit, and returns that.
pub fn raise_file_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_no_mask_has_room_for_is_refused() {
        for cpu in [libc::CPU_SETSIZE as usize, usize::MAX] {
            assert!(!pin(cpu));
        }
    }
}
