//! That every lane is as full as it may be is told, once a minute while it lasts: clients wait then, and nothing else
//! shows it.

use super::generation::SeatState;
use super::{Fact, Policy};

/// How often it is told, in milliseconds.
pub(super) const FULL_EVERY_MS: u64 = 60_000;

impl Policy {
    /// Whether there are ready lanes, and none of them takes another connection.
    fn is_full(&self) -> bool {
        let lanes = self.current().map(|index| self.generations[index].lanes.as_slice());
        let ready = lanes.unwrap_or_default().iter().filter_map(|lane| match lane.state {
            SeatState::Ready { is_full, .. } => Some(is_full),
            _ => None,
        });
        ready.reduce(|all, is_full| all && is_full).unwrap_or(false)
    }

    pub(super) fn tell_full(&mut self) {
        if self.full_ms <= self.now_ms && self.is_full() {
            self.full_ms = self.now_ms + FULL_EVERY_MS;
            self.tell(Fact::AllFull { lanes: self.lanes() });
        }
    }

    /// When it is due again, if nothing changes.
    pub(super) fn full_next_ms(&self) -> Option<u64> {
        self.is_full().then_some(self.full_ms)
    }
}
