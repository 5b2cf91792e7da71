//! What a page of metrics is made of: read from the ledger, the policy and the kernel at the moment of the question.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Accept, Config};
use crate::control::{GenerationNumber, Role};
use crate::observe::metrics::{
    Facts, LaneFacts, Listens, ProcessFacts, QueueFacts, Reloads, RoleFacts,
};
use crate::supervisor::listeners::Listeners;
use crate::supervisor::policy::{Policy, Worker};
use crate::supervisor::processes::totals::{Restarts, Totals};
use crate::supervisor::processes::{Processes, WorkerRecord, WorkerRecords};
use crate::sys::process::usage::{Usage, usage};
use crate::sys::socket::listen_drops;

/// The server as it is now.
pub(crate) fn facts(
    generation: GenerationNumber,
    policy: &Policy,
    processes: &Processes,
    listeners: &Listeners,
    reloads: Reloads,
) -> Facts {
    let records = processes.records();
    let config = processes.generations.get(generation).map(|of| &*of.generation.config);
    let (mut lanes, mut roles) = (BTreeMap::new(), BTreeMap::new());
    for (role, totals) in records.all_totals() {
        match role {
            Role::Lane(lane) => drop(lanes.insert(lane, of_totals(totals))),
            role => {
                let name = role.log_name().unwrap_or_default().to_owned();
                let restarts = by_cause(totals.restarts_by_cause);
                roles.insert(name, RoleFacts { restarts });
            }
        }
    }
    let mut lane_states = BTreeMap::<String, u64>::new();
    for (lane, (state, worker)) in policy.lane_states().into_iter().enumerate() {
        *lane_states.entry(state.to_owned()).or_default() += 1;
        let facts: &mut LaneFacts = lanes.entry(lane).or_default();
        facts.heartbeat_age_ms = Some(records.since_last_turn_ms(Role::Lane(lane), worker));
        facts.longest_turn_us = longest_turn_us(worker, records).or(Some(0));
    }
    for record in records.iter() {
        if let Some(facts) = record.worker.role.lane().and_then(|lane| lanes.get_mut(&lane)) {
            let levels = records.counters(record).cells().levels();
            facts.levels = [facts.levels, levels].into_iter().sum();
        }
    }
    let listens = listen_drops();
    Facts {
        version: env!("CARGO_PKG_VERSION").into(),
        generation: generation.0,
        lanes,
        roles,
        lane_states,
        connections_max: config.map_or(0, |config| config.workers.max_connections.into()),
        queues: config.map(|of| queues(of, listeners, policy.lanes())).unwrap_or_default(),
        reloads,
        is_draining: policy.is_ending() && !policy.is_followed(),
        listens: listens.map(|of| Listens { overflows: of.overflows, drops: of.drops }),
        process: usage().ok().map(of_process),
    }
}

fn of_totals(totals: Totals) -> LaneFacts {
    let restarts = by_cause(totals.restarts_by_cause);
    LaneFacts { counts: totals.counts, restarts, ..LaneFacts::default() }
}

fn by_cause(restarts: Restarts) -> BTreeMap<String, u64> {
    restarts.into()
}

fn longest_turn_us(worker: Option<Worker>, records: &WorkerRecords) -> Option<u64> {
    let of = |record: &WorkerRecord| records.counters(record).cells().longest_turn_us.get();
    worker.and_then(|worker| records.get(worker.number)).map(of)
}

/// The accept queues that there are. An engine that opens its own sockets keeps theirs to itself.
fn queues(config: &Config, listeners: &Listeners, lanes: usize) -> Vec<QueueFacts> {
    let is_shared = config.workers.accept != Accept::Reuseport;
    let groups = listeners.groups().iter().filter(|group| !group.is_held);
    let queues = groups.flat_map(|group| {
        let is_alone = group.listeners.len() == 1 && lanes > 1;
        let is_one = is_shared || is_alone || group.is_shared();
        group.listeners.iter().enumerate().filter_map(move |(lane, listener)| {
            let queue = listener.accept_queue().ok()?;
            Some(QueueFacts {
                lane: (!is_one).then_some(lane),
                address: group.address.to_string(),
                waiting: queue.waiting.into(),
                backlog: queue.backlog.into(),
            })
        })
    });
    queues.collect()
}

fn of_process(usage: Usage) -> ProcessFacts {
    let us = |time: Duration| time.as_micros() as u64;
    ProcessFacts {
        cpu_us: us(usage.cpu),
        virtual_bytes: usage.virtual_bytes,
        resident_bytes: usage.resident_bytes,
        open_fds: usage.open_files,
        max_fds: usage.open_files_max,
        start_ms: us(usage.started) / 1000,
    }
}
