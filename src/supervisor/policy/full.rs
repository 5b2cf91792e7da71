//! What lanes do, and whether clients are served, as far as lanes are ready and have room. That every lane has as many connections as it may
//! have is announced, once a minute while it lasts: clients wait then, and nothing else shows it.

use std::collections::BTreeSet;

use super::generation::{Generation, Lacks, SeatState, WorkerState};
use super::{Fact, Policy, Worker};
use crate::control::Role;

/// How often it is announced, in milliseconds.
pub(super) const FULL_EVERY_MS: u64 = 60_000;

/// For so long clients may wait while nothing serves them, and the server counts as ready all the same: workers that end
/// are followed by others within it, and what waits for them is served.
const UNSERVED_MS: u64 = 1_000;

impl Policy {
    /// Whether there is a lane that is ready and can accept, and, where an acceptor hands out the connections, such an
    /// acceptor; or there was a moment ago.
    pub fn is_served(&self, now_ms: u64) -> bool {
        self.unserved_ms.is_none_or(|since_ms| now_ms < since_ms + UNSERVED_MS)
    }

    /// What each lane of the current generation is doing, and its worker.
    pub fn lane_states(&self) -> Vec<(WorkerState, Option<Worker>)> {
        let Some(index) = self.current() else { return Vec::new() };
        let generation = &self.generations[index];
        let living = self.is_over().then(|| generation.workers().collect());
        generation.lane_states().map(|seat| state_of(seat, living.as_ref())).collect()
    }

    /// The same of another role of the current generation, if it has that.
    pub fn state_of(&self, role: Role) -> Option<(WorkerState, Option<Worker>)> {
        let generation = &self.generations[self.current()?];
        let is_over = self.is_over() && role.serves();
        let living = is_over.then(|| generation.workers().collect());
        generation.seat(role).map(|seat| state_of(&seat.state, living.as_ref()))
    }

    pub(super) fn note_whether_served(&mut self) {
        let current = self.current().map(|index| &self.generations[index]);
        let is_served = current.is_some_and(|current| {
            let acceptor = current.seat(Role::Acceptor);
            let is_accepted = acceptor.is_none_or(|seat| seat.state.is_able());
            is_accepted && current.lane_states().any(SeatState::is_able)
        });
        self.unserved_ms = (!is_served).then(|| self.unserved_ms.unwrap_or(self.now_ms));
    }

    /// Whether there are ready lanes, and none of them takes another connection.
    fn is_full(&self) -> bool {
        let current = self.current().map(|index| &self.generations[index]);
        let states = current.into_iter().flat_map(Generation::lane_states);
        let ready = states.filter_map(|state| match *state {
            SeatState::Ready { lacks: Lacks { room, .. }, .. } => Some(room),
            _ => None,
        });
        ready.reduce(|all, is_full| all && is_full).unwrap_or(false)
    }

    pub(super) fn announce_full(&mut self) {
        if self.full_ms <= self.now_ms && self.is_full() {
            self.full_ms = self.now_ms + FULL_EVERY_MS;
            self.announce(Fact::AllFull { lanes: self.lanes() });
        }
    }

    /// When it is due again, if nothing changes.
    pub(super) fn full_next_ms(&self) -> Option<u64> {
        self.is_full().then_some(self.full_ms)
    }
}

/// What a worker is doing that sits in a seat. Of a server that ends, whose `living` workers are known, no seat is filled
/// again, and what a worker was before says nothing of it.
fn state_of(seat: &SeatState, living: Option<&BTreeSet<Worker>>) -> (WorkerState, Option<Worker>) {
    let worker = seat.worker();
    match (seat.describe(), living) {
        (state, None) => (state, worker),
        (_, Some(living)) if !worker.is_some_and(|worker| living.contains(&worker)) => {
            (WorkerState::Ended, None)
        }
        (WorkerState::Hung, Some(_)) => (WorkerState::Hung, worker),
        (_, Some(_)) => (WorkerState::Draining, worker),
    }
}
