//! The longest turn of a loop, of late. The longest one since the worker started would say after an hour no more than that
//! it had once been long; so a block keeps that of the minute that is under way, and that of the minute before. A
//! program that asks once a minute misses none, and changes nothing of what another one finds.

use super::block::Cells;

/// A minute of the ledger's clock, which is one for all workers.
const MINUTE_MS: u64 = 60_000;

impl Cells<'_> {
    /// Notes how long a turn took that has ended just now, in milliseconds of the ledger.
    #[inline]
    pub fn note_turn(self, turn_us: u64, now_ms: u64) {
        let (minute, noted) = (now_ms / MINUTE_MS, self.longest_minute.get());
        if minute != noted {
            // After a minute without a turn there is none before.
            let before_us = if minute == noted + 1 { self.longest_turn_us.get() } else { 0 };
            self.longest_before_us.set(before_us);
            self.longest_turn_us.set(0);
            self.longest_minute.set(minute);
        }
        self.longest_turn_us.raise(turn_us);
    }

    /// The longest turn that has ended in the minute of `now_ms`, or in the one before, in microseconds.
    pub fn longest_turn_of_late_us(self, now_ms: u64) -> u64 {
        let longest_us = self.longest_turn_us.get();
        match (now_ms / MINUTE_MS).saturating_sub(self.longest_minute.get()) {
            0 => longest_us.max(self.longest_before_us.get()),
            1 => longest_us,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;

    #[test]
    fn a_long_turn_is_told_of_for_the_minute_that_it_ended_in_and_the_next() {
        let ledger = Ledger::new(1).expect("a ledger");
        ledger.block(0).reset(30_000);
        let cells = ledger.block(0).cells();
        let turns = [(10, 30_000), (900, 59_999), (20, 60_000), (30, 119_999), (5, 120_000)];
        let told = [10, 900, 900, 900, 30];
        for ((turn_us, now_ms), expected) in turns.into_iter().zip(told) {
            cells.note_turn(turn_us, now_ms);
            assert_eq!(cells.longest_turn_of_late_us(now_ms), expected, "{now_ms}");
        }
    }

    #[test]
    fn a_loop_that_has_not_turned_for_a_minute_had_no_long_turn_of_late() {
        let ledger = Ledger::new(1).expect("a ledger");
        let cells = ledger.block(0).cells();
        cells.note_turn(900, 10_000);
        let told =
            [59_999, 60_000, 119_999, 120_000].map(|now_ms| cells.longest_turn_of_late_us(now_ms));
        assert_eq!(told, [900, 900, 900, 0]);
        cells.note_turn(7, 180_000);
        assert_eq!(cells.longest_turn_of_late_us(180_000), 7, "the minute before had no turn");
    }
}
