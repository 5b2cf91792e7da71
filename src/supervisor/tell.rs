//! Facts as log events. The names and fields of events are part of the interface: docs/events.md lists them, and a
//! test compares.

use std::ops::Add;
use std::time::Duration;

use super::policy::{Fact, Worker};
use super::processes::totals::Totals;
use super::processes::{Post, Processes, sizing};
use crate::config::RoutePath;
use crate::control::{Role, WorkerEvent};
use crate::observe::ledger::{Counts, Doing, Levels};
use crate::sys::process;

/// The fields that say who: a lane, or the acceptor.
fn who(role: Role) -> (Option<usize>, Option<&'static str>) {
    match role {
        Role::Lane(lane) => (Some(lane), None),
        Role::Acceptor => (None, Some("acceptor")),
    }
}

/// A worker is on its way.
pub(super) fn started(post: &Post) {
    let Post { worker, cpu, pid, generation, .. } = post;
    let (lane, role) = who(worker.role);
    tracing::info!(lane, role, cpu, pid, generation, "worker started");
}

/// What a worker reported, short of its end.
pub(super) fn event(post: &Post, event: &WorkerEvent) {
    let Post { worker, pid, generation, .. } = post;
    let (lane, role) = who(worker.role);
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
        WorkerEvent::DrainDeadline(connections) => cut(post, *connections as u64),
        WorkerEvent::Ready { .. }
        | WorkerEvent::Failed(_)
        | WorkerEvent::Panicked(_)
        | WorkerEvent::Full(_)
        | WorkerEvent::Missed(..)
        | WorkerEvent::StoppedAccepting
        | WorkerEvent::Drained
        | WorkerEvent::ToldToEnd => {}
    }
}

/// The drain of a worker took too long, and its connections are closed.
fn cut(post: &Post, connections: u64) {
    let Post { worker, pid, generation, .. } = post;
    let (lane, role) = who(worker.role);
    tracing::warn!(lane, role, pid, generation, connections, "drain deadline");
}

