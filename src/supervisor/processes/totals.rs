//! What the server has counted since it began. Lanes, workers, generations and supervisors come and go; what they
//! counted stays, so that no total ever goes backwards.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::observe::ledger::{Counters, Counts};

/// Counts since the server began. One supervisor tells the next by these names; one that it doesn't know is left out,
/// and one that it isn't told of is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// What workers have counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Workers restarted.
    pub restarts: u64,
}

impl Totals {
    /// What one worker has counted.
    pub(crate) fn counted(counters: Counters<'_>) -> Totals {
        Totals { counts: counters.cells().counts(), restarts: 0 }
    }

    /// Of two accounts of the same the later one, whichever came first: counts only grow.
    pub(crate) fn latest(self, other: Totals) -> Totals {
        Totals {
            counts: self.counts.latest(other.counts),
            restarts: self.restarts.max(other.restarts),
        }
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals { counts: self.counts + other.counts, restarts: self.restarts + other.restarts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_another_version_are_taken_by_the_names_that_both_know() {
        let text = r#"{"requests":7,"bytes_sent":9}"#;
        let totals: Totals = serde_json::from_str(text).unwrap();
        let counts = Counts { requests: 7, ..Counts::default() };
        assert_eq!(totals, Totals { counts, restarts: 0 });
    }

    #[test]
    fn totals_are_told_by_the_names_that_every_version_so_far_knows() {
        let counts = Counts { accepted: 1, requests: 2, ..Counts::default() };
        let totals = serde_json::to_value(Totals { counts, restarts: 3 }).unwrap();
        for (name, value) in [("accepted", 1), ("requests", 2), ("restarts", 3)] {
            assert_eq!(totals[name], value, "{name}");
        }
    }

    #[test]
    fn an_account_that_comes_late_takes_nothing_back() {
        let totals = |accepted, requests, restarts| Totals {
            counts: Counts { accepted, requests, ..Counts::default() },
            restarts,
        };
        let (late, known) = (totals(1, 5, 0), totals(2, 4, 1));
        assert_eq!(known.latest(late), totals(2, 5, 1));
    }
}
