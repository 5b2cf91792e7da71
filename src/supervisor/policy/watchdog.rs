//! Workers whose loop does not turn: noticed, relieved of their sockets, and ended.

use super::generation::{Lane, LaneState, Process, Stage};
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
        let Some(lane) = self.driven(worker) else {
            return;
        };
        let late = watchdog_ms > 0 && age_ms > watchdog_ms;
        match lane.state {
            LaneState::Ready { .. } if late => {
                lane.state = LaneState::Hung { worker, kill_ms: now_ms + MOMENT_MS };
                self.tell(Fact::WorkerHung { worker, age_ms });
            }
            LaneState::Hung { .. } if !late => {
                lane.state = LaneState::Ready { worker, is_full: false };
                self.tell(Fact::WorkerRecovered { worker });
            }
            _ => {}
        }
    }

    /// Ends workers that have hung for their moment: a process by itself is killed; for a thread among
    /// healthy ones a new generation is started, to which those can drain over.
    pub(super) fn kill_hung(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let due = |lane: &Lane| match lane.state {
            LaneState::Hung { worker, kill_ms } if kill_ms <= now_ms => Some(worker),
            _ => None,
        };
        if self.generations[index].stage != Stage::Current {
            return;
        }
        let hung: Vec<Worker> = self.generations[index].lanes.iter().filter_map(due).collect();
        for worker in hung {
            let mut lanes = self.generations[index].lanes.iter();
            let healthy =
                lanes.any(|lane| lane.state.ready().is_some_and(|of| of.process == worker.process));
            if !healthy {
                self.generations[index].lanes[worker.lane].state =
                    LaneState::Hung { worker, kill_ms: u64::MAX };
                self.kill(worker.process, HUNG);
            } else if self.incoming().is_none() {
                self.renew(index, worker.lane);
            } else {
                self.generations[index].lanes[worker.lane].state =
                    LaneState::Hung { worker, kill_ms: now_ms + MOMENT_MS };
            }
        }
    }

    /// Starts the current generation anew beside itself, because the worker of `lane` hangs.
    fn renew(&mut self, index: usize, lane: usize) {
        let generation = &mut self.generations[index];
        let window_ms = generation.settings.restart_window_ms;
        let restarts = generation.lanes[lane].count_end(self.now_ms, window_ms);
        if restarts > generation.settings.max_restarts {
            return self.give_up(&[lane], restarts - 1);
        }
        if let LaneState::Hung { kill_ms, .. } = &mut generation.lanes[lane].state {
            *kill_ms = u64::MAX;
        }
        let plan = Plan {
            settings: generation.settings.clone(),
            lanes: generation.lanes.len(),
            together: generation.together,
        };
        let ends: Vec<_> = generation.lanes.iter().map(|lane| lane.ends_ms.clone()).collect();
        let of = generation.number;
        self.begin_generation(plan, Stage::Incoming { renews: true });
        let number = self.numbers.generation;
        self.act(Action::Renew { generation: number, of });
        if let Some(renewed) = self.generations.last_mut() {
            for (lane, ends_ms) in renewed.lanes.iter_mut().zip(ends) {
                lane.ends_ms = ends_ms;
            }
        }
        let last = self.generations.len() - 1;
        self.restart_due(last);
    }

    /// Kills each process of an outgoing generation in which nobody but hung workers is left.
    pub(super) fn kill_stuck(&mut self, index: usize) {
        let lanes = &self.generations[index].lanes;
        let is_hung = |worker: &Worker| {
            let lane = lanes.get(worker.lane);
            lane.is_some_and(
                |lane| matches!(lane.state, LaneState::Hung { worker: of, .. } if of == *worker),
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
