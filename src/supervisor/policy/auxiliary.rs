//! Auxiliary workers: workers through which no clients are served, as the one that answers at the admin address. Each has
//! a process of its own, and whatever becomes of it, the server serves.
//!
//! One that ends is restarted for ever. One leaves when it isn't needed any more, which [`Leaves`] says for its role; so
//! an auxiliary worker may outlive its generation, and the lanes of a server that stops.

use std::collections::{BTreeMap, BTreeSet};

use super::generation::{Drain, Generation, ProcessStage, SeatState, hosting};
use super::{Action, CLEAN_EXIT, Fact, Phase, Policy, Worker};
use crate::control::{DrainKind, Hosting, Leaves, Role, TOLD_TO_END};

/// How long an auxiliary worker may take to leave.
pub(super) const LEAVE_MS: u64 = 5_000;

/// The sockets of auxiliary workers, as far as the policy has to know them.
#[derive(Clone, Debug)]
pub(super) struct OwnSockets {
    /// Which worker of a role has them.
    owners: BTreeMap<Role, Worker>,
    /// Whether they are taken before a first generation serves: no other server has them.
    early: bool,
}

impl OwnSockets {
    pub(super) fn new(early: bool) -> OwnSockets {
        OwnSockets { owners: BTreeMap::new(), early }
    }
}

impl Policy {
    /// Gives the auxiliary workers that are ready their sockets, and has those leave that aren't needed any more.
    pub(super) fn keep_auxiliary(&mut self) {
        self.own_auxiliary_sockets();
        for index in 0..self.generations.len() {
            self.dismiss_auxiliary(index);
        }
    }

    /// Whether a generation has to have a worker of this role.
    pub(super) fn is_needed(&self, index: usize, role: Role) -> bool {
        let (generation, goes_on) = (&self.generations[index], self.goes_on(index));
        match role.leaves() {
            Leaves::WithGeneration => goes_on,
            Leaves::AfterLanes => goes_on || generation.has_lanes(),
            Leaves::AfterSuccessor => match self.phase {
                Phase::Draining { kind: DrainKind::Stop, .. } => {
                    self.current() == Some(index) && self.has_lanes()
                }
                Phase::Draining { kind: DrainKind::Replaced, .. } => false,
                _ => {
                    let owner = self.own_sockets.owners.get(&role);
                    goes_on || owner.is_some_and(|of| generation.workers().any(|own| own == *of))
                }
            },
        }
    }

    /// Whether a generation is to serve, or does so, until another one takes over or the server ends.
    fn goes_on(&self, index: usize) -> bool {
        !self.generations[index].is_outgoing() && !self.is_over()
    }

