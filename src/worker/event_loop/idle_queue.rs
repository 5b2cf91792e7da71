//! Idle connections whose time is over, closed a few in each millisecond.
//!
//! Connections that came idle together, as those of one client's pool do, expire together. Closed in one instant, they
//! would keep their client busy with ends of streams while it goes on sending requests on those that it hasn't got to;
//! and the longer one stays open, the likelier its next request comes before, and is answered with
//! `Connection: close`, which loses nothing. It holds keys, and closes nothing itself.

use std::collections::VecDeque;

use crate::worker::driver::token::Key;

/// How fast the queue empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// At least so many in a millisecond.
    per_ms_min: usize,
    /// And so many that what waits now would be gone in about this time.
    within_ms: usize,
}

impl Pace {
    /// While others wait for nothing: 16,384 connections take about 4 s, 1,000 take 1 s.
    pub(super) const CALM: Pace = Pace { per_ms_min: 1, within_ms: 1_000 };
    /// While the server stops: 16,384 connections take about 0.9 s, 1,000 take 250 ms.
    pub(super) const BRISK: Pace = Pace { per_ms_min: 4, within_ms: 250 };
}

/// The queue of one lane.
#[derive(Default)]
pub(super) struct IdleQueue {
    keys: VecDeque<Key>,
    /// The last millisecond in which some were taken, and how many more may be taken in it.
    last: Option<(u64, usize)>,
}

impl IdleQueue {
    /// Puts a connection behind the others. It has no deadline any more; one that it is given later means that it was
    /// used.
    pub(super) fn push(&mut self, key: Key) {
        self.keys.push_back(key);
    }

    /// When the next one may be taken, if one waits.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let due_ms = self.last.map_or(0, |(at_ms, left)| if left > 0 { at_ms } else { at_ms + 1 });
        (!self.keys.is_empty()).then_some(due_ms)
    }

    /// Takes the next one that `is_idle` still, if more may be taken in this millisecond.
    pub(super) fn next(
        &mut self,
        now_ms: u64,
        pace: Pace,
        mut is_idle: impl FnMut(Key) -> bool,
    ) -> Option<Key> {
        if self.keys.is_empty() {
            return None;
        }
        let (_, left) = self.last.take_if(|(at_ms, _)| *at_ms == now_ms).unwrap_or_else(|| {
            (now_ms, self.keys.len().div_ceil(pace.within_ms).max(pace.per_ms_min))
        });
        let next = if left > 0 {
            std::iter::from_fn(|| self.keys.pop_front()).find(|key| is_idle(*key))
        } else {
            None
        };
        self.last = Some((now_ms, left - usize::from(next.is_some())));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 0 }
    }

    /// How many are taken in each millisecond until none is left.
    fn taken(count: u32, pace: Pace) -> Vec<usize> {
        let mut queue = IdleQueue::default();
        (0..count).for_each(|index| queue.push(key(index)));
        let mut taken = Vec::new();
        let mut now_ms = 7;
        while let Some(due_ms) = queue.due_ms() {
            now_ms = due_ms.max(now_ms);
            let of_now = std::iter::from_fn(|| queue.next(now_ms, pace, |_| true)).count();
            assert!(of_now > 0, "woken for nothing at {now_ms}");
            taken.push(of_now);
        }
        taken
    }

    #[test]
    fn few_leave_one_at_a_time_and_many_within_seconds() {
        assert!(taken(0, Pace::CALM).is_empty());
        assert_eq!(taken(3, Pace::CALM), [1, 1, 1]);
        assert_eq!(taken(9, Pace::BRISK), [4, 4, 1]);
        for (pace, first, at_most_ms) in [(Pace::CALM, 17, 4_000), (Pace::BRISK, 66, 950)] {
            let taken = taken(16_384, pace);
            assert_eq!(taken.iter().sum::<usize>(), 16_384);
            assert_eq!(taken.iter().max(), Some(&first));
            assert!(taken.len() <= at_most_ms, "{} ms", taken.len());
        }
    }

    #[test]
    fn one_that_was_used_meanwhile_is_passed_over_and_takes_no_ones_turn() {
        let mut queue = IdleQueue::default();
        (0..4).for_each(|index| queue.push(key(index)));
        let is_idle = |key: Key| key.index != 0;
        assert_eq!(queue.next(1, Pace::CALM, is_idle), Some(key(1)));
        assert_eq!(queue.next(1, Pace::CALM, is_idle), None);
        assert_eq!(queue.due_ms(), Some(2));
        assert_eq!(queue.next(2, Pace::CALM, is_idle), Some(key(2)));
        // One that is pushed later waits for the next millisecond, too.
        queue.push(key(4));
        assert_eq!(queue.next(2, Pace::CALM, is_idle), None);
        assert_eq!(queue.next(3, Pace::CALM, |_| false), None);
        assert_eq!(queue.due_ms(), None);
    }
}
