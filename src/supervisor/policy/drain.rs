//! Processes and workers that leave: told to drain, waited for, killed if they take too long.

use super::generation::{Drain, Process, ProcessStage, Replacing, hosting};
use super::{Action, Fact, Phase, Policy, Worker};
use crate::config::Accept;
use crate::control::{DrainKind, Hosting, Role};

impl Policy {
    /// Has a generation drain. Lanes that are handed connections are sealed when the acceptor has handed out what it
    /// has; a process that hosts the acceptor, too, sees to that by itself. A process that drains already is told again
    /// if it has become urgent, and keeps its deadline. Auxiliary workers stay until they aren't needed any more.
    pub(super) fn drain_generation(&mut self, index: usize, kind: DrainKind) {
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.drain_timeout_ms;
        let of_acceptor = hosting(Role::Acceptor, generation.mode);
        let has_acceptor =
            generation.seat(Role::Acceptor).is_some_and(|seat| seat.state.worker().is_some());
        for process in &mut generation.processes {
            let is_auxiliary = !process.hosting.serves();
            if is_auxiliary || !matches!(process.stage, ProcessStage::Serving) {
                if process.hurry(kind) {
                    self.actions.push(Action::Drain(process.number, kind));
                }
                continue;
            }
            let drain = Drain { deadline_ms, kind };
            let is_handed = generation.accept == Accept::Handoff && process.hosting != of_acceptor;
            process.stage = match is_handed && has_acceptor {
                true => ProcessStage::AwaitsAcceptor(drain),
                false => ProcessStage::Draining(drain),
            };
            self.actions.push(Action::Drain(process.number, kind));
            if is_handed && !has_acceptor {
                self.actions.push(Action::Seal(process.number));
            }
        }
    }

    /// A worker accepts no more.
    pub(super) fn stopped_accepting(&mut self, worker: Worker) {
        let generation =
            self.generation_of(worker.process).filter(|_| worker.role == Role::Acceptor);
        if let Some(index) = generation {
            for process in &mut self.generations[index].processes {
                if process.seal() {
                    self.actions.push(Action::Seal(process.number));
                }
            }
        }
        if let Some(replacing) = &mut self.replacing {
            replacing.accepting.retain(|of| *of != worker);
        }
    }

    /// Announces that a generation is replaced once none of its workers accepts any more.
    pub(super) fn finish_replacing(&mut self) {
        let now_ms = self.now_ms;
        let is_over = |replacing: &mut Replacing| {
            replacing.accepting.is_empty() || replacing.until_ms <= now_ms
        };
        if let Some(replacing) = self.replacing.take_if(is_over) {
            self.announce(replacing.fact);
        }
    }

    /// A worker ended because its drain was over. Of an auxiliary worker the end of its process is what counts: it may not
    /// have been told to leave.
    pub(super) fn drained(&mut self, worker: Worker) {
        let Some(index) = self.generation_of(worker.process) else {
            return;
        };
        let process = self.generations[index].process_mut(worker.process);
        let Some(process) = process.filter(|process| process.hosting.serves()) else {
            return;
        };
        process.workers.retain(|of| *of != worker);
        self.stopped_accepting(worker);
        if self.generations[index].is_outgoing() {
            self.kill_stuck(index);
        }
    }

    /// Kills the processes whose drain has lasted too long.
    pub(super) fn end_drains(&mut self, index: usize) {
        let now_ms = self.now_ms;
        // Those of lanes end with the drain of the whole, if that is under way.
        let is_all = !matches!(self.phase, Phase::Draining { .. });
        let is_due = |process: &&Process| {
            let is_meant = is_all || !process.hosting.serves();
            is_meant && process.drain().is_some_and(|drain| drain.deadline_ms <= now_ms)
        };
        let due: Vec<Process> =
            self.generations[index].processes.iter().filter(is_due).cloned().collect();
        if due.is_empty() {
            return;
        }
        let workers = due.iter().flat_map(|process| process.workers.iter().copied()).collect();
        self.announce(Fact::DrainDeadline { workers });
        for process in due {
            self.kill(process.number, "its drain took too long");
        }
    }

    /// Has a worker drain whose lane was given up: alone, if other workers share its process.
    pub(super) fn dismiss(&mut self, index: usize, worker: Worker) {
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.drain_timeout_ms;
        let Some(process) = generation.process_mut(worker.process) else {
            return;
        };
        match (process.hosting, &process.stage) {
            (Hosting::Threads, _) => self.act(Action::DrainWorker(worker)),
            (Hosting::Single(_), ProcessStage::Serving) => {
                let kind = DrainKind::Replaced;
                process.stage = ProcessStage::Draining(Drain { deadline_ms, kind });
                self.act(Action::Drain(worker.process, kind));
            }
            (Hosting::Single(_), _) => {}
        }
    }
}
