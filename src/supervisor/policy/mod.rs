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
//! an auxiliary worker: as a lane, but it is restarted for ever, and leaves when it isn't needed any more (`auxiliary`)
//!
//! the whole:    Starting ── first generation Current ─▶ Serving ── TERM, or giving up ─▶ Draining ─▶ Over
//!                   │                                          └ TERM, with a delay ─▶ Delaying ─▲
//!                   └ a worker ends before it was ever ready ─▶ Stopping ── all ended ────────────▲
//!                             (a second signal that asks for it, or the deadline of the drain: Stopping) ───────────┘
//! ```
//!
//! No I/O and no clock: time comes in as milliseconds since the supervisor began, and what is to be done
//! goes out as [`Action`]s. Jitter comes from a generator that is part of the state.

mod auxiliary;
mod drain;
mod full;
mod generation;
mod interface;
mod sockets;
mod watchdog;

use std::mem;

use auxiliary::{LEAVE_MS, OwnSockets};
use generation::{Generation, Replacing, Stage};
pub use generation::{WorkerState, hosting};
pub use interface::{Action, Fact, Input, Plan, Settings, Worker};
use sockets::Sockets;

use crate::control::{DrainKind, GenerationNumber, ProcessNumber, WorkerEvent, WorkerNumber};

/// Everything the policy knows.
#[derive(Clone, Debug)]
pub struct Policy {
    phase: Phase,
    /// Oldest first: outgoing ones, the current one, the incoming one.
    generations: Vec<Generation>,
    sockets: Sockets,
    own_sockets: OwnSockets,
    replacing: Option<Replacing>,
    numbers: Numbers,
    /// When the workers' beats are read next.
    beats_ms: u64,
    /// Since when clients have been served by nothing, if that is so.
    unserved_ms: Option<u64>,
    /// From when on it is announced that every lane is full.
    full_ms: u64,
    random: u64,
    now_ms: u64,
    actions: Vec<Action>,
}

/// The last of each number that was given out.
#[derive(Clone, Debug, Default)]
struct Numbers {
    generation: GenerationNumber,
    process: ProcessNumber,
    worker: WorkerNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No generation has been current yet.
    Starting,
    Serving,
    /// A signal or a command asked for the end: it serves until then, so that those who send requests can turn to others.
    Delaying {
        until_ms: u64,
        reason: &'static str,
    },
    /// `is_asked`: a signal or a command asked for the end, so that the next one forces it.
    Draining {
        deadline_ms: u64,
        code: i32,
        is_asked: bool,
        kind: DrainKind,
    },
    /// Every process was killed, but for auxiliary workers that take what the lanes leave behind: they have until then, and
    /// are killed, too. What has not ended so long after that is left behind: the kernel keeps it.
    Stopping {
        code: i32,
        until_ms: u64,
        are_all_killed: bool,
    },
    Over,
}

/// The cause of a process's end that is no failure.
pub const CLEAN_EXIT: &str = "exited with code 0";
/// The cause of a hung worker's end.
pub const HUNG: &str = "hung: no turn of its loop within supervisor.watchdog";
/// Why a server ends that was not told to.
const GAVE_UP: &str = "a worker could not be kept alive";
/// The cause of the end of a worker that took too long to start.
pub const NOT_READY: &str = "not ready within supervisor.ready_timeout";

/// How long a process that was killed may take to end.
const KILLED_MS: u64 = 5_000;

impl Policy {
    /// Begins with a first generation. `seed` feeds the jitter.
    pub fn begin(plan: Plan, seed: u64, now_ms: u64) -> (Policy, Vec<Action>) {
        let mut policy = Policy {
            phase: Phase::Starting,
            generations: Vec::new(),
            sockets: Sockets::default(),
            own_sockets: OwnSockets::new(plan.takes_early),
            replacing: None,
            numbers: Numbers::default(),
            beats_ms: now_ms,
            unserved_ms: Some(now_ms),
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
            Input::Reported(worker, event) => self.reported(worker, event),
            Input::ProcessEnded { process, cause } => self.process_ended(process, cause),
            Input::Beats(beats) => {
                beats.into_iter().for_each(|(worker, age_ms)| self.beat(worker, age_ms));
            }
            Input::Replace(plan) => self.replace(&plan),
            Input::Resize(lanes) => self.resize(lanes),
            Input::Opened(lanes) => self.sockets.grow(lanes),
            Input::LaneClosed(lane) => self.lane_closed(lane),
            Input::CannotServe(cause) => {
                self.announce(Fact::CouldNotStart { cause });
                self.kill_all(1);
            }
            Input::Stop(reason) => self.stop(reason),
            Input::HandedOver => {
                self.drain("another supervisor has taken over".into(), 0, DrainKind::Replaced);
            }
            Input::Tick => {}
        }
        // A connection that waits in a queue gets a worker before a process is forked.
        self.own_sockets();
        self.pass_time();
        self.own_sockets();
        self.keep_auxiliary();
        self.note_whether_served();
        mem::take(&mut self.actions)
    }

