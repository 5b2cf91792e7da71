//! What was measured, round by round.

use std::fmt;

use serde_json::Value;

use super::load::open::Latencies;

/// One mode under one load, in one round.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) latencies: Latencies,
    pub(crate) connections: Share,
    pub(crate) requests: Share,
}

/// What a SIGKILL of one worker cost, in one round.
#[derive(Clone, Copy)]
pub(crate) struct Blast {
    pub(crate) failed_requests: f64,
    /// From the signal until every client was answered again.
    pub(crate) full_service_ms: f64,
    /// The share of the clients whose connection broke.
    pub(crate) noticed: f64,
}

/// How unevenly something fell on the lanes: the most that one had, by the mean. 1 is even; all on one of two
/// lanes is 2.
#[derive(Clone, Copy)]
pub(crate) struct Share(pub(crate) f64);

impl Share {
    /// Of a counter of the lanes, between two looks at it.
    pub(crate) fn between(before: &[Value], after: &[Value], counter: &str) -> Share {
        let count = |lane: &Value| lane[counter].as_f64().unwrap_or_default();
        let grown: Vec<f64> =
            before.iter().zip(after).map(|(before, after)| count(after) - count(before)).collect();
        let mean = grown.iter().sum::<f64>() / grown.len() as f64;
        Share(grown.into_iter().fold(0.0, f64::max) / mean)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { requests_per_second, cpu_us, latencies, connections, .. } = self;
        write!(
            f,
            "{requests_per_second:7.0}/s  {cpu_us:5.2} µs  p99 {:.0} µs  max÷mean {:.2}",
            latencies.p99_us, connections.0
        )
    }
}

impl fmt::Display for Blast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blast { failed_requests, full_service_ms, noticed } = self;
        let percent = noticed * 100.0;
        write!(f, "{failed_requests} failed, {percent:.0} % noticed, {full_service_ms:.1} ms")
    }
}

/// All that was measured, by mode.
pub(crate) struct Rows {
    pub(crate) modes: Vec<&'static str>,
    /// By mode, then by load, then by round.
    pub(crate) figures: Vec<Vec<Vec<Figures>>>,
    pub(crate) memory_bytes: Vec<Vec<f64>>,
    pub(crate) blasts: Vec<Vec<Blast>>,
}

impl Rows {
    pub(crate) fn new(modes: &[&'static str], works: usize) -> Rows {
        Rows {
            modes: modes.to_vec(),
            figures: vec![vec![Vec::new(); works]; modes.len()],
            memory_bytes: vec![Vec::new(); modes.len()],
            blasts: vec![Vec::new(); modes.len()],
        }
    }
}
