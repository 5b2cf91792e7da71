//! What the kernel knows of this process: its time, memory and descriptors.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use procfs::WithCurrentSystemInfo;

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time on a CPU, for itself and within the kernel.
    pub cpu: Duration,
    /// Memory mapped, in bytes.
    pub virtual_bytes: u64,
    /// Memory resident, in bytes.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub open_files: u64,
    /// How many descriptors there may be.
    pub open_files_max: u64,
    /// When it started, since 1970.
    pub started: Duration,
}

/// What this process uses.
///
/// # Errors
/// If there is no /proc.
pub fn usage() -> io::Result<Usage> {
    let process = procfs::process::Process::myself().map_err(io::Error::other)?;
    let stat = process.stat().map_err(io::Error::other)?;
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    let times = times.map(|of| Duration::new(of.tv_sec() as u64, of.tv_usec() as u32 * 1000));
    let ticks = procfs::ticks_per_second();
    let booted = Duration::from_secs(procfs::boot_time_secs().map_err(io::Error::other)?);
    Ok(Usage {
        cpu: times.iter().sum(),
        virtual_bytes: stat.vsize,
        resident_bytes: stat.rss_bytes().get(),
        open_files: process.fd_count().map_err(io::Error::other)? as u64,
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE)?.0,
        started: booted + Duration::from_millis(stat.starttime.saturating_mul(1000) / ticks.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors_and_has_started() {
        let usage = usage().expect("/proc");
        assert!(usage.virtual_bytes >= usage.resident_bytes && usage.resident_bytes > 0);
        assert!((3..=usage.open_files_max).contains(&usage.open_files), "{usage:?}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        assert!(
            usage.started <= now && now - usage.started < Duration::from_secs(86_400),
            "{usage:?}"
        );
    }
}
