//! The vocabulary of the conversation: what the supervisor asks of a worker, and what a worker reports.

use serde::{Deserialize, Serialize};

use super::number::WorkerNumber;
use super::role::Role;

/// From the supervisor to a worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start this worker.
    Start(Assignment),
    /// For one worker of the process.
    To(WorkerNumber, Order),
    /// Every worker of the process finishes what is in flight, accepts no new connections, and ends. Sent again, it may
    /// only be more urgent.
    Drain(DrainKind),
    /// No more connections will be handed to the lanes of the process: those that were handed over by now are all.
    Seal,
}

/// Why workers drain, which decides how long they keep a connection that was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DrainKind {
    /// Other workers serve from here on: such a connection has `timeouts.header` for its first request.
    Replaced,
    /// The server ends, or this process was sent a signal to end: its sender may wait for that.
    Stop,
}

/// From the supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Accept from the listening sockets of this lane, which come with the packet. In accept mode handoff, to a lane's
    /// worker: take the connections that are handed to this lane; between threads, nothing comes with the packet.
    Take {
        /// The lane.
        lane: usize,
        /// How many come with the packet; fewer arrive where the process may not open as many (unix(7)).
        files: usize,
    },
    /// Accept from the sockets of this lane no more, and close them.
    Release(usize),
    /// To the access log's writer: open the log by its name once more.
    Reopen,
    /// Accept once from the sockets of this lane: the worker that was woken for a connection may have ended, or hang.
    PollAgain(usize),
    /// To an acceptor: hand connections to this lane. The way there comes with the packet, except between threads.
    Attach {
        /// The lane.
        lane: usize,
        /// The block of the ledger of the worker that drives it.
        block: usize,
    },
    /// To an acceptor: hand no more connections to this lane.
    Detach(usize),
    /// What an admin worker has asked for: the server at one moment, in the file that comes with the packet. The number is
    /// that of the question.
    Snapshot(u64),
    /// Finish what is in flight, accept no new connections, and end. The other workers of the process stay.
    Drain {
        /// After so long, what is still in flight is closed.
        timeout_ms: u64,
    },
}

/// What a worker is to do, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which worker.
    pub worker: WorkerNumber,
    /// What it does.
    pub role: Role,
    /// The CPU that it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// Its block of the ledger.
    pub block: usize,
}

/// Why a worker ends whose process was sent a signal to end.
pub const TOLD_TO_END: &str = "told to end by a signal of its own";

/// From a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which worker.
    pub worker: WorkerNumber,
    /// What happened to it.
    pub event: WorkerEvent,
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerEvent {
    /// It waits for sockets.
    Ready {
        /// Its driver, if it drives a lane with a loop of ours.
        driver: Option<String>,
        /// Why that isn't the driver that would be better.
        reason: Option<String>,
    },
    /// It ended because something that it needs failed.
    Failed(String),
    /// It ended by a panic.
    Panicked(String),
    /// It drains, and accepts no more.
    StoppedAccepting,
    /// It ended because its drain was over.
    Drained,
    /// It drains, with the whole process, because the process was sent a signal to end.
    ToldToEnd,
    /// The time of its drain was over; so many connections were closed.
    DrainDeadline(usize),
    /// It could not be pinned to this CPU, and runs without.
    NotPinned(usize),
    /// A request ended by a panic; its connection was closed, the worker goes on.
    RequestPanicked(String),
    /// It stopped accepting because descriptors or memory ran out.
    AcceptPaused(String),
    /// It accepts again.
    AcceptResumed,
    /// It asks how the server is, and perhaps for more.
    Asks {
        /// That of the question.
        number: u64,
        /// What the answer has to hold beside that.
        wants: Wants,
    },
    /// It had no descriptors for what it was passed of this lane.
    Missed(usize, Missed),
    /// It writes the access log, and can't for this reason.
    AccessLogFailed(String),
    /// It can again.
    AccessLogResumed,
    /// It has opened the access log once more, as it was told to.
    AccessLogReopened,
    /// So many lines of the access log were dropped, since that was said last.
    AccessLogDropped(u64),
    /// Whether it has as many connections as it may have; other workers may then accept in its place.
    Full(bool),
}

/// What an admin worker asks for beside how the server is: each costs the supervisor more the more lanes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// Its status.
    pub status: bool,
    /// What a page of metrics is made of.
    pub metrics: bool,
}

/// What a worker could not be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// The sockets that it is to take connections from.
    Sockets,
    /// The way to a lane.
    Conduit,
}

impl WorkerEvent {
    /// Whether the supervisor must not miss it.
    pub(super) fn is_vital(&self) -> bool {
        use WorkerEvent::{Drained, Failed, Panicked, Ready, StoppedAccepting, ToldToEnd};
        matches!(
            self,
            Ready { .. } | Failed(_) | Panicked(_) | StoppedAccepting | Drained | ToldToEnd
        )
    }

    /// In words, why the worker ended, if it ended by a failure.
    pub fn failure(&self) -> Option<String> {
        match self {
            WorkerEvent::Failed(error) => Some(error.clone()),
            WorkerEvent::Panicked(message) => Some(format!("panicked: {message}")),
            _ => None,
        }
    }

    /// The text that comes from elsewhere, and may be long.
    pub(super) fn text_mut(&mut self) -> Option<&mut String> {
        use WorkerEvent::{AcceptPaused, AccessLogFailed, Failed, Panicked, RequestPanicked};
        match self {
            AccessLogFailed(text)
            | Failed(text)
            | Panicked(text)
            | RequestPanicked(text)
            | AcceptPaused(text) => Some(text),
            _ => None,
        }
    }
}
