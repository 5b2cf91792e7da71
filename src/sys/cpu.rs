//! CPUs and descriptors: the affinity mask, pinning, the machine's own count, `RLIMIT_NOFILE`.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

/// Pins this thread to `cpu`; false if the kernel refuses.
pub fn pin(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

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
