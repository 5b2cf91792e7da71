//! Workers whose loop does not turn: noticed, relieved of their sockets, and ended.

use super::generation::{Process, Seat, SeatState, Stage};
use super::{Action, Fact, HUNG, Plan, Policy, Settings, Worker};
use crate::control::ProcessNumber;

/// How long a hung worker has to turn again before it is killed.
pub(super) const MOMENT_MS: u64 = 1_000;

impl Policy {
    /// How often the beats are read: often enough that a hung worker is noticed soon after its time.
    pub(super) fn watch_interval_ms(&self) -> Option<u64> {
        let hung_ms = self.generations[self.current()?].settings.hung_ms;
        (hung_ms > 0).then(|| (hung_ms / 4).max(1))
    }

    /// Has the beats read. Not if that should have been long ago: then this process was stopped, and perhaps every
    /// worker with it; they get the time of another interval.
    pub(super) fn watch(&mut self) {
        let Some(interval_ms) = self.watch_interval_ms().filter(|_| self.beats_ms <= self.now_ms)
        else {
            return;
        };
        if self.now_ms - self.beats_ms <= interval_ms {
            self.act(Action::ReadBeats);
        }
        self.beats_ms = self.now_ms + interval_ms;
    }

    /// What a worker's last turn says of it.
    pub(super) fn beat(&mut self, worker: Worker, age_ms: u64) {
        let now_ms = self.now_ms;
        let Some(index) = self.generation_of(worker.process) else {
            return;
        };
        let Settings { hung_ms, ends_hung, .. } = self.generations[index].settings;
        let Some(seat) = self.seat_of(worker) else {
            return;
        };
        let late = hung_ms > 0 && age_ms > hung_ms;
        match seat.state {
            SeatState::Ready { lacks, .. } if late => {
                let kill_ms = ends_hung.then_some(now_ms + MOMENT_MS);
                seat.state = SeatState::Hung { worker, lacks, kill_ms };
                self.announce(Fact::WorkerHung { worker, age_ms });
            }
            SeatState::Hung { lacks, .. } if !late => {
                seat.state = SeatState::Ready { worker, lacks };
                self.announce(Fact::WorkerRecovered { worker });
            }
            _ => {}
        }
    }

    /// Ends workers that have hung for [`MOMENT_MS`]: a process without a healthy worker is killed; beside healthy
    /// threads a new generation is started, so that these can drain.
    pub(super) fn kill_hung(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let due = |seat: &Seat| match seat.state {
            SeatState::Hung { worker, kill_ms: Some(kill_ms), .. } if kill_ms <= now_ms => {
                Some(worker)
            }
            _ => None,
        };
        if self.generations[index].stage != Stage::Current {
            return;
        }
        let hung: Vec<Worker> = self.generations[index].seats.values().filter_map(due).collect();
        for worker in hung {
            let seats = self.generations[index].seats.values();
            let ready = seats.filter_map(|seat| seat.state.ready());
            let has_company = ready.map(|of| of.process).any(|process| process == worker.process);
            let kill_ms = if !has_company {
                self.kill(worker.process, HUNG);
                None
            } else if self.incoming().is_none() {
                self.renew(index, worker);
                None
            } else {
                Some(now_ms + MOMENT_MS)
            };
            let seat = self.generations[index].seat_mut(worker.role);
            if let Some(SeatState::Hung { kill_ms: until_ms, .. }) =
                seat.map(|seat| &mut seat.state)
            {
                *until_ms = kill_ms;
            }
        }
    }

    /// Starts the current generation anew beside itself, because the worker of one seat hangs.
    fn renew(&mut self, index: usize, worker: Worker) {
        let generation = &mut self.generations[index];
        let window_ms = generation.settings.restart_window_ms;
        let seat = generation.seat_mut(worker.role);
        let restarts = seat.map_or(0, |seat| seat.count_end(self.now_ms, window_ms));
        if restarts > generation.settings.max_restarts {
            return self.give_up(&[worker], HUNG, restarts - 1);
        }
        let plan = Plan {
            settings: generation.settings.clone(),
            lanes: generation.lanes,
            mode: generation.mode,
            accept: generation.accept,
            sockets: self.sockets.count(),
            auxiliary: generation.seats.keys().copied().filter(|role| !role.serves()).collect(),
            takes_early: false,
        };
        let ends: Vec<_> =
            generation.seats.iter().map(|(role, seat)| (*role, seat.ends_ms.clone())).collect();
        let of = generation.number;
        self.begin_generation(&plan, Stage::Incoming { renews: true });
        let number = self.numbers.generation;
        self.act(Action::Renew { generation: number, of });
        let last = self.generations.len() - 1;
        for (role, ends_ms) in ends {
            if let Some(seat) = self.generations[last].seat_mut(role) {
                seat.ends_ms = ends_ms;
            }
        }
        self.restart_due(last);
    }

    /// Kills each process of an outgoing generation in which only hung workers are left, if hung workers are ended.
    pub(super) fn kill_stuck(&mut self, index: usize) {
        let generation = &self.generations[index];
        if !generation.settings.ends_hung {
            return;
        }
        let is_hung = |worker: &Worker| {
            let seat = generation.seat(worker.role);
            seat.is_some_and(
                |seat| matches!(seat.state, SeatState::Hung { worker: of, .. } if of == *worker),
            )
        };
        let is_stuck =
            |process: &&Process| !process.workers.is_empty() && process.workers.iter().all(is_hung);
        let stuck: Vec<ProcessNumber> = self.generations[index]
            .processes
            .iter()
            .filter(is_stuck)
            .map(|process| process.number)
            .collect();
        for number in stuck {
            self.kill(number, HUNG);
        }
    }
}
