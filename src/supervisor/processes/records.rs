//! What is known of each worker, and what all of them have counted: the ledger's blocks are given out here, and what a
//! worker counted is kept when its block is given to another. It talks to no process.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::totals::{Account, Accounts, Totals};
use crate::control::{Assignment, GenerationNumber, Role, WorkerNumber};
use crate::observe::ledger::labels::RestartCause;
use crate::observe::ledger::{Counters, Ledger, Levels};
use crate::supervisor::policy::Worker;
use crate::sys::process::ProcessId;

/// What is known of one worker.
pub(crate) struct WorkerRecord {
    pub(crate) worker: Worker,
    pub(crate) generation: GenerationNumber,
    /// Its process; `None` until that has been forked.
    pub(crate) pid: Option<ProcessId>,
    pub(crate) cpu: Option<usize>,
    started_ms: u64,
    pub(super) block: usize,
    /// What ended it, if it said so itself.
    pub(super) own_cause: Option<RestartCause>,
    /// It has ended, and its record goes with the next [`WorkerRecords::sweep`].
    pub(super) is_over: bool,
    /// What moves its bytes, and why that isn't what would be better.
    pub(crate) driver: Option<String>,
    pub(crate) driver_reason: Option<String>,
    /// Why it can't do what it is for, while it can't: it goes on trying.
    pub(crate) trouble: Option<String>,
}

/// The workers of every generation.
pub(crate) struct WorkerRecords {
    ledger: Arc<Ledger>,
    /// Blocks of the ledger that no worker has.
    free_blocks: Vec<usize>,
    /// Those of workers that have ended are kept until [`WorkerRecords::sweep`].
    records: HashMap<WorkerNumber, WorkerRecord>,
    /// What the workers of this supervisor counted that have ended.
    totals: BTreeMap<Role, Totals>,
    /// When the last turn of a worker began that has ended, in milliseconds of the ledger.
    last_turns_ms: BTreeMap<Role, u64>,
    /// What the supervisors before it have counted, and have now.
    inherited: BTreeMap<Role, Account>,
}

