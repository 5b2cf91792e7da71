//! What happens, as log events. Their names and fields are part of the interface: docs/events.md lists them, and a
//! test compares. Nothing is decided here, and nothing is kept.

use std::time::Duration;

use super::policy::{Fact, Worker};
use super::processes::{Processes, WorkerRecord, WorkerRecords, sizing};
use crate::config::RoutePath;
use crate::control::WorkerEvent;
use crate::observe::ledger::{Doing, Levels};
use crate::sys::process::{self, ProcessId};

/// The fields that say which worker an event is about.
struct Subject {
    lane: Option<usize>,
    /// "acceptor", if it drives no lane.
    role: Option<&'static str>,
    pid: Option<ProcessId>,
    generation: Option<u64>,
}

impl Subject {
    /// A worker that could not be forked has no pid.
    fn of(worker: Worker, records: &WorkerRecords) -> Subject {
        let (lane, role) = (worker.role.lane(), worker.role.log_name());
        let record = records.get(worker.number);
        let pid = record.and_then(|record| record.pid);
        Subject { lane, role, pid, generation: record.map(|record| record.generation.0) }
    }
}

/// A worker was started.
pub(crate) fn worker_started(worker: Worker, records: &WorkerRecords) {
    let Subject { lane, role, pid, generation } = Subject::of(worker, records);
    let cpu = records.get(worker.number).and_then(|record| record.cpu);
    tracing::info!(lane, role, cpu, pid, generation, "worker started");
}

/// Workers use another driver, because they can't have io_uring.
pub(crate) fn no_io_uring(driver: &str, reason: &str) {
    tracing::info!(driver, reason, "no io_uring");
}

/// What a worker reported that is for the log alone.
pub(crate) fn worker_event(record: &WorkerRecord, event: &WorkerEvent, records: &WorkerRecords) {
    let Subject { lane, role, pid, generation } = Subject::of(record.worker, records);
    match event {
        WorkerEvent::RequestPanicked(message) => {
            tracing::error!(lane, pid, generation, reason = message, "request panicked");
        }
        WorkerEvent::AcceptPaused(reason) => {
            let remedy = "raise the limit on open files, or lower workers.max_connections";
            tracing::warn!(lane, role, pid, generation, reason, remedy, "accept paused");
        }
        WorkerEvent::AcceptResumed => {
            tracing::info!(lane, role, pid, generation, "accept resumed");
        }
        WorkerEvent::NotPinned(cpu) => {
            let reason = "the CPU is not allowed any more";
            tracing::warn!(lane, role, pid, generation, cpu, reason, "worker not pinned");
        }
        WorkerEvent::DrainDeadline(connections) => {
            drain_deadline(record.worker, *connections as u64, records);
        }
        WorkerEvent::AccessLogFailed(_)
        | WorkerEvent::AccessLogResumed
        | WorkerEvent::AccessLogReopened
        | WorkerEvent::AccessLogDropped(_) => access_log_event(pid, generation, event),
        WorkerEvent::Ready { .. }
        | WorkerEvent::Failed(_)
        | WorkerEvent::Panicked(_)
        | WorkerEvent::Full(_)
        | WorkerEvent::Asks { .. }
        | WorkerEvent::Missed(..)
        | WorkerEvent::StoppedAccepting
        | WorkerEvent::Drained
        | WorkerEvent::ToldToEnd => {}
    }
}

/// What the access log's writer reported.
fn access_log_event(pid: Option<ProcessId>, generation: Option<u64>, event: &WorkerEvent) {
    match event {
        WorkerEvent::AccessLogFailed(reason) => {
            let remedy = "it is tried again every second; until then lines wait, and are dropped when there are too many";
            tracing::error!(pid, generation, reason, remedy, "access log failed");
        }
        WorkerEvent::AccessLogResumed => tracing::info!(pid, generation, "access log resumed"),
        WorkerEvent::AccessLogReopened => tracing::info!(pid, generation, "access log reopened"),
        WorkerEvent::AccessLogDropped(lines) => {
            let reason = "they were made faster than they could be written";
            tracing::warn!(pid, generation, lines, reason, "access log lines dropped");
        }
        // Of no access log.
        _ => {}
    }
}

/// The drain of a worker took too long, and its connections are closed.
fn drain_deadline(worker: Worker, connections: u64, records: &WorkerRecords) {
    let Subject { lane, role, pid, generation } = Subject::of(worker, records);
    tracing::warn!(lane, role, pid, generation, connections, "drain deadline");
}

/// The server ends, and these have not.
fn left_behind(workers: &[Worker], records: &WorkerRecords) {
    for worker in workers {
        let Subject { lane, role, pid, generation } = Subject::of(*worker, records);
        let reason = "it was killed and has not ended: the kernel keeps it, as one that writes to a disk that hangs";
        tracing::error!(lane, role, pid, generation, reason, "worker left behind");
    }
}

