//! What the policy decided, done: one action after the other, and what comes of it is the policy's input again. The order
//! of the actions is kept.

use std::collections::VecDeque;

use super::changes::ENDING;
use super::state::{Outcome, Supervisor};
use crate::control::{Order, ProcessNumber, WorkerEvent};
use crate::supervisor::commands::Answer;
use crate::supervisor::log_events;
use crate::supervisor::policy::{Action, Fact, HUNG, Input, Worker};
use crate::supervisor::presence::manager;
use crate::supervisor::processes::WorkerRecord;
use crate::supervisor::succession::upgrade;

/// What became of carrying out actions.
pub(super) enum Carried {
    /// Go on.
    On,
    /// This is the end of [`run`](super::run).
    Out(Outcome),
}

impl Supervisor {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> Carried {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::StartProcess { generation, workers } => {
                    match self.processes.start(generation, &workers, &self.epoll) {
                        Ok(None) => {
                            self.log_started(&workers);
                            None
                        }
                        Ok(Some(worker)) => return Carried::Out(Outcome::Worker(Box::new(worker))),
                        Err(error) => {
                            let cause = format!("cannot start a process: {error}");
                            self.processes.dismiss(&workers);
                            let process = workers
                                .first()
                                .map_or(ProcessNumber::default(), |worker| worker.process);
                            Some(Input::ProcessEnded { process, cause })
                        }
                    }
                }
                Action::Serve(generation) => self.serve(generation).err().map(|cause| {
                    // The other actions assume that it serves: its workers have been given nothing yet.
                    actions.clear();
                    Input::CannotServe(cause)
                }),
                Action::Exit(code) => {
                    // Before a heir is told the last counts.
                    self.processes.give_up_lines(self.current);
                    if !self.has_to_stay() {
                        return Carried::Out(self.exit(code));
                    }
                    self.stay(code);
                    None
                }
                Action::ReadBeats => {
                    actions.extend(self.read_beats());
                    None
                }
                other => self.carry_out_one(other),
            };
            if let Some(input) = input {
                let now_ms = self.now_ms();
                actions.extend(self.policy.decide(input, now_ms));
            }
        }
        Carried::On
    }

    /// All is done.
    pub(super) fn exit(&mut self, code: i32) -> Outcome {
        self.disappear();
        log_events::stopped(code, self.started.elapsed(), self.processes.records());
        self.commands.answer_end(&match code {
            0 => Answer::Done("stopped".into()),
            _ => Answer::Failed(format!("it ended with code {code}; its log says why")),
        });
        Outcome::Exit(code)
    }

    /// Carries out an action that neither forks nor ends anything here; what came of it may concern the
    /// policy.
    fn carry_out_one(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::StartWorker(worker) => {
                if let Err(error) = self.processes.start_worker(worker) {
                    let cause = format!("cannot start a worker: {error}");
                    self.processes.dismiss(&[worker]);
                    return Some(Input::Reported(worker, WorkerEvent::Failed(cause)));
                }
                self.log_started(&[worker]);
            }
            Action::Take { worker, lane } => {
                let files = self.listeners.of_lane(lane, self.processes.addresses_of(worker));
                self.processes.take(worker, lane, &files);
            }
            Action::Release { worker, lane } => {
                self.processes.order(worker, Order::Release(lane), &[]);
            }
            Action::PollAgain { worker, lane } => {
                self.processes.order(worker, Order::PollAgain(lane), &[]);
            }
            Action::Attach { acceptor, lane, worker } => {
                self.processes.attach(acceptor, lane, worker)
            }
            Action::Detach { acceptor, lane } => {
                self.processes.order(acceptor, Order::Detach(lane), &[]);
            }
            Action::Steer(lanes) => {
                if let Err(error) = self.listeners.steer(lanes) {
                    tracing::warn!(reason = %error, "cannot steer connections");
                }
            }
            // The heir has the lane's sockets, too, and may serve it. If it fails, the policy asks again.
            Action::CloseLane(_) if self.heir.is_some() => {}
            Action::CloseLane(lane) => match self.listeners.close_lane(lane) {
                Ok(true) => return Some(Input::LaneClosed(lane)),
                Ok(false) => {}
                Err(error) => tracing::warn!(lane, reason = %error, "cannot close a lane"),
            },
            Action::CloseListeners => {
                // Whatever it is that ends this server.
                self.give_up_changes(ENDING);
                self.listeners.close();
            }
            Action::TakeOwn(worker) => {
                let files = self.admin_listeners.of_lane(0, self.processes.admin_of(worker));
                self.processes.take(worker, 0, &files);
            }
            Action::CloseOwn(_) => self.admin_listeners.close(),
            Action::Drain(process, kind) => self.processes.drain(process, kind),
            Action::Seal(process) => self.processes.seal(process),
            Action::DrainWorker(worker) => {
                let config = self.processes.config_of(worker);
                let timeout = config.map(|config| config.supervisor.drain_timeout);
                let timeout_ms = timeout.unwrap_or_default().as_millis() as u64;
                self.processes.order(worker, Order::Drain { timeout_ms }, &[]);
            }
            Action::Kill(process) => self.processes.kill(process),
            Action::Renew { generation, of } => self.processes.generations.renew(generation, of),
            Action::Forget(generation) => {
                self.processes.forget(generation);
                self.keep_current_listeners();
            }
            Action::Announce(fact) => self.announce(&fact),
            Action::StartProcess { .. }
            | Action::Serve(_)
            | Action::Exit(_)
            | Action::ReadBeats => {}
        }
        None
    }

    /// What the policy decides about how long ago each worker turned.
    fn read_beats(&mut self) -> Vec<Action> {
        let records = self.processes.records();
        let now_ms = records.ledger().now_ms();
        let beat = |record: &WorkerRecord| {
            (record.worker, now_ms.saturating_sub(records.counters(record).turned_ms()))
        };
        let beats = records.iter().map(beat).collect();
        let now_ms = self.now_ms();
        self.policy.decide(Input::Beats(beats), now_ms)
    }

    fn log_started(&self, workers: &[Worker]) {
        for worker in workers {
            log_events::worker_started(*worker, self.processes.records());
        }
    }

    /// Tells why a worker goes without io_uring, once for all that do for the same reason.
    fn tell_driver(&mut self, worker: Worker) {
        let record = self.processes.records().get(worker.number);
        if let Some((driver, reason)) =
            record.and_then(|of| of.driver.as_deref().zip(of.driver_reason.as_deref()))
            && self.warned.is_new("no io_uring", reason)
        {
            log_events::no_io_uring(driver, reason);
        }
    }

    /// Tells of a fact, in the log and to all that wait for it.
    fn announce(&mut self, fact: &Fact) {
        if matches!(fact, Fact::AllReady { .. }) && self.predecessor_control.is_none() {
            // A program that reads that it is ready may look for it at once.
            self.appear();
        }
        if let Fact::WorkerReady { worker } = fact {
            self.tell_driver(*worker);
        }
        log_events::fact(fact, &self.processes);
        self.history.record(fact, &self.processes);
        match fact {
            Fact::AllReady { generation, lanes } => {
                if self.succeed() {
                    manager::ready_as_main_process(*lanes, *generation);
                } else {
                    manager::ready(*lanes, *generation);
                }
            }
            Fact::CouldNotStart { cause } => {
                upgrade::report_failure(self.predecessor_control.as_ref(), cause);
            }
            Fact::Withdrawn { generation, cause } => {
                self.generation_settled(*generation, &Answer::Failed(cause.clone()));
            }
            Fact::Replaced { generation, .. } => {
                let text = format!("generation {generation} serves");
                self.generation_settled(*generation, &Answer::Done(text));
            }
            Fact::WorkerRestarting { worker, cause, .. } => {
                self.processes.count_restart(*worker, cause);
            }
            // A thread that hangs beside others isn't restarted in its seat: all of them are followed by another generation.
            Fact::WorkerExited { worker, cause }
                if cause == HUNG && self.processes.generation_of(*worker) != Some(self.current) =>
            {
                self.processes.count_restart(*worker, cause);
            }
            _ => {}
        }
    }
}
