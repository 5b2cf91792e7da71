//! Facts as log events. The names and fields of events are part of the interface: DESIGN.md lists them.

use std::time::Duration;

use super::policy::Fact;
use crate::observe::ledger::Ledger;
use crate::sys::process::{self, ProcessId};
use crate::worker::control::News;
use crate::worker::{Generation, Lane};

/// A worker is on its way.
pub(super) fn started(lane: &Lane, pid: ProcessId, generation: u64) {
    tracing::info!(lane = lane.index, cpu = lane.cpu, pid, generation, "worker started");
}

/// What a worker told of itself, short of its end.
pub(super) fn news(lane: usize, pid: ProcessId, news: &News) {
    match news {
        News::RequestPanicked(message) => {
            tracing::error!(lane, pid, reason = message, "request panicked");
        }
        News::AcceptPaused(reason) => {
            let remedy = "raise the limit on open files, or lower workers.max_connections";
            tracing::warn!(lane, pid, reason, remedy, "accept paused");
        }
        News::AcceptResumed => tracing::info!(lane, pid, "accept resumed"),
        News::Ready | News::Failed(_) | News::Panicked(_) => {}
    }
}

/// What the policy has to say.
pub(super) fn fact(fact: &Fact, of: &Generation, pid_of: impl Fn(usize) -> ProcessId) {
    let generation = of.number;
    match fact {
        Fact::WorkerReady { lane } => {
            tracing::info!(lane, pid = pid_of(*lane), generation, "worker ready");
        }
        Fact::AllReady => {
            tracing::info!(lanes = of.ledger.lanes(), pid = process::id(), generation, "ready");
        }
        Fact::WorkerExited { lane, cause } => {
            let connections = of.ledger.lane(*lane).open();
            let pid = pid_of(*lane);
            tracing::error!(lane, pid, generation, reason = cause, connections, "worker exited");
        }
        Fact::WorkerRestarting { lane, delay_ms, restarts } => {
            tracing::warn!(lane, generation, delay_ms, restarts, "worker restarting");
        }
        Fact::WorkerGaveUp { lane, restarts } => {
            let window_s = of.config.supervisor.restart_window.as_secs_f64();
            tracing::error!(lane, generation, restarts, window_s, "worker gave up");
        }
        Fact::NotReadyInTime { lane } => {
            let timeout_s = of.config.supervisor.ready_timeout.as_secs_f64();
            tracing::error!(lane, pid = pid_of(*lane), timeout_s, "worker not ready in time");
        }
        Fact::CouldNotStart { cause } => tracing::error!(reason = cause, "could not start"),
        Fact::DrainStarted { reason } => {
            let timeout_s = of.config.supervisor.drain_timeout.as_secs_f64();
            tracing::info!(reason, timeout_s, generation, "drain started");
        }
        Fact::DrainDone => tracing::info!(generation, "drain done"),
        Fact::DrainDeadline => {
            let lanes = 0..of.ledger.lanes();
            let connections: u64 = lanes.map(|lane| of.ledger.lane(lane).open()).sum();
            tracing::warn!(connections, generation, "drain deadline");
        }
        Fact::StopForced { reason } => tracing::warn!(reason, generation, "stop forced"),
    }
}

/// The last line.
pub(super) fn stopped(code: i32, uptime: Duration, ledger: &Ledger) {
    let lanes = || (0..ledger.lanes()).map(|lane| ledger.lane(lane));
    let connections: u64 = lanes().map(|lane| lane.accepted()).sum();
    let requests: u64 = lanes().map(|lane| lane.requests()).sum();
    let uptime_s = (uptime.as_secs_f64() * 1000.0).round() / 1000.0;
    tracing::info!(code, uptime_s, connections, requests, "stopped");
}
