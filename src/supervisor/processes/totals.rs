//! What the server has counted since it began. Lanes, workers, generations and supervisors come and go; what they
//! counted stays, so that no total ever goes backwards.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::observe::ledger::Counters;

/// Counts since the server began. One supervisor tells the next by these names; one that it doesn't know is left out,
/// and one that it isn't told of is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests begun.
    pub requests: u64,
    /// Workers restarted.
    pub restarts: u64,
}

impl Totals {
    /// What one worker has counted.
    pub(crate) fn counted(counters: Counters<'_>) -> Totals {
        Totals { accepted: counters.accepted(), requests: counters.requests(), restarts: 0 }
    }

    /// Of two accounts of the same the later one, whichever came first: counts only grow.
    pub(crate) fn latest(self, other: Totals) -> Totals {
        Totals {
            accepted: self.accepted.max(other.accepted),
            requests: self.requests.max(other.requests),
            restarts: self.restarts.max(other.restarts),
        }
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals {
            accepted: self.accepted + other.accepted,
            requests: self.requests + other.requests,
            restarts: self.restarts + other.restarts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_another_version_are_taken_by_the_names_that_both_know() {
        let text = r#"{"requests":7,"bytes_sent":9}"#;
        let totals: Totals = serde_json::from_str(text).unwrap();
        assert_eq!(totals, Totals { requests: 7, ..Totals::default() });
    }

    #[test]
    fn an_account_that_comes_late_takes_nothing_back() {
        let late = Totals { accepted: 1, requests: 5, restarts: 0 };
        let known = Totals { accepted: 2, requests: 4, restarts: 1 };
        assert_eq!(known.latest(late), Totals { accepted: 2, requests: 5, restarts: 1 });
    }
}