    fn reported(&mut self, worker: Worker, event: WorkerEvent) {
        match event {
            WorkerEvent::Ready { .. } => self.ready(worker),
            WorkerEvent::Full(is_full) => self.full(worker, is_full),
            WorkerEvent::AcceptPaused(_) => self.short_of_means(worker, true),
            WorkerEvent::AcceptResumed => self.short_of_means(worker, false),
            WorkerEvent::Missed(lane, what) => self.missed(worker, lane, what),
            WorkerEvent::StoppedAccepting => self.stopped_accepting(worker),
            WorkerEvent::ToldToEnd => self.told_to_end(worker.process),
            WorkerEvent::Drained => self.drained(worker),
            WorkerEvent::Failed(_) | WorkerEvent::Panicked(_) => {
                self.failed(worker, &event.failure().unwrap_or_default());
            }
            // For the log alone.
            WorkerEvent::DrainDeadline(_)
            | WorkerEvent::NotPinned(_)
            | WorkerEvent::RequestPanicked(_)
            | WorkerEvent::AccessLogFailed(_)
            | WorkerEvent::AccessLogResumed
            | WorkerEvent::AccessLogReopened
            | WorkerEvent::AccessLogDropped(_)
            // The event loop answers.
            | WorkerEvent::Asks { .. } => {}
        }
    }

    /// Whether another supervisor serves in the place of this one.
    pub fn is_followed(&self) -> bool {
        matches!(self.phase, Phase::Draining { kind: DrainKind::Replaced, .. })
    }

