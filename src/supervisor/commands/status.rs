//! What `server status` shows: the lanes as they are, and the last things that happened to their workers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::{Accept, Engine, Mode, Workers, are_same};
use crate::control::{GenerationNumber, Role};
use crate::observe::metrics::QueueFacts;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::policy::{Fact, Policy, Worker, WorkerState};
use crate::supervisor::processes::Processes;
use crate::supervisor::processes::totals::Accounts;
pub use crate::supervisor::processes::totals::Totals;
use crate::sys::process::{self, Ended};

/// The server, at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the supervisor's binary.
    pub version: String,
    /// The supervisor's pid.
    pub pid: i32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// The configuration file, from the root on; where there is none, the path that it would have.
    #[serde(default)]
    pub configuration: String,
    /// The generation that serves.
    pub generation: GenerationNumber,
    /// Its mode.
    pub mode: Mode,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// How connections come to the lanes.
    pub accept: Accept,
    /// What drives a lane.
    pub engine: Engine,
    /// What the server has counted since it began: by the lanes below, by lanes that have been closed, and before upgrades.
    #[serde(default)]
    pub totals: Totals,
    /// By lane.
    pub lanes: Vec<LaneStatus>,
    /// The acceptor, in accept mode handoff.
    pub acceptor: Option<AcceptorStatus>,
    /// The worker that answers at the admin address, if there is one.
    #[serde(default)]
    pub admin: Option<AdminStatus>,
    /// Where the lanes don't have accept queues of their own, and of Unix sockets: the one that they share.
    pub shared_queue: Option<Queue>,
    /// Oldest first.
    pub history: VecDeque<Happening>,
}

impl Status {
    /// Whether this is a server of this configuration file; `None` if it doesn't say.
    pub fn is_of(&self, file: &Path) -> Option<bool> {
        let own = Path::new(&self.configuration);
        let is_it = || own == Path::new(&*file.to_string_lossy()) || are_same(own, file);
        (!self.configuration.is_empty()).then(is_it)
    }
}

/// One lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Counted from 0.
    pub lane: usize,
    /// "starting", "ready", "full", "paused" (no descriptors or no memory to accept with), "hung", "waiting" (to be
    /// restarted); of a server that ends, "draining", "hung" or "ended".
    pub state: String,
    /// The process of its worker, if it has one.
    pub pid: Option<i32>,
    /// The CPU that its worker is pinned to.
    pub cpu: Option<usize>,
    /// What moves its bytes: "epoll" or "io_uring".
    pub driver: Option<String>,
    /// Milliseconds since its worker started.
    pub uptime_ms: Option<u64>,
    /// Restarts since the server started.
    pub restarts: u64,
    /// Open connections, those of workers that drain included.
    pub connections: u64,
    /// Connections accepted since the server started.
    pub accepted: u64,
    /// Requests begun since the server started.
    pub requests: u64,
    /// Its accept queues, if it has its own.
    #[serde(flatten)]
    pub queue: Option<Queue>,
}

/// The worker that accepts for all lanes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcceptorStatus {
    /// As a lane's.
    pub state: String,
    /// Its process.
    pub pid: Option<i32>,
    /// Milliseconds since it started.
    pub uptime_ms: Option<u64>,
    /// Restarts since the server started.
    pub restarts: u64,
}

/// The worker that answers at the admin address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdminStatus {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// As a lane's.
    pub state: String,
    /// Its process.
    pub pid: Option<i32>,
    /// Milliseconds since it started.
    pub uptime_ms: Option<u64>,
    /// Restarts since the server started.
    pub restarts: u64,
}

