//! What to do when a worker ends, a signal comes or time passes: a pure function of what is known.
//!
//! ```text
//! a lane:    Starting ── ready ─▶ Ready ── its worker ends ─▶ Waiting ── delay over ─▶ Starting
//!                └───── its worker ends, or is not ready in time ──▲
//!
//! the whole: Starting ── all ready ─▶ Serving ── TERM, or a lane that can't be kept ─▶ Draining ─▶ Over
//!                └── a worker ends before it was ready ─▶ Stopping ── all ended ─────────────────▲
//!                                        (a second signal or the deadline of a drain: Stopping) ─┘
//! ```
//!
//! No I/O and no clock: time comes in as milliseconds since the supervisor began, and what is to be done
//! goes out as [`Action`]s. Jitter comes from a generator that is part of the state.

use std::collections::VecDeque;

/// The settings that the policy goes by, times in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `supervisor.drain_timeout`
    pub drain_timeout_ms: u64,
    /// `supervisor.ready_timeout`
    pub ready_timeout_ms: u64,
    /// `supervisor.restart_delay`
    pub restart_delay_ms: u64,
    /// `supervisor.restart_delay_max`
    pub restart_delay_max_ms: u64,
    /// `supervisor.max_restarts`
    pub max_restarts: u32,
    /// `supervisor.restart_window`
    pub restart_window_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The worker of this lane serves.
    Ready(usize),
    /// The worker of this lane ended, and its process lives.
    WorkerEnded {
        /// The lane.
        lane: usize,
        /// In words.
        cause: String,
    },
    /// A worker process ended.
    ProcessEnded {
        /// The process's place, not its pid.
        process: usize,
        /// In words.
        cause: String,
    },
    /// A signal, or whatever else asks for the end.
    Stop(&'static str),
    /// Time passed.
    Tick,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fork this worker process, with workers for these of its lanes.
    StartProcess {
        /// The process's place.
        process: usize,
        /// Lanes to start in it.
        lanes: Vec<usize>,
    },
    /// Have a living process start a worker for this lane.
    StartWorker {
        /// The process's place.
        process: usize,
        /// The lane.
        lane: usize,
    },
    /// Close the supervisor's copies of the listening sockets.
    CloseListeners,
    /// Tell this process to drain.
    Drain(usize),
    /// Kill this process.
    Kill(usize),
    /// Tell people.
    Tell(Fact),
    /// Exit with this code.
    Exit(i32),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the log's fields")]
pub enum Fact {
    WorkerReady { lane: usize },
    AllReady,
    WorkerExited { lane: usize, cause: String },
    WorkerRestarting { lane: usize, delay_ms: u64, restarts: u32 },
    WorkerGaveUp { lane: usize, restarts: u32 },
    NotReadyInTime { lane: usize },
    CouldNotStart { cause: String },
    DrainStarted { reason: String },
    DrainDone,
    DrainDeadline,
    StopForced { reason: &'static str },
}

/// Everything the policy knows.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
    phase: Phase,
    lanes: Vec<Lane>,
    processes: Vec<Process>,
    random: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not every lane has been ready yet.
    Starting,
    Serving,
    Draining {
        deadline_ms: u64,
        code: i32,
    },
    /// Every process was killed; gone when they are.
    Stopping {
        code: i32,
    },
    Over,
}

#[derive(Clone, Debug)]
struct Lane {
    process: usize,
    state: LaneState,
    was_ready: bool,
    /// When its workers ended, within the restart window.
    ends_ms: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    Starting { deadline_ms: u64 },
    Ready,
    Waiting { until_ms: u64 },
}

#[derive(Clone, Debug)]
struct Process {
    lanes: Vec<usize>,
    alive: bool,
}

impl Policy {
    /// Begins: starts every process. `processes` lists the lanes of each; together they are `0..n`.
    /// `seed` feeds the jitter.
    pub fn begin(
        settings: Settings,
        processes: &[Vec<usize>],
        seed: u64,
        now_ms: u64,
    ) -> (Policy, Vec<Action>) {
        let count = processes.iter().map(Vec::len).sum();
        let deadline_ms = now_ms + settings.ready_timeout_ms;
        let process_of = |lane| processes.iter().position(|lanes| lanes.contains(&lane));
        let lanes = (0..count).map(|lane| Lane {
            process: process_of(lane).unwrap_or_default(),
            state: LaneState::Starting { deadline_ms },
            was_ready: false,
            ends_ms: VecDeque::new(),
        });
        let start = |(process, lanes): (usize, &Vec<usize>)| Action::StartProcess {
            process,
            lanes: lanes.clone(),
        };
        let actions = processes.iter().enumerate().map(start).collect();
        let policy = Policy {
            phase: Phase::Starting,
            lanes: lanes.collect(),
            processes: processes
                .iter()
                .map(|lanes| Process { lanes: lanes.clone(), alive: true })
                .collect(),
            random: seed | 1,
            settings,
        };
        (policy, actions)
    }

    /// What to do about `input`, at `now_ms`.
    pub fn decide(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        let mut actions = match input {
            Input::Ready(lane) => self.ready(lane),
            Input::WorkerEnded { lane, cause } => self.ended(&[lane], &cause, now_ms),
            Input::ProcessEnded { process, cause } => self.process_ended(process, &cause, now_ms),
            Input::Stop(reason) => self.stop(reason, now_ms),
            Input::Tick => Vec::new(),
        };
        actions.extend(self.pass_time(now_ms));
        actions
    }

    /// When [`Input::Tick`] is due, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Over | Phase::Stopping { .. } => None,
            Phase::Draining { deadline_ms, .. } => Some(deadline_ms),
            Phase::Starting | Phase::Serving => {
                let due = |lane: &Lane| match lane.state {
                    LaneState::Starting { deadline_ms } => Some(deadline_ms),
                    LaneState::Waiting { until_ms } => Some(until_ms),
                    LaneState::Ready => None,
                };
                self.lanes.iter().filter_map(due).min()
            }
        }
    }

    fn ready(&mut self, lane: usize) -> Vec<Action> {
        let mut actions = vec![Action::Tell(Fact::WorkerReady { lane })];
        self.lanes[lane].state = LaneState::Ready;
        self.lanes[lane].was_ready = true;
        if self.phase == Phase::Starting
            && self.lanes.iter().all(|lane| lane.state == LaneState::Ready)
        {
            self.phase = Phase::Serving;
            actions.push(Action::Tell(Fact::AllReady));
        }
        actions
    }

    fn process_ended(&mut self, process: usize, cause: &str, now_ms: u64) -> Vec<Action> {
        self.processes[process].alive = false;
        let lost = self.processes[process].lanes.iter().copied();
        let lost: Vec<_> = lost
            .filter(|lane| !matches!(self.lanes[*lane].state, LaneState::Waiting { .. }))
            .collect();
        let mut actions = match self.phase {
            // A drained process is meant to end.
            Phase::Draining { .. } if cause == CLEAN_EXIT => Vec::new(),
            _ => self.ended(&lost, cause, now_ms),
        };
        if self.processes.iter().any(|process| process.alive) {
            return actions;
        }
        match self.phase {
            Phase::Draining { code, .. } => {
                actions.extend([Action::Tell(Fact::DrainDone), Action::Exit(code)]);
                self.phase = Phase::Over;
            }
            Phase::Stopping { code } => {
                actions.push(Action::Exit(code));
                self.phase = Phase::Over;
            }
            Phase::Starting | Phase::Serving | Phase::Over => {}
        }
        actions
    }

    /// The workers of `lanes` ended, all by the same cause.
    fn ended(&mut self, lanes: &[usize], cause: &str, now_ms: u64) -> Vec<Action> {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Over) {
            return Vec::new();
        }
        let told = lanes
            .iter()
            .map(|lane| Action::Tell(Fact::WorkerExited { lane: *lane, cause: cause.to_owned() }));
        let mut actions: Vec<_> = told.collect();
        if let Phase::Draining { .. } = self.phase {
            return actions;
        }
        if self.phase == Phase::Starting && lanes.iter().any(|lane| !self.lanes[*lane].was_ready) {
            actions.push(Action::Tell(Fact::CouldNotStart { cause: cause.to_owned() }));
            actions.extend(self.kill_all(1));
            return actions;
        }
        for lane in lanes {
            let window_ms = self.settings.restart_window_ms;
            let ends_ms = &mut self.lanes[*lane].ends_ms;
            ends_ms.retain(|end_ms| now_ms - end_ms < window_ms);
            ends_ms.push_back(now_ms);
        }
        // Lanes that ended together are restarted together, after the longest of their delays.
        let ends = lanes.iter().map(|lane| self.lanes[*lane].ends_ms.len() as u32);
        let restarts = ends.max().unwrap_or_default();
        if restarts > self.settings.max_restarts {
            let gave_up = lanes.iter().map(|lane| {
                Action::Tell(Fact::WorkerGaveUp { lane: *lane, restarts: restarts - 1 })
            });
            actions.extend(gave_up);
            actions.extend(self.drain("a worker could not be kept alive".to_owned(), 1, now_ms));
            return actions;
        }
        let delay_ms = self.delay_ms(restarts);
        for lane in lanes {
            self.lanes[*lane].state = LaneState::Waiting { until_ms: now_ms + delay_ms };
            actions.push(Action::Tell(Fact::WorkerRestarting { lane: *lane, delay_ms, restarts }));
        }
        actions
    }

    /// Nothing before the first restart within the window, then `restart_delay`, doubling; of that, a random
    /// half to whole, so that lanes that fail together don't return together.
    fn delay_ms(&mut self, restarts: u32) -> u64 {
        let Some(doublings) = restarts.checked_sub(2) else {
            return 0;
        };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let whole = self.settings.restart_delay_ms.saturating_mul(factor);
        let whole = whole.min(self.settings.restart_delay_max_ms);
        // xorshift64 (Marsaglia): enough for jitter.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        whole - self.random % (whole / 2 + 1)
    }

    fn stop(&mut self, reason: &'static str, now_ms: u64) -> Vec<Action> {
        match self.phase {
            Phase::Starting | Phase::Serving => self.drain(reason.to_owned(), 0, now_ms),
            Phase::Draining { .. } => {
                let mut actions = vec![Action::Tell(Fact::StopForced { reason })];
                actions.extend(self.kill_all(1));
                actions
            }
            Phase::Stopping { .. } | Phase::Over => Vec::new(),
        }
    }

    fn drain(&mut self, reason: String, code: i32, now_ms: u64) -> Vec<Action> {
        let deadline_ms = now_ms + self.settings.drain_timeout_ms;
        self.phase = Phase::Draining { deadline_ms, code };
        // The supervisor's sockets first: when a worker then closes its own, nobody can queue on them.
        let mut actions = vec![Action::Tell(Fact::DrainStarted { reason }), Action::CloseListeners];
        let alive = self.alive().collect::<Vec<_>>();
        if alive.is_empty() {
            self.phase = Phase::Over;
            actions.extend([Action::Tell(Fact::DrainDone), Action::Exit(code)]);
        }
        actions.extend(alive.into_iter().map(Action::Drain));
        actions
    }

    fn kill_all(&mut self, code: i32) -> Vec<Action> {
        self.phase = Phase::Stopping { code };
        let alive = self.alive().collect::<Vec<_>>();
        if alive.is_empty() {
            self.phase = Phase::Over;
            return vec![Action::Exit(code)];
        }
        alive.into_iter().map(Action::Kill).collect()
    }

    fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        let processes = self.processes.iter().enumerate();
        processes.filter(|(_, process)| process.alive).map(|(index, _)| index)
    }

    /// Whatever is due by now.
    fn pass_time(&mut self, now_ms: u64) -> Vec<Action> {
        match self.phase {
            Phase::Draining { deadline_ms, code } if deadline_ms <= now_ms => {
                let mut actions = vec![Action::Tell(Fact::DrainDeadline)];
                actions.extend(self.kill_all(code));
                actions
            }
            Phase::Starting | Phase::Serving => {
                let mut actions = self.kill_late(now_ms);
                actions.extend(self.restart_due(now_ms));
                actions
            }
            _ => Vec::new(),
        }
    }

    /// A worker that isn't ready in time takes its process with it: a thread can't be killed.
    fn kill_late(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for lane in 0..self.lanes.len() {
            let LaneState::Starting { deadline_ms } = self.lanes[lane].state else {
                continue;
            };
            if deadline_ms <= now_ms {
                // Its end will be reported as any other; this only must not come twice.
                self.lanes[lane].state = LaneState::Starting { deadline_ms: u64::MAX };
                actions.push(Action::Tell(Fact::NotReadyInTime { lane }));
                actions.push(Action::Kill(self.lanes[lane].process));
            }
        }
        actions
    }

    /// Starts the lanes whose wait is over: all those of a dead process at once, in one new process.
    fn restart_due(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for process in 0..self.processes.len() {
            let lanes = self.processes[process].lanes.iter().copied();
            let is_due = |lane: &usize| matches!(self.lanes[*lane].state, LaneState::Waiting { until_ms } if until_ms <= now_ms);
            let due: Vec<_> = lanes.filter(is_due).collect();
            if due.is_empty() {
                continue;
            }
            let deadline_ms = now_ms + self.settings.ready_timeout_ms;
            for lane in &due {
                self.lanes[*lane].state = LaneState::Starting { deadline_ms };
            }
            if self.processes[process].alive {
                actions.extend(due.into_iter().map(|lane| Action::StartWorker { process, lane }));
            } else {
                self.processes[process].alive = true;
                actions.push(Action::StartProcess { process, lanes: due });
            }
        }
        actions
    }
}

/// The cause of a process's end that is no failure.
pub const CLEAN_EXIT: &str = "exited with code 0";

#[cfg(test)]
mod tests;