    /// Why it is about to end, or has ended, if so.
    pub fn ends_because(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Starting | Phase::Serving => None,
            Phase::Draining { code: 1, .. } => Some(GAVE_UP),
            _ => Some("it was told to stop"),
        }
    }

    /// Whether one generation is about to replace another, so that neither a reload nor a resize can begin.
    pub fn is_changing(&self) -> bool {
        self.phase != Phase::Serving || self.incoming().is_some() || self.replacing.is_some()
    }

    /// Whether it is about to end, or has ended.
    pub fn is_ending(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Serving)
    }

    /// Whether it has a generation that takes connections.
    fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Delaying { .. })
    }

    /// The number that the next generation gets.
    pub fn next_generation(&self) -> GenerationNumber {
        self.numbers.generation.next()
    }

    /// How many lanes the current generation has; 0 if there is none yet.
    pub fn lanes(&self) -> usize {
        self.current().map_or(0, |index| self.generations[index].lanes)
    }

    /// When [`Input::Tick`] is due, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Over => None,
            Phase::Stopping { until_ms, .. } => Some(until_ms),
            Phase::Draining { deadline_ms, .. } => {
                let watch = self.watch_interval_ms().map(|_| self.beats_ms);
                self.auxiliary_next_ms().into_iter().chain([deadline_ms]).chain(watch).min()
            }
            Phase::Starting | Phase::Serving | Phase::Delaying { .. } => {
                let delayed = match self.phase {
                    Phase::Delaying { until_ms, .. } => Some(until_ms),
                    _ => None,
                };
                let watch = self.watch_interval_ms().map(|_| self.beats_ms);
                let generations = 0..self.generations.len();
                let generations = generations.filter_map(|index| self.generation_next_ms(index));
                let replaced = self.replacing.as_ref().map(|replacing| replacing.until_ms);
                let own = [delayed, watch, replaced, self.full_next_ms()].into_iter().flatten();
                generations.chain(self.sockets.next_ms()).chain(own).min()
            }
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn announce(&mut self, fact: Fact) {
        self.actions.push(Action::Announce(fact));
    }

    fn current(&self) -> Option<usize> {
        self.generations.iter().position(|generation| generation.stage == Stage::Current)
    }

    fn incoming(&self) -> Option<usize> {
        self.generations.iter().position(Generation::is_incoming)
    }

    fn stop(&mut self, reason: &'static str) {
        match self.phase {
            Phase::Serving if self.drain_delay_ms() > 0 => {
                let delay_ms = self.drain_delay_ms();
                self.phase = Phase::Delaying { until_ms: self.now_ms + delay_ms, reason };
                self.announce(Fact::StopDelayed { reason, delay_ms });
            }
            Phase::Starting | Phase::Serving => self.drain_as_asked(reason),
            Phase::Draining { deadline_ms, code, is_asked: false, kind } => {
                self.phase = Phase::Draining { deadline_ms, code, is_asked: true, kind };
                self.announce(Fact::DrainGoesOn { reason });
            }
            Phase::Delaying { .. } | Phase::Draining { is_asked: true, .. } => {
                self.announce(Fact::StopForced { reason });
                self.kill_all(1);
            }
            Phase::Stopping { .. } | Phase::Over => {}
        }
    }

    /// How long the current generation goes on serving when it is told to stop.
    fn drain_delay_ms(&self) -> u64 {
        self.current().map_or(0, |index| self.generations[index].settings.drain_delay_ms)
    }

    /// Drains because a signal or a command asked for the end.
    fn drain_as_asked(&mut self, reason: &'static str) {
        self.drain(reason.to_owned(), 0, DrainKind::Stop);
        if let Phase::Draining { is_asked, .. } = &mut self.phase {
            *is_asked = true;
        }
    }

    /// Has every worker finish what is in flight. A generation that isn't current yet has nothing in flight.
    fn drain(&mut self, reason: String, code: i32, kind: DrainKind) {
        if !(self.phase == Phase::Starting || self.is_serving()) {
            return;
        }
        let latest = self.current().or(self.incoming());
        let latest = latest.map(|index| &self.generations[index]);
        let timeout_ms = latest.map_or(0, |generation| generation.settings.drain_timeout_ms);
        let number = latest.map(|generation| generation.number).unwrap_or_default();
        let deadline_ms = self.now_ms + timeout_ms;
        self.phase = Phase::Draining { deadline_ms, code, is_asked: false, kind };
        self.announce(Fact::DrainStarted { generation: number, reason });
        // The supervisor's sockets first: when a worker then closes its own, no connection can queue on them.
        self.act(Action::CloseListeners);
        let incoming = self.incoming().filter(|_| self.generations.len() > 1);
        for index in 0..self.generations.len() {
            if incoming != Some(index) {
                self.drain_generation(index, kind);
                continue;
            }
            let processes = self.generations[index].processes.iter();
            self.actions.extend(processes.map(|process| Action::Kill(process.number)));
        }
        self.take_what_is_left();
        self.end_when_alone();
    }

    /// Kills every process, but for those that take what the lanes leave behind: they leave in a moment.
    fn kill_all(&mut self, code: i32) {
        (0..self.generations.len()).for_each(|index| self.start_last(index));
        let processes = self.generations.iter().flat_map(|generation| &generation.processes);
        let (last, others): (Vec<_>, Vec<_>) = processes.partition(|process| process.ends_last());
        let are_all_killed = last.is_empty();
        let until_ms = self.now_ms + if are_all_killed { KILLED_MS } else { LEAVE_MS };
        self.actions.extend(others.into_iter().map(|process| Action::Kill(process.number)));
        self.phase = Phase::Stopping { code, until_ms, are_all_killed };
        self.end_when_alone();
    }

    /// Kills those, too, when their moment is over.
    fn kill_last(&mut self, code: i32) {
        let until_ms = self.now_ms + KILLED_MS;
        self.phase = Phase::Stopping { code, until_ms, are_all_killed: true };
        let processes = self.generations.iter().flat_map(|generation| &generation.processes);
        self.actions.extend(processes.map(|process| Action::Kill(process.number)));
    }

    /// The end without processes that were killed and have not ended: a write to a disk that hangs, say, ends first.
    fn leave_behind(&mut self, code: i32) {
        let workers = self.generations.iter().flat_map(Generation::workers).collect();
        self.announce(Fact::LeftBehind { workers });
        self.act(Action::Exit(code));
        self.phase = Phase::Over;
    }

    /// The end, if there is no process left to wait for.
    fn end_when_alone(&mut self) {
        if self.generations.iter().any(|generation| !generation.processes.is_empty()) {
            return;
        }
        let code = match self.phase {
            Phase::Draining { code, .. } => {
                self.announce(Fact::DrainDone { generation: self.numbers.generation });
                code
            }
            Phase::Stopping { code, .. } => code,
            Phase::Starting | Phase::Serving | Phase::Delaying { .. } | Phase::Over => return,
        };
        self.act(Action::Exit(code));
        self.phase = Phase::Over;
    }

    /// Does what is due by now.
    fn pass_time(&mut self) {
        match self.phase {
            Phase::Draining { deadline_ms, code, .. } if deadline_ms <= self.now_ms => {
                let generations = self.generations.iter();
                let workers = generations.flat_map(Generation::workers).collect();
                self.announce(Fact::DrainDeadline { workers });
                self.kill_all(code);
            }
            Phase::Draining { .. } => {
                for index in 0..self.generations.len() {
                    self.end_drains(index);
                    self.kill_late(index);
                    self.restart_due(index);
                }
                // One that hangs is only told of: the end of the drain is its end.
                self.watch();
            }
            Phase::Stopping { code, until_ms, are_all_killed } if until_ms <= self.now_ms => {
                match are_all_killed {
                    false => self.kill_last(code),
                    true => self.leave_behind(code),
                }
            }
            Phase::Delaying { until_ms, reason } if until_ms <= self.now_ms => {
                self.drain_as_asked(reason);
            }
            Phase::Starting | Phase::Serving | Phase::Delaying { .. } => {
                for index in 0..self.generations.len() {
                    self.end_drains(index);
                    self.kill_late(index);
                    self.kill_hung(index);
                    self.restart_due(index);
                }
                self.finish_replacing();
                self.close_sockets();
                self.watch();
                self.announce_full();
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
