//! What the server has counted since it began. Lanes, workers, generations and supervisors come and go; what they
//! counted stays, so that no total ever goes backwards.

use std::array;
use std::collections::BTreeMap;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::control::Role;
use crate::observe::ledger::labels::{Label, RestartCause};
use crate::observe::ledger::{Counters, Counts, Levels};

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
    /// The same, by cause.
    pub restarts_by_cause: Restarts,
}

/// How many causes a restart can have.
const CAUSES: usize = RestartCause::DIMENSION.values.len();

/// Workers restarted, by cause; to others, by the names of the causes that there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, u64>", from = "BTreeMap<String, u64>")]
pub struct Restarts([u64; CAUSES]);

/// What was counted for a role, and what its workers have now. One supervisor tells the next, which has left out what it
/// doesn't know, as above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    #[serde(flatten)]
    pub(crate) totals: Totals,
    pub(crate) levels: Levels,
}

/// The account of every role that there is or was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts(BTreeMap<Role, Account>);

impl Accounts {
    /// Adds to that of a role.
    pub(super) fn add(&mut self, role: Role, more: Account) {
        let Account { totals, levels } = self.0.entry(role).or_default();
        *totals = *totals + more.totals;
        *levels = [*levels, more.levels].into_iter().sum();
    }

    /// Each role's.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Role, Account)> {
        self.0.iter().map(|(role, account)| (*role, *account))
    }

    /// What was counted for a role.
    pub(crate) fn totals_of(&self, role: Role) -> Totals {
        self.0.get(&role).map(|account| account.totals).unwrap_or_default()
    }

    /// What the workers of a role have now.
    pub(crate) fn levels_of(&self, role: Role) -> Levels {
        self.0.get(&role).map(|account| account.levels).unwrap_or_default()
    }

    /// What was counted for the lanes and the acceptors in all: for those through which clients are served.
    pub(crate) fn served(&self) -> Totals {
        let served = self.iter().filter(|(role, _)| role.serves());
        served.fold(Totals::default(), |sum, (_, account)| sum + account.totals)
    }
}

impl FromIterator<(Role, Account)> for Accounts {
    fn from_iter<I: IntoIterator<Item = (Role, Account)>>(accounts: I) -> Accounts {
        Accounts(accounts.into_iter().collect())
    }
}

impl From<Totals> for Account {
    fn from(totals: Totals) -> Account {
        Account { totals, ..Account::default() }
    }
}

impl Totals {
    /// What one worker has counted.
    pub(super) fn counted(counters: Counters<'_>) -> Totals {
        Totals { counts: counters.counts(), ..Totals::default() }
    }

    /// Takes note of a restart.
    pub(crate) fn count_restart(&mut self, cause: RestartCause) {
        self.restarts += 1;
        self.restarts_by_cause.0[cause.cell()] += 1;
    }

    /// The same with restarts of which no cause is known, because an older supervisor told none, as a cause of their own.
    pub(crate) fn with_unknown_causes(mut self) -> Totals {
        let known = self.restarts_by_cause.0.iter().sum();
        let unknown = self.restarts.saturating_sub(known);
        self.restarts_by_cause.0[RestartCause::Unknown.cell()] += unknown;
        self
    }

    /// The most that there can be.
    #[cfg(test)]
    pub(crate) fn most() -> Totals {
        let restarts_by_cause = Restarts([u64::MAX; CAUSES]);
        Totals { counts: Counts::most(), restarts: u64::MAX, restarts_by_cause }
    }

    /// Of two accounts of the same the later one, whichever came first: counts only grow.
    pub(crate) fn latest(self, other: Totals) -> Totals {
        let (Restarts(causes), Restarts(others)) =
            (self.restarts_by_cause, other.restarts_by_cause);
        Totals {
            counts: self.counts.latest(other.counts),
            restarts: self.restarts.max(other.restarts),
            restarts_by_cause: Restarts(array::from_fn(|at| causes[at].max(others[at]))),
        }
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        let (Restarts(causes), Restarts(others)) =
            (self.restarts_by_cause, other.restarts_by_cause);
        Totals {
            counts: self.counts + other.counts,
            restarts: self.restarts + other.restarts,
            restarts_by_cause: Restarts(array::from_fn(|at| causes[at] + others[at])),
        }
    }
}

impl Restarts {
    /// Each cause that there was, with how often.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = RestartCause::DIMENSION.values.iter().copied().zip(self.0);
        counted.filter(|(_, count)| *count > 0)
    }
}

impl From<Restarts> for BTreeMap<String, u64> {
    fn from(restarts: Restarts) -> BTreeMap<String, u64> {
        restarts.iter().map(|(cause, count)| (cause.to_owned(), count)).collect()
    }
}

impl From<BTreeMap<String, u64>> for Restarts {
    fn from(told: BTreeMap<String, u64>) -> Restarts {
        let causes = RestartCause::DIMENSION.values;
        Restarts(array::from_fn(|at| told.get(causes[at]).copied().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(text: &str) -> Totals {
        serde_json::from_str(text).expect("totals")
    }

    #[test]
    fn totals_of_another_version_are_taken_by_the_names_that_both_know() {
        let other =
            totals(r#"{"requests":7,"bytes_sent":9,"restarts_by_cause":{"boredom":1,"exit":2}}"#);
        assert_eq!((other.counts.requests(), other.restarts), (7, 0));
        assert_eq!(other.restarts_by_cause.iter().collect::<Vec<_>>(), [("exit", 2)]);
    }

    #[test]
    fn totals_are_told_by_the_names_that_every_version_so_far_knows() {
        let told =
            totals(r#"{"accepted":1,"requests":2,"restarts":3,"restarts_by_cause":{"hung":3}}"#);
        let told = serde_json::to_value(told).expect("JSON");
        for (name, value) in [("accepted", 1), ("requests", 2), ("restarts", 3)] {
            assert_eq!(told[name], value, "{name}");
        }
        assert_eq!(told["restarts_by_cause"], serde_json::json!({"hung": 3}));
    }

    #[test]
    fn a_supervisor_that_knows_no_levels_leaves_them_out_and_one_that_is_told_none_has_none() {
        let text = r#"{"accepted":1,"restarts":3,"levels":{"open":7,"waiting":8}}"#;
        assert_eq!(totals(text), totals(r#"{"accepted":1,"restarts":3}"#));
        let account: Account = serde_json::from_str(text).expect("an account");
        assert_eq!((account.totals, account.levels.open), (totals(text), 7));
        let told = serde_json::to_string(&account).expect("JSON");
        assert_eq!(serde_json::from_str::<Account>(&told).expect("an account"), account);
        let account: Account = serde_json::from_str(r#"{"accepted":1}"#).expect("an account");
        assert_eq!(account.levels, Levels::default());
    }

    #[test]
    fn restarts_whose_causes_an_older_supervisor_did_not_tell_have_a_cause_of_their_own() {
        let old = totals(r#"{"restarts":3}"#).with_unknown_causes();
        assert_eq!(old.restarts_by_cause.iter().collect::<Vec<_>>(), [("unknown", 3)]);
        assert_eq!(old.with_unknown_causes(), old);
    }

    #[test]
    fn an_account_that_comes_late_takes_nothing_back() {
        let (late, known) = (
            totals(r#"{"accepted":1,"requests":5,"restarts":0}"#),
            totals(r#"{"accepted":2,"requests":4,"restarts":1,"restarts_by_cause":{"exit":1}}"#),
        );
        let expected = r#"{"accepted":2,"requests":5,"restarts":1,"restarts_by_cause":{"exit":1}}"#;
        assert_eq!(known.latest(late), totals(expected));
    }
}