    /// Whether it ends: nothing of it is started any more but what sees to that.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Over)
    }

    /// Whether a process lives that hosts workers through which clients are served.
    fn has_lanes(&self) -> bool {
        self.generations.iter().any(Generation::has_lanes)
    }

    /// The sockets of a role belong to its worker in the current generation as soon as that is ready; until then, to the
    /// one that had them before.
    fn own_auxiliary_sockets(&mut self) {
        let seats = self.generations.iter().flat_map(|generation| generation.seats.keys());
        let roles: BTreeSet<Role> = seats.copied().filter(|role| role.has_sockets()).collect();
        for role in roles {
            let before = self.own_sockets.owners.get(&role).copied();
            let after = self.owner_of(role, before);
            match after {
                Some(worker) => self.own_sockets.owners.insert(role, worker),
                None => self.own_sockets.owners.remove(&role),
            };
            if let Some(worker) = after.filter(|_| after != before) {
                self.act(Action::TakeOwn(worker));
            }
        }
    }

    fn owner_of(&self, role: Role, before: Option<Worker>) -> Option<Worker> {
        let index = match self.current() {
            None if self.own_sockets.early => self.incoming(),
            current => current,
        };
        let index = index.filter(|index| self.is_needed(*index, role))?;
        let own = self.generations[index].seat(role)?.state.ready();
        own.into_iter().chain(before).find(|worker| self.is_at_work(*worker))
    }

    /// Whether a worker lives, and was not told to leave.
    fn is_at_work(&self, worker: Worker) -> bool {
        let processes = self.generations.iter().flat_map(|generation| &generation.processes);
        let mut serving =
            processes.filter(|process| matches!(process.stage, ProcessStage::Serving));
        serving.any(|process| process.workers.contains(&worker))
    }

    /// Whether this worker has the sockets of its role.
    pub(super) fn owns_sockets(&self, worker: Worker) -> bool {
        self.own_sockets.owners.get(&worker.role) == Some(&worker)
    }

    fn dismiss_auxiliary(&mut self, index: usize) {
        if self.phase == Phase::Over {
            // Those that are left were left behind.
            return;
        }
        let deadline_ms = self.now_ms + LEAVE_MS;
        let kind = match self.phase {
            Phase::Draining { kind, .. } => kind,
            Phase::Stopping { .. } => DrainKind::Stop,
            _ => DrainKind::Replaced,
        };
        for at in 0..self.generations[index].processes.len() {
            let process = &self.generations[index].processes[at];
            let Hosting::Single(role) = process.hosting else { continue };
            let is_killed = matches!(self.phase, Phase::Stopping { .. }) && !process.ends_last();
            let is_at_work = matches!(process.stage, ProcessStage::Serving) && !is_killed;
            if role.serves() || !is_at_work || self.is_needed(index, role) {
                continue;
            }
            if role.has_sockets() && self.is_over() {
                // As with the lanes': the supervisor's first.
                self.act(Action::CloseOwn(role));
            }
            let process = &mut self.generations[index].processes[at];
            process.stage = ProcessStage::Draining(Drain { deadline_ms, kind });
            let number = process.number;
            self.act(Action::Drain(number, kind));
        }
    }

    /// What the last lanes of a generation have left behind is taken, also where no worker is there any more that does so.
    pub(super) fn take_what_is_left(&mut self) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        for index in 0..self.generations.len() {
            if !self.goes_on(index) && !self.generations[index].has_lanes() {
                self.start_last(index);
            }
        }
    }

    /// Starts the workers that take what the lanes leave behind, where there are none: at once, whenever they should have
    /// followed.
    pub(super) fn start_last(&mut self, index: usize) {
        let generation = &mut self.generations[index];
        if !generation.has_served() {
            return;
        }
        let (mode, processes) = (generation.mode, &generation.processes);
        let is_missing =
            |role| !processes.iter().any(|process| process.hosting == hosting(role, mode));
        let seats = generation.seats.iter_mut();
        let missing = seats.filter(|(role, seat)| {
            role.leaves() == Leaves::AfterLanes && seat.last_tries > 0 && is_missing(**role)
        });
        let missing: Vec<Role> = missing
            .map(|(role, seat)| {
                seat.last_tries -= 1;
                *role
            })
            .collect();
        missing.iter().for_each(|role| self.fill(index, hosting(*role, mode), &[*role]));
    }

    /// Takes note of the end of a process: no other follows a worker that has left as it was told to, or could not.
    pub(super) fn note_last(
        &mut self,
        index: usize,
        of: Hosting,
        stage: &ProcessStage,
        cause: &str,
    ) {
        let is_last = match stage {
            ProcessStage::Draining(_) => cause == CLEAN_EXIT,
            ProcessStage::Killed { has_drained, .. } => *has_drained,
            ProcessStage::Serving | ProcessStage::AwaitsAcceptor(_) => false,
        };
        if let Hosting::Single(role) = of
            && let Some(seat) = self.generations[index].seat_mut(role).filter(|_| is_last)
        {
            seat.last_tries = 0;
        }
    }

    /// An auxiliary worker has ended: another one follows, the later the more often that happened in a row.
    pub(super) fn restart_auxiliary(&mut self, index: usize, worker: Worker, cause: &str) {
        let (now_ms, generation) = (self.now_ms, &mut self.generations[index]);
        let window_ms = generation.settings.restart_window_ms;
        let Some(seat) = generation.seat_mut(worker.role) else { return };
        // One that was told to end has not failed, and is followed at once.
        let is_failure = cause != TOLD_TO_END;
        let restarts = match is_failure {
            true => seat.count_in_a_row(now_ms, window_ms),
            false => seat.ends_within(now_ms, window_ms),
        };
        let delay_ms = if is_failure { self.delay_ms(index, restarts) } else { 0 };
        if let Some(seat) = self.generations[index].seat_mut(worker.role) {
            seat.state = SeatState::Waiting { until_ms: now_ms + delay_ms };
        }
        let cause = cause.to_owned();
        self.announce(Fact::WorkerRestarting { worker, cause, delay_ms, restarts });
        self.promote_ready();
    }

    /// Whether a generation can take over as far as its auxiliary workers go: where there are others until then, these are
    /// to be followed by some that are ready. One that has failed is waited for no longer.
    pub(super) fn are_auxiliary_settled(&self, index: usize) -> bool {
        let is_first = self.current().is_none() && self.own_sockets.early;
        let seats = self.generations[index].seats.iter();
        let mut auxiliary = seats.filter(|(role, _)| !role.serves()).map(|(_, seat)| seat);
        is_first || auxiliary.all(|seat| seat.was_ready || seat.has_failed())
    }

    /// When something is due for the auxiliary workers of a server that drains, if nothing else happens.
    pub(super) fn auxiliary_next_ms(&self) -> Option<u64> {
        let due = self.generations.iter().enumerate().flat_map(|(index, generation)| {
            let processes = generation.processes.iter().filter(|process| !process.hosting.serves());
            let drains = processes.filter_map(|process| process.drain());
            let drains = drains.map(|drain| drain.deadline_ms);
            drains.chain(self.auxiliary_seats_next_ms(index))
        });
        due.min()
    }

    /// The same for the seats of a generation that is on its way out. One that hangs has as long as the others have to
    /// leave.
    pub(super) fn auxiliary_seats_next_ms(&self, index: usize) -> Option<u64> {
        let seats = self.generations[index].seats.iter();
        let needed = seats.filter(|(role, _)| !role.serves() && self.is_needed(index, **role));
        let due = needed.filter_map(|(_, seat)| match seat.state {
            SeatState::Hung { .. } => None,
            state => state.next_ms(),
        });
        due.min()
    }
}
