//! From readiness to events: signals, the ends of children, and what came on control sockets. It carries nothing out.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::event::Event;
use super::state::{
    STOPPING, Supervisor, TOKEN_HEIR, TOKEN_LOADER, TOKEN_PREDECESSOR, TOKEN_SIGNALS,
};
use crate::control::Received;
use crate::supervisor::commands;
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::processes::Source;
use crate::sys::process;
use crate::sys::process::signal::Signal;

impl Supervisor {
    /// Turns readiness into events.
    pub(super) fn collect(&mut self, token: u64, events: &mut VecDeque<Event>) {
        match token {
            TOKEN_SIGNALS => {}
            TOKEN_HEIR => return self.collect_from_heir(events),
            TOKEN_PREDECESSOR => return self.collect_from_predecessor(events),
            TOKEN_LOADER => return self.collect_from_loader(),
            commands::TOKENS.. => {
                let request = self.commands.on_ready(token, &self.epoll, self.now_ms());
                events.extend(request.map(|(token, request)| Event::Command(token, request)));
                return;
            }
            _ => return self.collect_from(token, events),
        }
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => self.collect_ended(events),
                Signal::SIGHUP => events.push_back(Event::ChangeRequested(Change::Reload)),
                Signal::SIGUSR2 => events.push_back(Event::ChangeRequested(Change::Upgrade)),
                Signal::SIGTTIN => events.push_back(Event::ChangeRequested(Change::Resize(1))),
                Signal::SIGTTOU => events.push_back(Event::ChangeRequested(Change::Resize(-1))),
                signal if STOPPING.contains(&signal) => events.push_back(Event::Stop(signal)),
                signal => events.push_back(Event::IgnoredSignal(signal)),
            }
        }
    }

    /// A control socket or a pidfd. What a worker said comes before its end.
    pub(super) fn collect_from(&mut self, token: u64, events: &mut VecDeque<Event>) {
        if let Some((key, Source::Control(_))) = self.processes.by_token(token) {
            self.processes.flush(key);
        }
        let mut starved = None;
        match self.processes.by_token(token) {
            Some((key, Source::Control(control))) => loop {
                match control.receive() {
                    Received::Message(report, _) => events.push_back(Event::Report(key, report)),
                    Received::Nothing => break,
                    Received::Exhausted => {
                        starved = Some(key);
                        break;
                    }
                    Received::End => {
                        // The pidfd tells of the end itself.
                        let _ = self.epoll.remove(control.as_fd());
                        break;
                    }
                }
            },
            Some((_, Source::Pidfd)) => self.collect_ended(events),
            None => {}
        }
        starved.into_iter().for_each(|key| self.processes.starve(key));
    }

    /// Reaps every child that has ended: worker processes, and the orphans that pid 1 inherits.
    pub(super) fn collect_ended(&mut self, events: &mut VecDeque<Event>) {
        while let Ok(Some(reaped)) = process::reap() {
            if let Some((key, control)) = self.processes.control_of(reaped.pid) {
                while let Received::Message(report, _) = control.receive() {
                    events.push_back(Event::Report(key, report));
                }
            }
            events.push_back(Event::Ended(reaped));
        }
    }
}