/// What the policy has to say.
pub(super) fn fact(fact: &Fact, processes: &Processes) {
    let of = |worker: &Worker| {
        let post = processes.post(*worker);
        // One that could not be forked has no pid.
        let pid = post.map(|post| post.pid).filter(|pid| *pid != 0);
        (pid, post.map(|post| post.generation))
    };
    let open =
        |worker: &Worker| processes.post(*worker).map_or(0, |post| processes.counters(post).open());
    match fact {
        Fact::WorkerReady { worker } => {
            let (pid, generation) = of(worker);
            let (lane, role) = who(worker.role);
            let post = processes.post(*worker);
            let driver = post.and_then(|post| post.driver.as_deref());
            let reason = post.and_then(|post| post.driver_reason.as_deref());
            tracing::info!(lane, role, pid, generation, driver, reason, "worker ready");
        }
        Fact::AllReady { generation, lanes } => {
            tracing::info!(lanes, pid = process::id(), generation, "ready");
        }
        Fact::WorkerExited { worker, cause } => {
            let (pid, generation) = of(worker);
            let connections = open(worker);
            let (lane, role) = who(worker.role);
            tracing::error!(
                lane,
                role,
                pid,
                generation,
                reason = cause,
                connections,
                "worker exited"
            );
        }
        Fact::WorkerLeaving { worker, cause } => {
            let (pid, generation) = of(worker);
            let connections = open(worker);
            let (lane, role) = who(worker.role);
            tracing::info!(
                lane,
                role,
                pid,
                generation,
                reason = cause,
                connections,
                "worker leaving"
            );
        }
        Fact::WorkerRestarting { worker, cause, delay_ms, restarts } => {
            let (pid, generation) = of(worker);
            let (lane, role) = who(worker.role);
            tracing::warn!(
                lane,
                role,
                pid,
                generation,
                reason = cause,
                delay_ms,
                restarts,
                "worker restarting"
            );
        }
        Fact::WorkerGaveUp { worker, cause, restarts } => {
            let (pid, generation) = of(worker);
            let (lane, role) = who(worker.role);
            tracing::error!(
                lane,
                role,
                pid,
                generation,
                reason = cause,
                restarts,
                "worker gave up"
            );
        }
        Fact::WorkerHung { worker, age_ms } => {
            let (pid, generation) = of(worker);
            let connections = open(worker);
            let doing = doing(*worker, processes);
            let (lane, role) = who(worker.role);
            tracing::error!(lane, role, pid, generation, age_ms, doing, connections, "worker hung");
        }
        Fact::WorkerRecovered { worker } => {
            let (pid, generation) = of(worker);
            let (lane, role) = who(worker.role);
            tracing::warn!(lane, role, pid, generation, "worker recovered");
        }
        Fact::WorkerAdopted { lane, by } => {
            let (pid, generation) = of(by);
            tracing::info!(lane, by = by.role.lane(), pid, generation, "worker adopted");
        }
        Fact::AllFull { lanes } => {
            let levels = processes.posts().map(|post| processes.counters(post).cells().levels());
            let connections = levels.sum::<Levels>().open;
            let reason = "every lane has workers.max_connections: who connects now waits for another to leave";
            let remedy =
                "raise workers.max_connections, or lower timeouts.keep_alive if most are idle";
            tracing::warn!(lanes, connections, reason, remedy, "all lanes full");
        }
        Fact::NotReadyInTime { worker } => {
            let (pid, generation) = of(worker);
            let (lane, role) = who(worker.role);
            tracing::error!(lane, role, pid, generation, "worker not ready in time");
        }
        Fact::CouldNotStart { cause } => tracing::error!(reason = cause, "could not start"),
        Fact::Replaced { generation, lanes, renews: false } => {
            let size = processes.generation(*generation).map(|made| &made.size);
            let size = size.filter(|size| size.decided_by == sizing::SIGNALS);
            let reason = size.map(|size| size.reason.as_str());
            tracing::info!(generation, lanes, reason, "reload done");
        }
        Fact::Replaced { generation, lanes, renews: true } => {
            tracing::info!(generation, lanes, "workers renewed");
        }
        Fact::Withdrawn { generation, cause } => {
            tracing::error!(generation, reason = cause, "reload rejected");
        }
        Fact::Resized { lanes } => tracing::info!(lanes, "resized"),
        Fact::LaneClosed { lane } => tracing::info!(lane, "lane closed"),
        Fact::DrainStarted { generation, reason } => {
            let made = processes.generation(*generation);
            let timeout = made.map(|made| made.generation.config.supervisor.drain_timeout);
            let timeout_s = timeout.unwrap_or_default().as_secs_f64();
            tracing::info!(reason, timeout_s, generation, "drain started");
        }
        Fact::DrainGoesOn { reason } => tracing::info!(reason, "drain goes on"),
        Fact::DrainDone { generation } => tracing::info!(generation, "drain done"),
        Fact::DrainDeadline { workers } => {
            let posts = workers.iter().filter_map(|worker| processes.post(*worker));
            posts.for_each(|post| cut(post, processes.counters(post).open()));
        }
        Fact::StopForced { reason } => tracing::warn!(reason, "stop forced"),
    }
}

/// What a worker was doing when it last turned, in words.
fn doing(worker: Worker, processes: &Processes) -> String {
    let Some(post) = processes.post(worker) else {
        return "unknown".into();
    };
    let number = match processes.counters(post).doing() {
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
pub(super) fn stopped(code: i32, uptime: Duration, processes: &Processes) {
    let totals = processes.all_totals().into_values().fold(Totals::default(), Totals::add);
    let Counts { accepted: connections, requests, .. } = totals.counts;
    let uptime_s = (uptime.as_secs_f64() * 1000.0).round() / 1000.0;
    tracing::info!(code, uptime_s, connections, requests, "stopped");
}
