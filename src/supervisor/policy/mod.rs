//! What to do when a worker ends, a signal comes or time passes: a pure function of what is known.
//!
//! ```text
//! a lane:       Starting ── ready ─▶ Ready ── its worker ends ─▶ Waiting ── delay over ─▶ Starting
//!                   └ ends, or is late ─────▶ Waiting             ▲
//!               Ready ── no turn for too long ─▶ Hung ── killed ──┘
//!                 ▲                               │ └─ healthy lanes beside it: a new generation
//!                 └────────── turns again ────────┘
//!
//! a generation: Incoming ── every lane ready ─▶ Current ── the next is Current ─▶ Outgoing ─▶ gone
//!                   └ a worker ends before it was ever ready: withdrawn ────────────▲
//!
//! a socket:     owned by its lane's worker if that is ready and has room, else by a sibling that adopts it;
//!               in accept mode shared by all that are ready, in handoff by the acceptor;
//!               of a lane that is given up: Closing, steered away from and adopted until it is empty
//!
//! the whole:    Starting ── first generation Current ─▶ Serving ── TERM, or giving up ─▶ Draining ─▶ Over
//!                   └ a worker ends before it was ever ready ─▶ Stopping ── all ended ────────────▲
//!                             (a second signal that asks for it, or the deadline of the drain: Stopping) ───────────┘
//! ```
//!
//! No I/O and no clock: time comes in as milliseconds since the supervisor began, and what is to be done
//! goes out as [`Action`]s. Jitter comes from a generator that is part of the state.

mod drain;
mod full;
mod generation;
mod sockets;
mod watchdog;

use std::mem;

use generation::{Generation, Replacing, Stage};
use sockets::Sockets;

use crate::config::Accept;
use crate::control::{DrainKind, Missed, Role, WorkerNumber};

/// The settings that the policy goes by, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// `supervisor.watchdog`; 0 is off.
    pub watchdog_ms: u64,
}

/// A generation to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it goes by.
    pub settings: Settings,
    /// How many lanes.
    pub lanes: usize,
    /// All lanes in one process (mode `threads`), or each in its own.
    pub together: bool,
    /// How connections come to the lanes.
    pub accept: Accept,
    /// How many lanes have sockets by now, which may be more than it needs.
    pub sockets: usize,
}

/// A worker: one of those that have driven a lane, or accepted for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// Never used twice.
    pub id: WorkerNumber,
    /// The process that hosts it; never used twice either.
    pub process: u64,
    /// What it does.
    pub role: Role,
}

