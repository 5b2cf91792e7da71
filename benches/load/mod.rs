//! What benchmarks share: subjects to measure (servers, pinned to one core), a client that costs less than
//! they do, and the numbers.
//!
//! CPU per request is the figure to trust: throughput depends on what else the machine does, and on the
//! client; the CPU time that the kernel charges to the server does so much less.

pub mod client;
pub mod raw;
pub mod subject;

/// The middle value; the mean of the two middle ones for an even count.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}

/// CPU model, cores and kernel, in one line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split(": ").nth(1)).unwrap_or("unknown CPU");
    let cores = laneway::sys::cpu::allowed().len();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} CPUs, Linux {}", kernel.trim())
}
