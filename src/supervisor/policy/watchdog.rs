//! Workers whose loop does not turn: noticed, relieved of their sockets, and ended.

use super::generation::{Process, Seat, SeatState, Stage};
use super::{Action, Fact, Plan, Policy, Worker};

/// How long a hung worker has to turn again before it is killed.
pub(super) const MOMENT_MS: u64 = 1_000;
/// The cause of a hung worker's end.
const HUNG: &str = "hung: no turn of its loop within supervisor.watchdog";

impl Policy {
    /// How often the beats are read: often enough that a hung worker is noticed soon after its time.
    pub(super) fn watch_interval_ms(&self) -> Option<u64> {
        let watchdog_ms = self.generations[self.current()?].settings.watchdog_ms;
        (watchdog_ms > 0).then(|| (watchdog_ms / 4).max(1))
    }

    /// Has the beats read. Not if that should have been long ago: then this process was stopped, and
    /// everybody else perhaps with it; they get the time of another interval.
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
        let watchdog_ms = self.generations[index].settings.watchdog_ms;
        let Some(seat) = self.driven(worker) else {
            return;
        };
        let late = watchdog_ms > 0 && age_ms > watchdog_ms;
        match seat.state {
            SeatState::Ready { is_full, .. } if late => {
                seat.state = SeatState::Hung { worker, is_full, kill_ms: now_ms + MOMENT_MS };
                self.tell(Fact::WorkerHung { worker, age_ms });
            }
            SeatState::Hung { is_full, .. } if !late => {
                seat.state = SeatState::Ready { worker, is_full };
                self.tell(Fact::WorkerRecovered { worker });
            }
            _ => {}
        }
    }

    /// Ends workers that have hung for their moment: a process by itself is killed; for a thread among
    /// healthy ones a new generation is started, to which those can drain over.
    pub(super) fn kill_hung(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let due = |seat: &Seat| match seat.state {
            SeatState::Hung { worker, kill_ms, .. } if kill_ms <= now_ms => Some(worker),
            _ => None,
        };
        if self.generations[index].stage != Stage::Current {
            return;
        }
        let seats = self.generations[index].seats();
        let hung: Vec<Worker> = seats.filter_map(|(_, seat)| due(seat)).collect();
        for worker in hung {
            let ready = self.generations[index].seats().filter_map(|(_, seat)| seat.state.ready());
            let has_company = ready.map(|of| of.process).any(|process| process == worker.process);
            let kill_ms = if !has_company {
                self.kill(worker.process, HUNG);
                u64::MAX
            } else if self.incoming().is_none() {
                self.renew(index, worker);
                u64::MAX
            } else {
                now_ms + MOMENT_MS
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
            lanes: generation.lanes.len(),
            together: generation.together,
            accept: generation.accept,
            sockets: self.sockets.count(),
        };
        let ends: Vec<_> =
            generation.seats().map(|(role, seat)| (role, seat.ends_ms.clone())).collect();
        let of = generation.number;
        self.begin_generation(plan, Stage::Incoming { renews: true });
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

    /// Kills each process of an outgoing generation in which nobody but hung workers is left.
    pub(super) fn kill_stuck(&mut self, index: usize) {
        let generation = &self.generations[index];
        let is_hung = |worker: &Worker| {
            let seat = generation.seat(worker.role);
            seat.is_some_and(
                |seat| matches!(seat.state, SeatState::Hung { worker: of, .. } if of == *worker),
            )
        };
        let is_stuck =
            |process: &&Process| !process.workers.is_empty() && process.workers.iter().all(is_hung);
        let stuck: Vec<u64> = self.generations[index]
            .processes
            .iter()
            .filter(is_stuck)
            .map(|process| process.key)
            .collect();
        for key in stuck {
            self.kill(key, HUNG);
        }
    }
}
