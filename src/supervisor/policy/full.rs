//! Whether clients are served, as far as lanes are ready and have room. That every lane has as many connections as it may
//! have is announced, once a minute while it lasts: clients wait then, and nothing else shows it.

use super::generation::{Generation, Seat, SeatState};
use super::{Fact, Policy};
use crate::control::Role;

/// How often it is announced, in milliseconds.
pub(super) const FULL_EVERY_MS: u64 = 60_000;

/// For so long clients may wait while nothing serves them, and the server counts as ready all the same: workers that end
/// are followed by others within it, and what waits for them is served.
const UNSERVED_MS: u64 = 1_000;

impl Policy {
    /// Whether there is a lane that is ready, and, where an acceptor hands out the connections, an acceptor; or there was
    /// a moment ago.
    pub fn is_served(&self, now_ms: u64) -> bool {
        self.unserved_ms.is_none_or(|since_ms| now_ms < since_ms + UNSERVED_MS)
    }

    pub(super) fn note_whether_served(&mut self) {
        let current = self.current().map(|index| &self.generations[index]);
        let is_ready = |seat: &Seat| seat.state.ready().is_some();
        let is_served = current.is_some_and(|current| {
            let acceptor = current.seat(Role::Acceptor);
            acceptor.is_none_or(is_ready) && current.lane_states().any(|of| of.ready().is_some())
        });
        self.unserved_ms = (!is_served).then(|| self.unserved_ms.unwrap_or(self.now_ms));
    }

    /// Whether there are ready lanes, and none of them takes another connection.
    fn is_full(&self) -> bool {
        let current = self.current().map(|index| &self.generations[index]);
        let states = current.into_iter().flat_map(Generation::lane_states);
        let ready = states.filter_map(|state| match *state {
            SeatState::Ready { is_full, .. } => Some(is_full),
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