/// Accept queues, those of all addresses together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Connections that wait to be accepted.
    pub queue: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// Something that happened to a worker or a generation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Happening {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The name of the log event.
    pub event: String,
    /// The lane.
    pub lane: Option<usize>,
    /// The process.
    pub pid: Option<i32>,
    /// The generation.
    pub generation: Option<GenerationNumber>,
    /// The cause, in words: the exit code, the signal, the panic.
    pub reason: Option<String>,
    /// The signal that ended its process.
    pub signal: Option<String>,
    /// The code that its process exited with.
    pub exit_code: Option<i32>,
    /// How long ago the worker's last turn had begun, in milliseconds.
    pub turn_age_ms: Option<u64>,
    /// How long the worker had run, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// The connections that it had open.
    pub connections: Option<u64>,
    /// The most memory that its process ever had resident, in bytes.
    pub peak_rss: Option<u64>,
    /// Whether the kernel's out-of-memory killer ended it.
    pub out_of_memory: Option<bool>,
}

/// How many happenings are kept.
const HISTORY: usize = 64;

/// The last happenings, oldest first. It is the supervisor's alone, and survives whatever workers do.
#[derive(Default)]
pub(crate) struct History(pub(crate) VecDeque<Happening>);

impl History {
    /// Keeps what `fact` tells of, if it is of the kind that is kept.
    pub(crate) fn record(&mut self, fact: &Fact, processes: &Processes) {
        let happening = match fact {
            Fact::WorkerExited { worker, cause } => {
                of_worker("worker exited", *worker, Some(cause.clone()), processes)
            }
            Fact::WorkerLeaving { worker, cause } => {
                of_worker("worker leaving", *worker, Some((*cause).to_owned()), processes)
            }
            Fact::WorkerHung { worker, age_ms } => {
                let reason = format!("no turn of its loop for {age_ms} ms");
                of_worker("worker hung", *worker, Some(reason), processes)
            }
            Fact::WorkerRecovered { worker } => {
                of_worker("worker recovered", *worker, None, processes)
            }
            Fact::NotReadyInTime { worker } => {
                of_worker("worker not ready in time", *worker, None, processes)
            }
            Fact::AllReady { generation, .. } => of_generation("ready", *generation, None),
            Fact::Replaced { generation, renews, .. } => {
                let event = if *renews { "workers renewed" } else { "reload done" };
                of_generation(event, *generation, None)
            }
            Fact::Withdrawn { generation, cause } => {
                of_generation("reload rejected", *generation, Some(cause.clone()))
            }
            Fact::Resized { lanes } => Happening {
                event: "resized".into(),
                reason: Some(format!("{lanes} lanes")),
                ..Happening::default()
            },
            _ => return,
        };
        self.0.push_back(Happening { time_ms: unix_ms(), ..happening });
        if self.0.len() > HISTORY {
            self.0.pop_front();
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn of_generation(event: &str, generation: GenerationNumber, reason: Option<String>) -> Happening {
    Happening { event: event.into(), generation: Some(generation), reason, ..Happening::default() }
}

fn of_worker(
    event: &str,
    worker: Worker,
    reason: Option<String>,
    processes: &Processes,
) -> Happening {
    let mut happening =
        Happening { event: event.into(), lane: worker.role.lane(), reason, ..Happening::default() };
    let records = processes.records();
    if let Some(record) = records.get(worker.number) {
        let (counters, now_ms) = (records.counters(record), records.ledger().now_ms());
        happening.pid = record.pid;
        happening.generation = Some(record.generation);
        happening.turn_age_ms = Some(now_ms.saturating_sub(counters.turned_ms()));
        happening.uptime_ms = Some(records.uptime_ms(record));
        happening.connections = Some(counters.open());
    }
    if let Some(end) = processes.end_of(worker) {
        match end.ended {
            Ended::Exited(code) => happening.exit_code = Some(code),
            Ended::Signalled(signal) => happening.signal = Some(signal.as_str().into()),
        }
        happening.peak_rss = Some(end.peak_rss);
        happening.out_of_memory = Some(end.out_of_memory);
    }
    happening
}

/// What the status of a server is made of.
pub(crate) struct Subject<'s> {
    pub(crate) configuration: Option<PathBuf>,
    pub(crate) generation: GenerationNumber,
    pub(crate) uptime_ms: u64,
    pub(crate) policy: &'s Policy,
    pub(crate) processes: &'s Processes,
    pub(crate) listeners: &'s Listeners,
    pub(crate) accounts: Accounts,
    pub(crate) queues: Vec<QueueFacts>,
    pub(crate) admin_listeners: &'s Listeners,
    pub(crate) history: &'s History,
}

/// The server as it is now.
pub(crate) fn status(subject: &Subject<'_>) -> Option<Status> {
    let Subject { generation, uptime_ms, policy, processes, listeners, history, .. } = *subject;
    let config = &processes.generations.get(generation)?.generation.config;
    let Workers { accept, engine, .. } = config.workers;
    let (own, shared) = by_lane(&subject.queues);
    let lanes = policy.lane_states().into_iter().enumerate();
    let lanes = lanes.map(|(lane, (state, worker))| {
        let queue = own.get(&lane).copied();
        LaneStatus { queue, ..of_lane(lane, state, worker, subject) }
    });
    let acceptor = policy.state_of(Role::Acceptor);
    let groups = listeners.groups().iter();
    Some(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: process::id(),
        uptime_ms,
        configuration: subject.configuration.clone().unwrap_or_default().to_string_lossy().into(),
        generation,
        mode: config.workers.mode,
        addresses: groups.map(|group| group.address.to_string()).collect(),
        accept,
        engine,
        totals: subject.accounts.served(),
        lanes: lanes.collect(),
        acceptor: acceptor.map(|(state, worker)| of_acceptor(state, worker, subject)),
        admin: of_admin(subject),
        shared_queue: shared,
        history: history.0.clone(),
    })
}

fn of_lane(
    lane: usize,
    state: WorkerState,
    worker: Option<Worker>,
    subject: &Subject<'_>,
) -> LaneStatus {
    let (records, accounts) = (subject.processes.records(), &subject.accounts);
    let totals = accounts.totals_of(Role::Lane(lane));
    let levels = accounts.levels_of(Role::Lane(lane));
    let record = worker.and_then(|worker| records.get(worker.number));
    LaneStatus {
        lane,
        state: state.word().into(),
        pid: record.and_then(|record| record.pid),
        cpu: record.and_then(|record| record.cpu),
        driver: record.and_then(|record| record.driver.clone()),
        uptime_ms: record.map(|record| records.uptime_ms(record)),
        restarts: totals.restarts,
        connections: levels.open,
        accepted: totals.counts.accepted(),
        requests: totals.counts.requests(),
        queue: None,
    }
}

fn of_acceptor(
    state: WorkerState,
    worker: Option<Worker>,
    subject: &Subject<'_>,
) -> AcceptorStatus {
    let records = subject.processes.records();
    let record = worker.and_then(|worker| records.get(worker.number));
    AcceptorStatus {
        state: state.word().into(),
        pid: record.and_then(|record| record.pid),
        uptime_ms: record.map(|record| records.uptime_ms(record)),
        restarts: subject.accounts.totals_of(Role::Acceptor).restarts,
    }
}

fn of_admin(subject: &Subject<'_>) -> Option<AdminStatus> {
    let (state, worker) = subject.policy.state_of(Role::Admin)?;
    let records = subject.processes.records();
    let record = worker.and_then(|worker| records.get(worker.number));
    let groups = subject.admin_listeners.groups().iter();
    Some(AdminStatus {
        addresses: groups.map(|group| group.address.to_string()).collect(),
        state: state.word().into(),
        pid: record.and_then(|record| record.pid),
        uptime_ms: record.map(|record| records.uptime_ms(record)),
        restarts: subject.accounts.totals_of(Role::Admin).restarts,
    })
}

/// The queues of each lane that has its own, and those that lanes share, of all addresses together.
fn by_lane(queues: &[QueueFacts]) -> (BTreeMap<usize, Queue>, Option<Queue>) {
    let (mut own, mut shared) = (BTreeMap::<usize, Queue>::new(), None::<Queue>);
    for of in queues {
        let sum = match of.lane {
            Some(lane) => own.entry(lane).or_default(),
            None => shared.get_or_insert_default(),
        };
        sum.queue += of.waiting as u32;
        sum.backlog += of.backlog as u32;
    }
    (own, shared)
}
