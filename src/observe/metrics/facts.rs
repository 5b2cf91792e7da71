//! All that a page of metrics is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observe::ledger::{Counts, Levels};

/// A server at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The version of the supervisor's binary.
    pub version: String,
    /// The generation that serves.
    pub generation: u64,
    /// Every lane that there is or was, by its number.
    pub lanes: BTreeMap<usize, LaneFacts>,
    /// The other roles of workers that there are or were, by their names.
    pub roles: BTreeMap<String, RoleFacts>,
    /// How many lanes are in each state, those in which none is included.
    pub lane_states: BTreeMap<String, u64>,
    /// How many connections each lane may have open.
    pub connections_max: u64,
    /// The accept queue of each listening socket.
    pub queues: Vec<QueueFacts>,
    /// How often it was reloaded.
    pub reloads: Reloads,
    /// Whether it was told to stop.
    pub is_draining: bool,
    /// What the kernel dropped, where it tells.
    pub listens: Option<Listens>,
    /// The supervisor's process, where the kernel tells.
    pub process: Option<ProcessFacts>,
}

/// What is known of one lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneFacts {
    /// What its workers have counted, those that have ended included, and those of supervisors before.
    pub counts: Counts,
    /// What its workers have now.
    pub levels: Levels,
    /// How often its worker was restarted, by cause.
    pub restarts: BTreeMap<String, u64>,
    /// How long ago the last turn of its worker began, in milliseconds; none of a lane that was removed.
    pub heartbeat_age_ms: Option<u64>,
    /// The longest turn of late of the workers that it has, in microseconds; as above.
    pub longest_turn_us: Option<u64>,
}

/// What is known of the workers of another role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleFacts {
    /// How often its worker was restarted, by cause.
    pub restarts: BTreeMap<String, u64>,
    /// Lines of the access log that it gave up, if it is the one that writes them.
    pub lines_dropped: Option<u64>,
}

/// The accept queue of one listening socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueFacts {
    /// Its lane; none of a socket that all lanes share.
    pub lane: Option<usize>,
    /// Where it listens.
    pub address: String,
    /// Connections that wait in it.
    pub waiting: u64,
    /// How many may.
    pub backlog: u64,
}

/// Reloads since the server began, and the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloads {
    /// How many have put a generation in the place of the one before.
    pub done: u64,
    /// How many have changed nothing, because the configuration was bad, or its generation did not come to serve.
    pub rejected: u64,
    /// Whether the last one failed.
    pub has_failed: bool,
    /// When the configuration that serves was taken, in milliseconds since 1970.
    pub success_ms: u64,
}

/// What the kernel has dropped at listening sockets, of all programs in the network namespace, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listens {
    /// Connections for which an accept queue had no room.
    pub overflows: u64,
    /// These, and all others that were dropped on their way into one.
    pub drops: u64,
}

/// What the kernel knows of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFacts {
    /// Time on a CPU, for itself and within the kernel, in microseconds.
    pub cpu_us: u64,
    /// Memory, in bytes: mapped, and of that in memory.
    pub virtual_bytes: u64,
    /// As above.
    pub resident_bytes: u64,
    /// Open descriptors, and how many there may be.
    pub open_fds: u64,
    /// As above.
    pub max_fds: u64,
    /// When it started, in milliseconds since 1970.
    pub start_ms: u64,
}

impl Reloads {
    /// A server that has just taken its first configuration, after these of the supervisor before.
    pub fn begun(now_ms: u64, before: Reloads) -> Reloads {
        Reloads { has_failed: false, success_ms: now_ms, ..before }
    }

    /// One has ended.
    pub fn count(&mut self, is_done: bool, now_ms: u64) {
        self.has_failed = !is_done;
        match is_done {
            true => {
                self.done += 1;
                self.success_ms = now_ms;
            }
            false => self.rejected += 1,
        }
    }
}
