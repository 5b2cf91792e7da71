//! What a worker is doing, in a word: what the status, a page of metrics and the health of the server say of a lane.

/// What the worker of a lane, or of another role, is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// There is one, and it isn't ready yet.
    Starting,
    /// It takes connections.
    Ready,
    /// It would, and has as many as it may have.
    Full,
    /// It would, and has no descriptors or no memory for them.
    Paused,
    /// Its loop doesn't turn.
    Hung,
    /// There is none: the next one is started after a delay.
    Waiting,
    /// The server ends, and it finishes what is in flight.
    Draining,
    /// The server ends, and it has left.
    Ended,
}

impl WorkerState {
    /// Every state.
    pub const ALL: [WorkerState; 8] = [
        WorkerState::Starting,
        WorkerState::Ready,
        WorkerState::Full,
        WorkerState::Paused,
        WorkerState::Hung,
        WorkerState::Waiting,
        WorkerState::Draining,
        WorkerState::Ended,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Ready => "ready",
            WorkerState::Full => "full",
            WorkerState::Paused => "paused",
            WorkerState::Hung => "hung",
            WorkerState::Waiting => "waiting",
            WorkerState::Draining => "draining",
            WorkerState::Ended => "ended",
        }
    }

    /// Whether it takes connections, or will as soon as it has room.
    pub fn is_ready(self) -> bool {
        matches!(self, WorkerState::Ready | WorkerState::Full)
    }

    /// Whether it works on connections.
    pub fn is_at_work(self) -> bool {
        self.is_ready() || matches!(self, WorkerState::Paused | WorkerState::Draining)
    }
}
