//! Generations, processes and workers that leave: told to drain, waited for, killed if they take too long.

use super::generation::{Drain, Generation, Process, Replacing, Stage};
use super::{Action, Fact, Phase, Policy, Worker};
use crate::config::Accept;
use crate::control::{DrainKind, Role};

impl Policy {
    /// Has a generation drain. Lanes that are handed connections are sealed when the acceptor has handed out what
    /// it has; between threads, their process sees to that. What drains already is told once more if it has become
    /// urgent, and keeps its deadline.
    pub(super) fn drain_generation(&mut self, index: usize, kind: DrainKind) {
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.drain_timeout_ms;
        let is_apart = generation.accept == Accept::Handoff && !generation.together;
        let acceptor = generation.acceptor.as_ref().and_then(|seat| seat.state.worker());
        let acceptor = acceptor.map(|acceptor| acceptor.process);
        for process in &mut generation.processes {
            if let Some(drain) = &mut process.drain {
                if drain.kind < kind {
                    drain.kind = kind;
                    self.actions.push(Action::Drain(process.key, kind));
                }
                continue;
            }
            process.drain = Some(Drain { deadline_ms, kind });
            self.actions.push(Action::Drain(process.key, kind));
            if is_apart && acceptor != Some(process.key) {
                process.awaits_acceptor = acceptor.is_some();
                if acceptor.is_none() {
                    self.actions.push(Action::Seal(process.key));
                }
            }
        }
    }

    /// A worker accepts no more.
    pub(super) fn left(&mut self, worker: Worker) {
        let generation =
            self.generation_of(worker.process).filter(|_| worker.role == Role::Acceptor);
        if let Some(index) = generation {
            for process in &mut self.generations[index].processes {
                if std::mem::take(&mut process.awaits_acceptor) {
                    self.actions.push(Action::Seal(process.key));
                }
            }
        }
        if let Some(replacing) = &mut self.replacing {
            replacing.accepting.retain(|of| *of != worker);
        }
    }

    /// Tells that a generation is replaced once nobody of it accepts any more.
    pub(super) fn finish_replacing(&mut self) {
        let now_ms = self.now_ms;
        let is_over = |replacing: &mut Replacing| {
            replacing.accepting.is_empty() || replacing.until_ms <= now_ms
        };
        if let Some(replacing) = self.replacing.take_if(is_over) {
            self.tell(replacing.fact);
        }
    }

    pub(super) fn drained(&mut self, worker: Worker) {
        let Some(index) = self.generation_of(worker.process) else {
            return;
        };
        if let Some(process) = self.generations[index].process_mut(worker.process) {
            process.workers.retain(|of| *of != worker);
        }
        self.left(worker);
        if matches!(self.generations[index].stage, Stage::Outgoing { .. }) {
            self.kill_stuck(index);
        }
    }

    /// Lets go of generations that have gone.
    pub(super) fn forget_empty(&mut self) {
        let is_gone = |generation: &mut Generation| {
            generation.processes.is_empty() && matches!(generation.stage, Stage::Outgoing { .. })
        };
        for generation in self.generations.extract_if(.., is_gone) {
            let number = generation.number;
            let drained = generation.stage == Stage::Outgoing { withdrawn: false };
            if drained && self.phase == Phase::Serving {
                self.actions.push(Action::Tell(Fact::DrainDone { generation: number }));
            }
            self.actions.push(Action::Forget(number));
        }
    }

    /// Kills the processes whose drain has lasted too long.
    pub(super) fn end_drains(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_due = |process: &&Process| {
            process.killed.is_none()
                && process.drain.is_some_and(|drain| drain.deadline_ms <= now_ms)
        };
        let due: Vec<Process> =
            self.generations[index].processes.iter().filter(is_due).cloned().collect();
        if due.is_empty() {
            return;
        }
        let workers = due.iter().flat_map(|process| process.workers.iter().copied()).collect();
        self.tell(Fact::DrainDeadline { workers });
        for process in due {
            self.kill(process.key, "its drain took too long");
        }
    }

    /// Has a worker drain that has no lane any more.
    pub(super) fn dismiss(&mut self, index: usize, worker: Worker) {
        let generation = &mut self.generations[index];
        let deadline_ms = self.now_ms + generation.settings.drain_timeout_ms;
        if generation.together {
            return self.act(Action::DrainWorker(worker));
        }
        if let Some(process) = generation.process_mut(worker.process)
            && process.drain.is_none()
        {
            process.drain = Some(Drain { deadline_ms, kind: DrainKind::Replaced });
            self.act(Action::Drain(worker.process, DrainKind::Replaced));
        }
    }
}