impl Worker {
    /// The number of its lane; beyond all lanes if it has none.
    fn lane(self) -> usize {
        match self.role {
            Role::Lane(lane) => lane,
            Role::Acceptor => usize::MAX,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// This worker can serve.
    Ready(Worker),
    /// Whether this worker has as many connections as it may have.
    Full(Worker, bool),
    /// This worker had no descriptors for what it was passed of a lane.
    Missed(Worker, usize, Missed),
    /// This worker drains, and accepts no more.
    StoppedAccepting(Worker),
    /// This worker ended by a failure, and its process lives.
    WorkerEnded {
        /// Which.
        worker: Worker,
        /// In words.
        cause: String,
    },
    /// This worker ended because its drain was over.
    WorkerDrained(Worker),
    /// The workers of this process drain because the process was sent a signal to end.
    ToldToEnd(u64),
    /// A worker process ended.
    ProcessEnded {
        /// Which.
        process: u64,
        /// In words.
        cause: String,
    },
    /// How many milliseconds ago each worker's loop began its last turn.
    Beats(Vec<(Worker, u64)>),
    /// Start a new generation, in place of the current one if there is one.
    Replace(Plan),
    /// Have the current generation drive this many lanes.
    Resize(usize),
    /// There are sockets for this many lanes by now, more than a change that was given up should have left.
    Opened(usize),
    /// The sockets of this lane, the last one, are closed.
    LaneClosed(usize),
    /// The first generation, whose workers are ready, can't serve: it has been given nothing yet.
    CannotServe(String),
    /// A signal, or whatever else asks for the end.
    Stop(&'static str),
    /// Another supervisor has taken over every socket.
    HandedOver,
    /// Time passed.
    Tick,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make known that this generation is that one again, under a new number.
    Renew {
        /// The new number.
        generation: u64,
        /// What it is like.
        of: u64,
    },
    /// Fork a worker process with these workers.
    StartProcess {
        /// The generation.
        generation: u64,
        /// Its workers, at least one, all of one process.
        workers: Vec<Worker>,
    },
    /// Have a living process start this worker.
    StartWorker(Worker),
    /// Have this worker accept from the sockets of this lane; in accept mode handoff, have a lane's worker
    /// take what is handed to this lane.
    Take {
        /// Who.
        worker: Worker,
        /// Whose sockets.
        lane: usize,
    },
    /// Have this worker accept from the sockets of this lane no more.
    Release {
        /// Who.
        worker: Worker,
        /// Whose sockets.
        lane: usize,
    },
    /// Have this worker accept once from the sockets of this lane: the worker that was woken for a connection may have
    /// ended, or hang.
    PollAgain {
        /// Who.
        worker: Worker,
        /// Whose sockets.
        lane: usize,
    },
    /// Have the acceptor hand connections to this lane, by the count of the worker that drives it.
    Attach {
        /// The acceptor.
        acceptor: Worker,
        /// The lane.
        lane: usize,
        /// Its worker.
        worker: Worker,
    },
    /// Have the acceptor hand no more connections to this lane.
    Detach {
        /// The acceptor.
        acceptor: Worker,
        /// The lane.
        lane: usize,
    },
    /// This generation serves from here on: what only others needed can go.
    Serve(u64),
    /// Have new connections go to the sockets of the first so many lanes alone; `None`: to all.
    Steer(Option<usize>),
    /// Close the sockets of this lane, the last one, if nobody waits in them, and say so.
    CloseLane(usize),
    /// Close the supervisor's copies of the listening sockets.
    CloseListeners,
    /// Tell this process to drain, for the first time or because it has become urgent.
    Drain(u64, DrainKind),
    /// Tell this process, which drains, that nothing will be handed to its lane any more.
    Seal(u64),
    /// Tell this worker alone to drain.
    DrainWorker(Worker),
    /// Kill this process.
    Kill(u64),
    /// Say of every worker how long ago its last turn began.
    ReadBeats,
    /// This generation has no process left.
    Forget(u64),
    /// Tell people.
    Tell(Fact),
    /// Exit with this code.
    Exit(i32),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the log's fields")]
pub enum Fact {
    WorkerReady { worker: Worker },
    AllReady { generation: u64, lanes: usize },
    WorkerExited { worker: Worker, cause: String },
    WorkerLeaving { worker: Worker, cause: &'static str },
    WorkerRestarting { worker: Worker, cause: String, delay_ms: u64, restarts: u32 },
    WorkerGaveUp { worker: Worker, cause: String, restarts: u32 },
    WorkerHung { worker: Worker, age_ms: u64 },
    WorkerRecovered { worker: Worker },
    WorkerAdopted { lane: usize, by: Worker },
    AllFull { lanes: usize },
    NotReadyInTime { worker: Worker },
    CouldNotStart { cause: String },
    Replaced { generation: u64, lanes: usize, renews: bool },
    Withdrawn { generation: u64, cause: String },
    Resized { lanes: usize },
    LaneClosed { lane: usize },
    DrainStarted { generation: u64, reason: String },
    DrainGoesOn { reason: &'static str },
    DrainDone { generation: u64 },
    DrainDeadline { workers: Vec<Worker> },
    StopForced { reason: &'static str },
}

/// Everything the policy knows.
#[derive(Clone, Debug)]
pub struct Policy {
    phase: Phase,
    /// Oldest first: those that go, the current one, the one that comes.
    generations: Vec<Generation>,
    sockets: Sockets,
    replacing: Option<Replacing>,
    numbers: Numbers,
    /// When the workers' beats are read next.
    beats_ms: u64,
    /// From when on it is told that every lane is full.
    full_ms: u64,
    random: u64,
    now_ms: u64,
    actions: Vec<Action>,
}

/// The last of each number that was given out.
#[derive(Clone, Debug, Default)]
struct Numbers {
    generation: u64,
    process: u64,
    worker: WorkerNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No generation has been current yet.
    Starting,
    Serving,
    /// `is_asked`: somebody asked for the end, who has to ask again to force it.
    Draining {
        deadline_ms: u64,
        code: i32,
        is_asked: bool,
    },
    /// Every process was killed; gone when they are.
    Stopping {
        code: i32,
    },
    Over,
}

/// The cause of a process's end that is no failure.
pub const CLEAN_EXIT: &str = "exited with code 0";

impl Policy {
    /// Begins with a first generation. `seed` feeds the jitter.
    pub fn begin(plan: Plan, seed: u64, now_ms: u64) -> (Policy, Vec<Action>) {
        let mut policy = Policy {
            phase: Phase::Starting,
            generations: Vec::new(),
            sockets: Sockets::default(),
            replacing: None,
            numbers: Numbers::default(),
            beats_ms: now_ms,
            full_ms: now_ms,
            random: seed | 1,
            now_ms,
            actions: Vec::new(),
        };
        let actions = policy.decide(Input::Replace(plan), now_ms);
        (policy, actions)
    }

    /// What to do about `input`, at `now_ms`.
    pub fn decide(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        self.now_ms = now_ms;
        match input {
            Input::Ready(worker) => self.ready(worker),
            Input::Full(worker, is_full) => self.full(worker, is_full),
            Input::Missed(worker, lane, what) => self.missed(worker, lane, what),
            Input::StoppedAccepting(worker) => self.left(worker),
            Input::WorkerEnded { worker, cause } => self.ended(worker.process, &[worker], &cause),
            Input::WorkerDrained(worker) => self.drained(worker),
            Input::ToldToEnd(process) => self.leaving(process),
            Input::ProcessEnded { process, cause } => self.process_ended(process, cause),
            Input::Beats(beats) => {
                beats.into_iter().for_each(|(worker, age_ms)| self.beat(worker, age_ms));
            }
            Input::Replace(plan) => self.replace(plan),
            Input::Resize(lanes) => self.resize(lanes),
            Input::Opened(lanes) => self.sockets.grow(lanes),
            Input::LaneClosed(lane) => self.lane_closed(lane),
            Input::CannotServe(cause) => {
                self.tell(Fact::CouldNotStart { cause });
                self.kill_all(1);
            }
            Input::Stop(reason) => self.stop(reason),
            Input::HandedOver => {
                self.drain("another supervisor has taken over".into(), 0, DrainKind::Replaced);
            }
            Input::Tick => {}
        }
        // Who waits in a queue is helped before a process is forked.
        self.own_sockets();
        self.pass_time();
        self.own_sockets();
        mem::take(&mut self.actions)
    }

    /// Whether one generation is about to replace another, so that neither a reload nor a resize can begin.
    pub fn is_changing(&self) -> bool {
        self.phase != Phase::Serving || self.incoming().is_some() || self.replacing.is_some()
    }

    /// Whether it drains, or has ended.
    pub fn is_ending(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Serving)
    }

    /// The number that the next generation gets.
    pub fn next_generation(&self) -> u64 {
        self.numbers.generation + 1
    }

    /// How many lanes the current generation has; 0 if there is none yet.
    pub fn lanes(&self) -> usize {
        self.current().map_or(0, |index| self.generations[index].lanes.len())
    }

    /// What each lane of the current generation is doing, in a word, and who drives it.
    pub fn lane_states(&self) -> Vec<(&'static str, Option<Worker>)> {
        let lanes = self.current().map(|index| self.generations[index].lanes.as_slice());
        lanes.unwrap_or_default().iter().map(|lane| lane.state.describe()).collect()
    }

    /// The same of the current generation's acceptor, if it has one.
    pub fn acceptor_state(&self) -> Option<(&'static str, Option<Worker>)> {
        let generation = &self.generations[self.current()?];
        generation.acceptor.as_ref().map(|acceptor| acceptor.state.describe())
    }

    /// When [`Input::Tick`] is due, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Over | Phase::Stopping { .. } => None,
            Phase::Draining { deadline_ms, .. } => Some(deadline_ms),
            Phase::Starting | Phase::Serving => {
                let watch = self.watch_interval_ms().map(|_| self.beats_ms);
                let generations = self.generations.iter().filter_map(Generation::next_ms);
                let replaced = self.replacing.as_ref().map(|replacing| replacing.until_ms);
                let own = [watch, replaced, self.full_next_ms()].into_iter().flatten();
                generations.chain(self.sockets.next_ms()).chain(own).min()
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn tell(&mut self, fact: Fact) {
        self.actions.push(Action::Tell(fact));
    }

    fn current(&self) -> Option<usize> {
        self.generations.iter().position(|generation| generation.stage == Stage::Current)
    }

    fn incoming(&self) -> Option<usize> {
        let comes = |generation: &Generation| matches!(generation.stage, Stage::Incoming { .. });
        self.generations.iter().position(comes)
    }

    fn stop(&mut self, reason: &'static str) {
        match self.phase {
            Phase::Starting | Phase::Serving => {
                self.drain(reason.to_owned(), 0, DrainKind::Stop);
                if let Phase::Draining { is_asked, .. } = &mut self.phase {
                    *is_asked = true;
                }
            }
            Phase::Draining { deadline_ms, code, is_asked: false } => {
                self.phase = Phase::Draining { deadline_ms, code, is_asked: true };
                self.tell(Fact::DrainGoesOn { reason });
            }
            Phase::Draining { is_asked: true, .. } => {
                self.tell(Fact::StopForced { reason });
                self.kill_all(1);
            }
            Phase::Stopping { .. } | Phase::Over => {}
        }
    }

    /// Has everybody finish what is in flight. What isn't current yet has nothing in flight.
    fn drain(&mut self, reason: String, code: i32, kind: DrainKind) {
        if !matches!(self.phase, Phase::Starting | Phase::Serving) {
            return;
        }
        let latest = self.current().or(self.incoming());
        let latest = latest.map(|index| &self.generations[index]);
        let timeout_ms = latest.map_or(0, |generation| generation.settings.drain_timeout_ms);
        let number = latest.map_or(0, |generation| generation.number);
        let deadline_ms = self.now_ms + timeout_ms;
        self.phase = Phase::Draining { deadline_ms, code, is_asked: false };
        self.tell(Fact::DrainStarted { generation: number, reason });
        // The supervisor's sockets first: when a worker then closes its own, nobody can queue on them.
        self.act(Action::CloseListeners);
        let incoming = self.incoming().filter(|_| self.generations.len() > 1);
        for index in 0..self.generations.len() {
            if incoming != Some(index) {
                self.drain_generation(index, kind);
                continue;
            }
            let keys = self.generations[index].processes.iter().map(|process| process.key);
            self.actions.extend(keys.map(Action::Kill));
        }
        self.end_when_alone();
    }

    fn kill_all(&mut self, code: i32) {
        self.phase = Phase::Stopping { code };
        let processes = self.generations.iter().flat_map(|generation| &generation.processes);
        let kills: Vec<_> = processes.map(|process| Action::Kill(process.key)).collect();
        self.actions.extend(kills);
        self.end_when_alone();
    }

    /// The end, if there is no process left to wait for.
    fn end_when_alone(&mut self) {
        if self.generations.iter().any(|generation| !generation.processes.is_empty()) {
            return;
        }
        let code = match self.phase {
            Phase::Draining { code, .. } => {
                self.tell(Fact::DrainDone { generation: self.numbers.generation });
                code
            }
            Phase::Stopping { code } => code,
            Phase::Starting | Phase::Serving | Phase::Over => return,
        };
        self.act(Action::Exit(code));
        self.phase = Phase::Over;
    }

    /// Whatever is due by now.
    fn pass_time(&mut self) {
        match self.phase {
            Phase::Draining { deadline_ms, code, .. } if deadline_ms <= self.now_ms => {
                let generations = self.generations.iter();
                let workers = generations.flat_map(Generation::workers).collect();
                self.tell(Fact::DrainDeadline { workers });
                self.kill_all(code);
            }
            Phase::Draining { .. } => {}
            Phase::Starting | Phase::Serving => {
                for index in 0..self.generations.len() {
                    self.end_drains(index);
                    self.kill_late(index);
                    self.kill_hung(index);
                    self.restart_due(index);
                }
                self.finish_replacing();
                self.close_sockets();
                self.watch();
                self.tell_full();
            }
            _ => {}
        }
    }

    /// A random half to whole of `whole_ms`, so that what fails together does not return together.
    fn jitter(&mut self, whole_ms: u64) -> u64 {
        // xorshift64 (Marsaglia): enough for jitter.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        whole_ms - self.random % (whole_ms / 2 + 1)
    }
}

#[cfg(test)]
mod tests;
