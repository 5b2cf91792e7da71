//! What is taken note of when something has happened, and what of it the policy is asked about.

use super::carry_out::Carried;
use super::event::Event;
use super::state::Supervisor;
use crate::control::{Report, WorkerEvent};
use crate::supervisor::log_events;
use crate::supervisor::policy::Input;
use crate::supervisor::succession::upgrade::Heir;
use crate::sys::process::signal::Signal;

impl Supervisor {
    /// Lets the policy decide about one event, and carries its decision out.
    pub(super) fn react(&mut self, event: Event) -> Carried {
        let input = self.take_note(event);
        if let Some(outcome) = self.becomes.take() {
            return Carried::Out(outcome);
        }
        let Some(input) = input else {
            return Carried::On;
        };
        let now_ms = self.now_ms();
        let actions = self.policy.decide(input, now_ms);
        let carried = self.carry_out(actions);
        self.processes.sweep();
        carried
    }

    /// Does what its time has come for, beside what the policy decides.
    fn see_what_is_due(&mut self) {
        let now_ms = self.now_ms();
        let until_ms = self.heir.as_ref().and_then(Heir::until_ms);
        if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            self.heir_is_late();
        }
        self.give_up_loading();
        self.following.resume(now_ms, &self.epoll);
        self.commands.resume(now_ms, &self.epoll);
        if self.telling_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.tell_counts();
        }
    }

    /// Takes note of an event, and says what of it the policy has to know.
    fn take_note(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Tick => {
                self.see_what_is_due();
                Some(Input::Tick)
            }
            Event::Stop(signal) => self.stop(signal.as_str()),
            Event::ChangeRequested(change) => {
                self.request_change(change);
                None
            }
            Event::ChangeDue(change) => self.begin(change),
            Event::ConfigurationRead => self.replace(),
            Event::HeirReady => self.hand_over(),
            Event::FromPredecessor(message) => {
                self.take_from_predecessor(message);
                None
            }
            Event::PredecessorEnded => {
                self.processes.records_mut().inherit_no_more();
                None
            }
            Event::Command(client, request) => self.take_command(client, request),
            Event::FileChanged => {
                self.look();
                None
            }
            Event::Remeasure => self.measure(),
            Event::ReopenLogs => {
                let is_passed_on = self.pass_on_reopening();
                if !self.processes.reopen_logs() && !is_passed_on {
                    let (signal, reason) = (Signal::SIGUSR1.as_str(), "there is no access log");
                    tracing::warn!(signal, reason, "signal ignored");
                }
                None
            }
            Event::IgnoredSignal(signal) => {
                tracing::warn!(signal = signal.as_str(), "signal ignored");
                None
            }
            Event::Report(key, Report { worker, event: WorkerEvent::Asks { number, wants } }) => {
                self.inform(key, worker, number, wants);
                None
            }
            Event::Report(key, report) => {
                if let Some(record) = self.processes.reporter(key, &report) {
                    log_events::worker_event(record, &report.event, self.processes.records());
                }
                self.processes.take_report(key, report)
            }
            Event::Ended(reaped) => {
                if self.heir_ended(&reaped) || self.loader_ended(&reaped) {
                    return None;
                }
                let input = self.processes.take_end(reaped);
                if input.is_none() {
                    tracing::debug!(pid = reaped.pid, "orphan reaped");
                }
                input
            }
        }
    }
}
