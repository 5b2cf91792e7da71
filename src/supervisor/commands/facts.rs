//! What a page of metrics is made of: read from the ledger, the policy and the kernel at the moment of the question.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Accept;
use crate::control::Role;
use crate::observe::metrics::{
    Facts, LaneFacts, Listens, ProcessFacts, QueueFacts, Reloads, RoleFacts,
};
use crate::supervisor::commands::status::Subject;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::policy::WorkerState;
use crate::supervisor::processes::totals::Account;
use crate::sys::process::usage::{Usage, usage};
use crate::sys::socket::listen_drops;

/// The server as it is now, with what came of its reloads.
pub(crate) fn facts(subject: &Subject<'_>, reloads: Reloads) -> Facts {
    let Subject { generation, policy, processes, .. } = *subject;
    let records = processes.records();
    let config = processes.generations.get(generation).map(|of| &*of.generation.config);
    let (mut lanes, mut roles) = (BTreeMap::new(), BTreeMap::new());
    for (role, Account { totals, levels }) in subject.accounts.iter() {
        let restarts = totals.restarts_by_cause.into();
        match role {
            Role::Lane(lane) => {
                let counts = totals.counts;
                lanes.insert(lane, LaneFacts { counts, levels, restarts, ..LaneFacts::default() });
            }
            role => {
                let name = role.log_name().unwrap_or_default().to_owned();
                let writes_log = role == Role::AccessLog;
                let lines_dropped = writes_log.then(|| totals.counts.access_log_dropped());
                roles.insert(name, RoleFacts { restarts, lines_dropped });
            }
        }
    }
    let mut lane_states: BTreeMap<String, u64> =
        WorkerState::ALL.into_iter().map(|state| (state.word().to_owned(), 0)).collect();
    for (lane, (state, worker)) in policy.lane_states().into_iter().enumerate() {
        *lane_states.entry(state.word().to_owned()).or_default() += 1;
        let facts: &mut LaneFacts = lanes.entry(lane).or_default();
        facts.heartbeat_age_ms = Some(records.since_last_turn_ms(Role::Lane(lane), worker));
        facts.longest_turn_us = Some(0);
    }
    for record in records.iter() {
        let lane = record.worker.role.lane().and_then(|lane| lanes.get_mut(&lane));
        // A lane that was removed may still drain.
        if let Some(longest_us) = lane.and_then(|lane| lane.longest_turn_us.as_mut()) {
            *longest_us = records.longest_turn_us(record).max(*longest_us);
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
        queues: subject.queues.clone(),
        reloads,
        is_draining: policy.is_ending() && !policy.is_followed(),
        listens: listens.map(|of| Listens { overflows: of.overflows, drops: of.drops }),
        process: usage().ok().map(of_process),
    }
}

/// The accept queues that there are. An engine that opens its own sockets keeps theirs to itself.
pub(crate) fn queues(accept: Accept, listeners: &Listeners, lanes: usize) -> Vec<QueueFacts> {
    let groups = listeners.groups().iter().filter(|group| !group.is_held);
    let queues = groups.flat_map(|group| {
        let is_alone = group.listeners.len() == 1 && lanes > 1;
        let are_shared = accept != Accept::Reuseport || is_alone || group.is_shared();
        let of_sockets = group.listeners.iter().enumerate().filter_map(|(lane, listener)| {
            let queue = listener.accept_queue().ok()?;
            let (waiting, backlog) = (queue.waiting.into(), queue.backlog.into());
            Some(QueueFacts {
                lane: Some(lane),
                address: group.address.to_string(),
                waiting,
                backlog,
            })
        });
        of_group(of_sockets.collect(), are_shared)
    });
    queues.collect()
}

/// The queues of one address: as they are, or, where no lane has one to itself, as one. A group may have more sockets than
/// its lanes still ask for, while those of the generation before are drained.
fn of_group(queues: Vec<QueueFacts>, are_shared: bool) -> Vec<QueueFacts> {
    if !are_shared {
        return queues;
    }
    let sum = queues.into_iter().reduce(|sum, of| QueueFacts {
        waiting: sum.waiting + of.waiting,
        backlog: sum.backlog + of.backlog,
        ..sum
    });
    sum.map(|sum| QueueFacts { lane: None, ..sum }).into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_of_an_address_that_no_lane_has_to_itself_are_one() {
        let queue = |lane, waiting, backlog| {
            let address = "127.0.0.1:80".to_owned();
            QueueFacts { lane, address, waiting, backlog }
        };
        let own = vec![queue(Some(0), 1, 10), queue(Some(1), 2, 10)];
        assert_eq!(of_group(own.clone(), false), own);
        assert_eq!(of_group(own, true), [queue(None, 3, 20)]);
        assert_eq!(of_group(Vec::new(), true), []);
    }
}
