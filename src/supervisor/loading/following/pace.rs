//! When a file that changes is looked at: not while it is being written, and no oftener than that a program which changes it
//! all the time does harm. No I/O and no clock: time comes in as milliseconds since the supervisor began.
//!
//! ```text
//! Still ── change ─▶ Changing ── quiet for a moment, or it lasts too long ─▶ due ── look ─▶ Still
//!                     ▲    │
//!                     └────┘ change
//! ```

use crate::sys::file::watch::What;

/// How long nothing may have happened before it is looked at.
const QUIET_MS: u64 = 100;
/// When it is looked at all the same, while more happens.
const RESTLESS_MS: u64 = 2_000;
/// The same while what has written to it may have it open.
const WRITING_MS: u64 = 10_000;
/// How much later than one look the next one is at least. It doubles while changes come sooner than that.
const PAUSE_MS: u64 = 1_000;
/// The longest that it gets.
const PAUSE_MAX_MS: u64 = 16_000;

/// What has changed since the last look, and when the next may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    changing: Option<Changing>,
    looked_ms: Option<u64>,
    /// Whether the last look was while the file was being written, because that took too long.
    was_forced: bool,
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Changing {
    first_ms: u64,
    last_ms: u64,
    is_being_written: bool,
}

impl Pace {
    /// Something has happened to the file, or on the way to it.
    pub(super) fn note(&mut self, what: What, now_ms: u64) {
        let first_ms = self.changing.map_or(now_ms, |changing| changing.first_ms);
        let is_being_written = what == What::Written;
        self.changing = Some(Changing { first_ms, last_ms: now_ms, is_being_written });
    }

    /// When it is to be looked at, if it has changed.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let Changing { first_ms, last_ms, is_being_written } = self.changing?;
        let settled_ms = match is_being_written {
            true => first_ms + WRITING_MS,
            false => (last_ms + QUIET_MS).min(first_ms + RESTLESS_MS),
        };
        let earliest_ms = self.looked_ms.map_or(0, |looked_ms| looked_ms + self.pause_ms);
        Some(settled_ms.max(earliest_ms))
    }

    /// It is looked at now, because of what has happened.
    pub(super) fn look(&mut self, now_ms: u64) {
        let first_ms = self.changing.map_or(now_ms, |changing| changing.first_ms);
        let follows = self.looked_ms.is_some_and(|looked_ms| first_ms < looked_ms + self.pause_ms);
        self.was_forced = self.changing.is_some_and(|changing| changing.is_being_written);
        self.pause_ms = if follows { (2 * self.pause_ms).min(PAUSE_MAX_MS) } else { PAUSE_MS };
        self.looked_ms = Some(now_ms);
        self.forget();
    }

    /// Whether what the last look has found is of no use: something has begun to write to the file meanwhile.
    pub(super) fn is_spoilt(&self) -> bool {
        !self.was_forced && self.changing.is_some_and(|changing| changing.is_being_written)
    }

    /// What has happened so far is no reason to look any more.
    pub(super) fn forget(&mut self) {
        self.changing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_when_it_is_quiet() {
        type Happened<'c> = &'c [(What, u64)];
        // (what happens when, when it is due)
        let cases: [(Happened<'_>, Option<u64>); 7] = [
            (&[], None),
            (&[(What::Changed, 50)], Some(150)),
            (&[(What::Changed, 50), (What::Changed, 120)], Some(220)),
            (&[(What::Written, 50), (What::Changed, 60)], Some(160)),
            // Written to and not closed: half of it may be missing.
            (&[(What::Written, 50)], Some(10_050)),
            (&[(What::Changed, 50), (What::Written, 60)], Some(10_050)),
            (&[(What::Written, 50), (What::Gone, 60)], Some(160)),
        ];
        for (happened, due_ms) in cases {
            let mut pace = Pace::default();
            happened.iter().for_each(|(what, now_ms)| pace.note(*what, *now_ms));
            assert_eq!(pace.due_ms(), due_ms, "{happened:?}");
        }
    }

    #[test]
    fn one_that_is_never_quiet_is_looked_at_after_a_while_and_then_ever_more_rarely() {
        let mut pace = Pace::default();
        let mut looks = Vec::new();
        for now_ms in (0..120_000).step_by(10) {
            pace.note(What::Changed, now_ms);
            if pace.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                pace.look(now_ms);
                looks.push(now_ms);
            }
        }
        let between: Vec<_> = looks.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(looks[0], 2_000);
        assert_eq!(between[..5], [2_010, 2_010, 4_000, 8_000, 16_000]);
        assert!(between[5..].iter().all(|between_ms| *between_ms == 16_000), "{between:?}");
    }

    #[test]
    fn what_was_found_while_something_began_to_write_is_of_no_use_unless_that_lasts() {
        let mut pace = Pace::default();
        pace.note(What::Changed, 0);
        pace.look(100);
        assert!(!pace.is_spoilt());
        pace.note(What::Changed, 105);
        assert!(!pace.is_spoilt(), "a whole file");
        pace.note(What::Written, 110);
        assert!(pace.is_spoilt());
        let due_ms = pace.due_ms().expect("due");
        assert_eq!(due_ms, 105 + WRITING_MS);
        pace.look(due_ms);
        pace.note(What::Written, due_ms + 1);
        assert!(!pace.is_spoilt());
    }

    #[test]
    fn a_change_long_after_another_is_looked_at_soon() {
        let mut pace = Pace::default();
        for now_ms in [0, 1_000, 20_000, 40_000] {
            pace.note(What::Changed, now_ms);
            let due_ms = pace.due_ms().expect("due");
            assert!(due_ms <= now_ms + 1_000, "{due_ms}");
            pace.look(due_ms);
            assert_eq!(pace.due_ms(), None);
        }
    }
}
