//! What the policy is told, and what it wants done.

use crate::config::{Accept, Mode};
use crate::control::{DrainKind, GenerationNumber, ProcessNumber, Role, WorkerEvent, WorkerNumber};

/// The settings that the policy goes by, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `supervisor.drain_timeout`
    pub drain_timeout_ms: u64,
    /// `supervisor.drain_delay`
    pub drain_delay_ms: u64,
    /// `supervisor.ready_timeout`
    pub ready_timeout_ms: u64,
    /// `supervisor.restart_delay`
    pub restart_delay_ms: u64,
    /// `supervisor.restart_delay_max`
    pub restart_delay_max_ms: u64,
    /// `supervisor.max_restarts`
    pub max_restarts: u32,
    /// `supervisor.restart_window`
    pub restart_window_ms: u64,
    /// After so long without a turn of its loop a worker hangs; 0 is never.
    pub hung_ms: u64,
    /// Whether one that hangs is ended: `supervisor.watchdog` is on.
    pub ends_hung: bool,
}

/// A generation to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it goes by.
    pub settings: Settings,
    /// How many lanes.
    pub lanes: usize,
    /// Which workers share a process: see [`hosting`](super::hosting).
    pub mode: Mode,
    /// How connections come to the lanes.
    pub accept: Accept,
    /// How many lanes have sockets by now, which may be more than it needs.
    pub sockets: usize,
    /// The roles of workers through which no clients are served.
    pub auxiliary: Vec<Role>,
    /// Of the first generation: whether these take their sockets before it serves. No other server has them.
    pub takes_early: bool,
}

impl Plan {
    /// The roles that its workers have.
    pub(super) fn roles(&self) -> impl Iterator<Item = Role> {
        let acceptor = (self.accept == Accept::Handoff).then_some(Role::Acceptor);
        (0..self.lanes).map(Role::Lane).chain(acceptor).chain(self.auxiliary.iter().copied())
    }
}

/// One worker, of a lane or of another role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// Its own number.
    pub number: WorkerNumber,
    /// The process that hosts it.
    pub process: ProcessNumber,
    /// What it does.
    pub role: Role,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A worker has reported this.
    Reported(Worker, WorkerEvent),
    /// A worker process ended.
    ProcessEnded {
        /// Which.
        process: ProcessNumber,
        /// In words.
        cause: String,
    },
    /// How many milliseconds ago each worker's loop began its last turn.
    Beats(Vec<(Worker, u64)>),
    /// Start a new generation, in place of the current one if there is one.
    Replace(Plan),
    /// Have the current generation drive this many lanes.
    Resize(usize),
    /// There are sockets for this many lanes by now, more than a change that was given up should have left.
    Opened(usize),
    /// The sockets of this lane, the last one, are closed.
    LaneClosed(usize),
    /// The first generation, whose workers are ready, can't serve: it has been given nothing yet.
    CannotServe(String),
    /// The server is to end; the reason is a signal's name, or a command.
    Stop(&'static str),
    /// Another supervisor has taken over every socket.
    HandedOver,
    /// Time passed.
    Tick,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make known that this generation is that one again, under a new number.
    Renew {
        /// The new number.
        generation: GenerationNumber,
        /// The number of the generation that it is like.
        of: GenerationNumber,
    },
    /// Fork a worker process with these workers.
    StartProcess {
        /// The generation.
        generation: GenerationNumber,
        /// Its workers, at least one, all of one process.
        workers: Vec<Worker>,
    },
    /// Have a living process start this worker.
    StartWorker(Worker),
    /// Have this worker accept from the sockets of this lane; in accept mode handoff, have a lane's worker take the
    /// connections that are handed to this lane.
    Take {
        /// The worker.
        worker: Worker,
        /// The lane.
        lane: usize,
    },
    /// Have this worker accept from the sockets of this lane no more.
    Release {
        /// The worker.
        worker: Worker,
        /// The lane.
        lane: usize,
    },
    /// Have this worker accept once from the sockets of this lane: the worker that was woken for a connection may have
    /// ended, or hang.
    PollAgain {
        /// The worker.
        worker: Worker,
        /// The lane.
        lane: usize,
    },
    /// Have the acceptor hand connections to this lane, by the count of the worker that drives it.
    Attach {
        /// The acceptor.
        acceptor: Worker,
        /// The lane.
        lane: usize,
        /// Its worker.
        worker: Worker,
    },
    /// Have the acceptor hand no more connections to this lane.
    Detach {
        /// The acceptor.
        acceptor: Worker,
        /// The lane.
        lane: usize,
    },
    /// Have this worker, which is ready, accept from the sockets of its role, which are no lane's.
    TakeOwn(Worker),
    /// Close the supervisor's copies of the sockets of this role, which are no lane's.
    CloseOwn(Role),
    /// This generation serves from here on: what only others needed can go.
    Serve(GenerationNumber),
    /// Have new connections go to the sockets of the first so many lanes alone; `None`: to all.
    Steer(Option<usize>),
    /// Close the sockets of this lane, the last one, if no connection waits in them, and report it.
    CloseLane(usize),
    /// Close the supervisor's copies of the listening sockets.
    CloseListeners,
    /// Tell this process to drain, for the first time or because it has become urgent.
    Drain(ProcessNumber, DrainKind),
    /// Tell this process, which drains, that no more connections will be handed to its lane.
    Seal(ProcessNumber),
    /// Tell this worker alone to drain.
    DrainWorker(Worker),
    /// Kill this process.
    Kill(ProcessNumber),
    /// Report of every worker how long ago its last turn began.
    ReadBeats,
    /// This generation has no process left.
    Forget(GenerationNumber),
    /// Make this known: to the log, the history, the service manager, and to commands that wait for it.
    Announce(Fact),
    /// Exit with this code.
    Exit(i32),
}

/// What is made known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the log's fields")]
pub enum Fact {
    WorkerReady {
        worker: Worker,
    },
    AllReady {
        generation: GenerationNumber,
        lanes: usize,
    },
    WorkerExited {
        worker: Worker,
        cause: String,
    },
    WorkerLeaving {
        worker: Worker,
        cause: &'static str,
    },
    WorkerRestarting {
        worker: Worker,
        cause: String,
        delay_ms: u64,
        restarts: u32,
    },
    WorkerGaveUp {
        worker: Worker,
        cause: String,
        restarts: u32,
    },
    WorkerHung {
        worker: Worker,
        age_ms: u64,
    },
    WorkerRecovered {
        worker: Worker,
    },
    WorkerAdopted {
        lane: usize,
        by: Worker,
    },
    AllFull {
        lanes: usize,
    },
    NotReadyInTime {
        worker: Worker,
    },
    CouldNotStart {
        cause: String,
    },
    Replaced {
        generation: GenerationNumber,
        lanes: usize,
        renews: bool,
    },
    Withdrawn {
        generation: GenerationNumber,
        cause: String,
    },
    Resized {
        lanes: usize,
    },
    LaneClosed {
        lane: usize,
    },
    StopDelayed {
        reason: &'static str,
        delay_ms: u64,
    },
    DrainStarted {
        generation: GenerationNumber,
        reason: String,
    },
    DrainGoesOn {
        reason: &'static str,
    },
    DrainDone {
        generation: GenerationNumber,
    },
    DrainDeadline {
        workers: Vec<Worker>,
    },
    StopForced {
        reason: &'static str,
    },
    /// These were killed and have not ended; the server ends without them.
    LeftBehind {
        workers: Vec<Worker>,
    },
}
