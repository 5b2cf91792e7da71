//! That every lane has as many connections as it may have is announced, once a minute while it lasts: clients wait
//! then, and nothing else shows it.

use super::generation::{Generation, SeatState};
use super::{Fact, Policy};

/// How often it is announced, in milliseconds.
pub(super) const FULL_EVERY_MS: u64 = 60_000;

impl Policy {
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