/// What the policy found or decided.
pub(crate) fn fact(fact: &Fact, processes: &Processes) {
    match fact {
        Fact::WorkerReady { worker }
        | Fact::WorkerExited { worker, .. }
        | Fact::WorkerLeaving { worker, .. }
        | Fact::WorkerRestarting { worker, .. }
        | Fact::WorkerGaveUp { worker, .. }
        | Fact::WorkerHung { worker, .. }
        | Fact::WorkerRecovered { worker }
        | Fact::NotReadyInTime { worker } => worker_fact(*worker, fact, processes),
        Fact::WorkerAdopted { lane, by } => {
            let Subject { pid, generation, .. } = Subject::of(*by, processes.records());
            tracing::info!(lane, by = by.role.lane(), pid, generation, "worker adopted");
        }
        Fact::AllReady { generation, lanes } => {
            tracing::info!(lanes, pid = process::id(), generation = generation.0, "ready");
        }
        Fact::AllFull { lanes } => all_full(*lanes, processes.records()),
        Fact::CouldNotStart { cause } => tracing::error!(reason = cause, "could not start"),
        Fact::Replaced { generation, lanes, renews: false } => {
            let size = processes.generations.get(*generation).map(|prepared| &prepared.size);
            let size = size.filter(|size| size.decided_by == sizing::SIGNALS);
            let reason = size.map(|size| size.reason.as_str());
            tracing::info!(generation = generation.0, lanes, reason, "reload done");
        }
        Fact::Replaced { generation, lanes, renews: true } => {
            tracing::info!(generation = generation.0, lanes, "workers renewed");
        }
        Fact::Withdrawn { generation, cause } => {
            tracing::error!(generation = generation.0, reason = cause, "reload rejected");
        }
        Fact::Resized { lanes } => tracing::info!(lanes, "resized"),
        Fact::LaneClosed { lane } => tracing::info!(lane, "lane closed"),
        Fact::StopDelayed { reason, delay_ms } => {
            let delay_s = *delay_ms as f64 / 1000.0;
            tracing::info!(reason, delay_s, "stop delayed");
        }
        Fact::DrainStarted { generation, reason } => {
            let config = processes.generations.get(*generation).map(|of| &of.generation.config);
            let timeout = config.map(|config| config.supervisor.drain_timeout);
            let timeout_s = timeout.unwrap_or_default().as_secs_f64();
            tracing::info!(reason, timeout_s, generation = generation.0, "drain started");
        }
        Fact::DrainGoesOn { reason } => tracing::info!(reason, "drain goes on"),
        Fact::DrainDone { generation } => tracing::info!(generation = generation.0, "drain done"),
        Fact::DrainDeadline { workers } => {
            for worker in workers {
                let open = processes.records().open_connections(*worker);
                drain_deadline(*worker, open, processes.records());
            }
        }
        Fact::LeftBehind { workers } => left_behind(workers, processes.records()),
        Fact::StopForced { reason } => tracing::warn!(reason, "stop forced"),
    }
}

/// A fact about one worker.
fn worker_fact(worker: Worker, fact: &Fact, processes: &Processes) {
    let records = processes.records();
    let Subject { lane, role, pid, generation } = Subject::of(worker, records);
    let connections = records.open_connections(worker);
    match fact {
        Fact::WorkerReady { .. } => {
            let record = records.get(worker.number);
            let driver = record.and_then(|record| record.driver.as_deref());
            tracing::info!(lane, role, pid, generation, driver, "worker ready");
        }
        Fact::WorkerExited { cause: reason, .. } => {
            tracing::error!(lane, role, pid, generation, reason, connections, "worker exited");
        }
        Fact::WorkerLeaving { cause: reason, .. } => {
            tracing::info!(lane, role, pid, generation, reason, connections, "worker leaving");
        }
        Fact::WorkerRestarting { cause: reason, delay_ms, restarts, .. } => {
            tracing::warn!(
                lane,
                role,
                pid,
                generation,
                reason,
                delay_ms,
                restarts,
                "worker restarting"
            );
        }
        Fact::WorkerGaveUp { cause: reason, restarts, .. } => {
            tracing::error!(lane, role, pid, generation, reason, restarts, "worker gave up");
        }
        Fact::WorkerHung { age_ms, .. } => {
            let doing = doing(worker, processes);
            tracing::error!(lane, role, pid, generation, age_ms, doing, connections, "worker hung");
        }
        Fact::WorkerRecovered { .. } => {
            tracing::warn!(lane, role, pid, generation, "worker recovered");
        }
        Fact::NotReadyInTime { .. } => {
            tracing::error!(lane, role, pid, generation, "worker not ready in time");
        }
        // About no worker: `fact` logs it.
        _ => {}
    }
}

fn all_full(lanes: usize, records: &WorkerRecords) {
    let of_lanes = records.iter().filter(|record| record.worker.role.serves());
    let levels = of_lanes.map(|record| records.counters(record).cells().levels());
    let connections = levels.sum::<Levels>().open;
    let reason =
        "every lane has workers.max_connections: who connects now waits for another to leave";
    let remedy = "raise workers.max_connections, or lower timeouts.keep_alive if most are idle";
    tracing::warn!(lanes, connections, reason, remedy, "all lanes full");
}

/// What a worker was doing when it last turned, in words.
fn doing(worker: Worker, processes: &Processes) -> String {
    let records = processes.records();
    let Some(record) = records.get(worker.number) else {
        return "unknown".into();
    };
    let number = match records.counters(record).doing() {
        Doing::Nothing => return "no request".into(),
        Doing::NoRoute => return "a request that no route takes".into(),
        Doing::Route(number) => number,
    };
    let config = processes.config_of(worker);
    match config.and_then(|config| config.routes.get(number)) {
        Some(route) => match &route.path {
            RoutePath::Exact(path) => format!("a request of route {path}"),
            RoutePath::Prefix(path) => format!("a request of route {path}*"),
        },
        None => format!("a request of route {number}"),
    }
}

/// The last line.
pub(crate) fn stopped(code: i32, uptime: Duration, records: &WorkerRecords) {
    let counts = records.accounts().served().counts;
    let (connections, requests) = (counts.accepted(), counts.requests());
    let uptime_s = (uptime.as_secs_f64() * 1000.0).round() / 1000.0;
    tracing::info!(code, uptime_s, connections, requests, "stopped");
}