impl WorkerRecords {
    pub(super) fn new(ledger: Arc<Ledger>) -> WorkerRecords {
        WorkerRecords {
            free_blocks: (0..ledger.blocks()).rev().collect(),
            ledger,
            records: HashMap::new(),
            totals: BTreeMap::new(),
            last_turns_ms: BTreeMap::new(),
            inherited: BTreeMap::new(),
        }
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Opens the record of a worker that is about to start, and gives it a block of the ledger.
    ///
    /// # Errors
    /// If every block is taken.
    pub(super) fn add(
        &mut self,
        worker: Worker,
        generation: GenerationNumber,
        cpu: Option<usize>,
    ) -> io::Result<Assignment> {
        let block = self.free_blocks.pop();
        let block = block.ok_or_else(|| io::Error::other("the ledger is full"))?;
        let started_ms = self.ledger.now_ms();
        self.ledger.block(block).reset(started_ms);
        let record = WorkerRecord {
            worker,
            generation,
            pid: None,
            cpu,
            started_ms,
            block,
            own_cause: None,
            is_over: false,
            driver: None,
            driver_reason: None,
            trouble: None,
        };
        self.records.insert(worker.number, record);
        Ok(Assignment { worker: worker.number, role: worker.role, cpu, block })
    }

    pub(crate) fn get(&self, worker: WorkerNumber) -> Option<&WorkerRecord> {
        self.records.get(&worker)
    }

    pub(super) fn get_mut(&mut self, worker: WorkerNumber) -> Option<&mut WorkerRecord> {
        self.records.get_mut(&worker)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WorkerRecord> {
        self.records.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerRecord> {
        self.records.values_mut()
    }

    /// What a worker counts.
    pub(crate) fn counters(&self, record: &WorkerRecord) -> Counters<'_> {
        self.ledger.block(record.block)
    }

    /// How many connections a worker has open.
    pub(crate) fn open_connections(&self, worker: Worker) -> u64 {
        self.get(worker.number).map_or(0, |record| self.counters(record).open())
    }

    /// Milliseconds since a worker started.
    pub(crate) fn uptime_ms(&self, record: &WorkerRecord) -> u64 {
        self.ledger.now_ms().saturating_sub(record.started_ms)
    }

    /// The longest turn of a worker of late.
    pub(crate) fn longest_turn_us(&self, record: &WorkerRecord) -> u64 {
        self.counters(record).cells().longest_turn_of_late_us(self.ledger.now_ms())
    }

    /// Milliseconds since the last turn of the `worker` that sits in a role's seat began, or, while none does, of the one
    /// before it.
    pub(crate) fn since_last_turn_ms(&self, role: Role, worker: Option<Worker>) -> u64 {
        let record = worker.and_then(|worker| self.get(worker.number));
        let turned_ms = record.map(|record| self.counters(record).turned_ms());
        let turned_ms = turned_ms.or(self.last_turns_ms.get(&role).copied()).unwrap_or(0);
        self.ledger.now_ms().saturating_sub(turned_ms)
    }

    /// What was counted since the server began for every role that there is or was: by workers that have ended and that
    /// run, and by the supervisors before this one; and what those that run have now. Each record is read once, however
    /// many there are.
    pub(crate) fn accounts(&self) -> Accounts {
        let mut accounts: Accounts =
            self.inherited.iter().map(|(role, account)| (*role, *account)).collect();
        for (role, totals) in &self.totals {
            accounts.add(*role, Account::from(*totals));
        }
        for record in self.records.values() {
            let counters = self.counters(record);
            let (totals, levels) = (Totals::counted(counters), counters.cells().levels());
            accounts.add(record.worker.role, Account { totals, levels });
        }
        accounts
    }

    /// Takes note of what the supervisors before this one have counted by now, and what they have.
    pub(crate) fn inherit(&mut self, accounts: impl IntoIterator<Item = (Role, Account)>) {
        for (role, Account { totals, levels }) in accounts {
            let before = self.inherited.entry(role).or_default();
            before.totals = before.totals.latest(totals.with_unknown_causes());
            before.levels = levels;
        }
    }

    /// There is no supervisor before this one any more: what it counted stays, and what it had is gone.
    pub(crate) fn inherit_no_more(&mut self) {
        self.inherited.values_mut().for_each(|account| account.levels = Levels::default());
    }

    pub(crate) fn count_restart(&mut self, role: Role, cause: RestartCause) {
        self.totals.entry(role).or_default().count_restart(cause);
    }

    /// Lines of the access log were left that no writer could write.
    pub(super) fn drop_access_log_lines(&mut self, lines: u64) {
        self.totals.entry(Role::AccessLog).or_default().counts.drop_access_log_lines(lines);
    }

    /// Drops the records of workers that have ended: their ends have been logged by now.
    pub(super) fn sweep(&mut self) {
        for (_, record) in self.records.extract_if(|_, record| record.is_over) {
            let totals = self.totals.entry(record.worker.role).or_default();
            let counters = self.ledger.block(record.block);
            *totals = *totals + Totals::counted(counters);
            self.last_turns_ms.insert(record.worker.role, counters.turned_ms());
            self.free_blocks.push(record.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ProcessNumber;

    fn worker(number: u64, role: Role) -> Worker {
        Worker { number: WorkerNumber(number), process: ProcessNumber(number), role }
    }

    #[test]
    fn an_account_has_what_each_worker_of_a_role_counts_once_beside_what_was_counted_before() {
        let ledger = Arc::new(Ledger::new(4).expect("a ledger"));
        let mut records = WorkerRecords::new(Arc::clone(&ledger));
        let lane = Role::Lane(0);
        for (number, role) in [(1, lane), (2, lane), (3, Role::Lane(1)), (4, Role::Admin)] {
            let of = records.add(worker(number, role), GenerationNumber::FIRST, None);
            let cells = ledger.block(of.expect("a block").block);
            cells.cells().accepted.add(10 * number);
            cells.cells().open.set(number);
        }
        records.count_restart(lane, RestartCause::Exit);
        let totals = Totals { restarts: 5, ..Totals::default() };
        for open in [200, 100] {
            records.inherit([(lane, Account { totals, levels: Levels { open } })]);
        }
        let accounts = records.accounts();
        let of = |role| (accounts.totals_of(role).counts.accepted(), accounts.levels_of(role).open);
        assert_eq!([lane, Role::Lane(1), Role::Admin].map(of), [(30, 103), (30, 3), (40, 4)]);
        assert_eq!(accounts.totals_of(lane).restarts, 6);
        assert_eq!(accounts.served().counts.accepted(), 60, "without the admin worker's");
        assert_eq!(of(Role::Lane(7)), (0, 0));
        records.get_mut(WorkerNumber(1)).expect("its record").is_over = true;
        records.sweep();
        records.inherit_no_more();
        let accounts = records.accounts();
        assert_eq!(accounts.totals_of(lane).counts.accepted(), 30, "an end takes nothing back");
        assert_eq!(accounts.levels_of(lane).open, 2);
    }
}
