//! Seats: a lane's, and one for each other role. One worker at a time sits in a seat.

use std::collections::VecDeque;

use super::super::Worker;
use super::state::WorkerState;

/// What one worker at a time sits in.
#[derive(Clone, Debug)]
pub(in crate::supervisor::policy) struct Seat {
    pub(in crate::supervisor::policy) state: SeatState,
    pub(in crate::supervisor::policy) was_ready: bool,
    /// When its workers ended, within the restart window.
    pub(in crate::supervisor::policy) ends_ms: VecDeque<u64>,
    /// How often, in a row, its worker ended soon after its start.
    failures: u32,
    /// When its worker was started.
    pub(in crate::supervisor::policy) started_ms: u64,
    /// How many workers more may be started for what the lanes have left behind.
    pub(in crate::supervisor::policy) last_tries: u32,
}

/// So many workers are started at most, one after the other, for what the lanes have left behind.
const LAST_TRIES: u32 = 2;

/// What keeps a ready worker from taking connections for now. Each is reported by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::supervisor::policy) struct Lacks {
    /// It has as many connections as it may have.
    pub(in crate::supervisor::policy) room: bool,
    /// It has no descriptors or no memory for them.
    pub(in crate::supervisor::policy) means: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor::policy) enum SeatState {
    /// `deadline_ms`: when it is killed unless it is ready; `None` once it was, and its end has not come yet.
    Starting {
        worker: Worker,
        deadline_ms: Option<u64>,
    },
    Ready {
        worker: Worker,
        lacks: Lacks,
    },
    /// `kill_ms`: when it is killed or left behind unless its loop turns; `None` once that was done.
    Hung {
        worker: Worker,
        lacks: Lacks,
        kill_ms: Option<u64>,
    },
    /// It has no worker until then.
    Waiting {
        until_ms: u64,
    },
}

impl SeatState {
    pub(in crate::supervisor::policy) fn worker(&self) -> Option<Worker> {
        match *self {
            SeatState::Starting { worker, .. }
            | SeatState::Ready { worker, .. }
            | SeatState::Hung { worker, .. } => Some(worker),
            SeatState::Waiting { .. } => None,
        }
    }

    /// Its worker, if that is ready, with room or without.
    pub(in crate::supervisor::policy) fn ready(&self) -> Option<Worker> {
        match *self {
            SeatState::Ready { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// Its worker, if that is ready and has room.
    pub(in crate::supervisor::policy) fn has_room(&self) -> Option<Worker> {
        match *self {
            SeatState::Ready { worker, lacks: Lacks { room: false, .. } } => Some(worker),
            _ => None,
        }
    }

    /// Whether its worker is ready, and has what it needs to take connections, but perhaps for room.
    pub(in crate::supervisor::policy) fn is_able(&self) -> bool {
        matches!(self, SeatState::Ready { lacks: Lacks { means: false, .. }, .. })
    }

    /// What its worker lacks, if that is ready, or was before it hung.
    pub(in crate::supervisor::policy) fn lacks_mut(&mut self) -> Option<&mut Lacks> {
        match self {
            SeatState::Ready { lacks, .. } | SeatState::Hung { lacks, .. } => Some(lacks),
            SeatState::Starting { .. } | SeatState::Waiting { .. } => None,
        }
    }

    /// What its worker is doing.
    pub(in crate::supervisor::policy) fn describe(&self) -> WorkerState {
        match self {
            SeatState::Starting { .. } => WorkerState::Starting,
            SeatState::Ready { lacks: Lacks { means: true, .. }, .. } => WorkerState::Paused,
            SeatState::Ready { lacks: Lacks { room: true, .. }, .. } => WorkerState::Full,
            SeatState::Ready { .. } => WorkerState::Ready,
            SeatState::Hung { .. } => WorkerState::Hung,
            SeatState::Waiting { .. } => WorkerState::Waiting,
        }
    }

    /// When it has to be looked at, if nothing else happens.
    pub(in crate::supervisor::policy) fn next_ms(&self) -> Option<u64> {
        match *self {
            SeatState::Starting { deadline_ms, .. } => deadline_ms,
            SeatState::Hung { kill_ms, .. } => kill_ms,
            SeatState::Waiting { until_ms } => Some(until_ms),
            SeatState::Ready { .. } => None,
        }
    }
}

impl Seat {
    pub(in crate::supervisor::policy) fn new(now_ms: u64) -> Seat {
        let state = SeatState::Waiting { until_ms: now_ms };
        let ends_ms = VecDeque::new();
        let (was_ready, failures, last_tries) = (false, 0, LAST_TRIES);
        Seat { state, was_ready, ends_ms, failures, started_ms: now_ms, last_tries }
    }

    /// How often its worker ended within the window.
    pub(in crate::supervisor::policy) fn ends_within(&self, now_ms: u64, window_ms: u64) -> u32 {
        self.ends_ms.iter().filter(|end_ms| now_ms - **end_ms < window_ms).count() as u32
    }

    /// Whether a worker of it has ended that was not told to.
    pub(in crate::supervisor::policy) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Counts an end of its worker, and returns how many there were in a row, each within the window after a start.
    pub(in crate::supervisor::policy) fn count_in_a_row(
        &mut self,
        now_ms: u64,
        window_ms: u64,
    ) -> u32 {
        let is_soon = now_ms - self.started_ms < window_ms;
        self.failures = if is_soon { self.failures.saturating_add(1) } else { 1 };
        self.failures
    }

    /// Counts an end of its worker, and returns how many there were within the window.
    pub(in crate::supervisor::policy) fn count_end(&mut self, now_ms: u64, window_ms: u64) -> u32 {
        self.ends_ms.retain(|end_ms| now_ms - end_ms < window_ms);
        self.ends_ms.push_back(now_ms);
        self.ends_ms.len() as u32
    }
}
