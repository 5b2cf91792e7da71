//! From readiness to events: signals, the ends of children, and what came on control sockets. It carries nothing out.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::event::Event;
use super::state::{STOPPING, Supervisor};
use crate::control::{ProcessNumber, Received};
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::token::Token;
use crate::sys::process;
use crate::sys::process::signal::Signal;

impl Supervisor {
    /// Turns readiness into events.
    pub(super) fn collect(&mut self, token: Token, events: &mut VecDeque<Event>) {
        match token {
            Token::Signals => self.collect_signals(events),
            Token::Launcher => self.collect_from_launcher(),
            Token::Heir => self.collect_from_heir(events),
            Token::Predecessor => self.collect_from_predecessor(events),
            Token::Loader => self.collect_from_loader(),
            Token::Configuration => self.following.collect(self.now_ms(), &self.epoll),
            Token::CommandSocket => self.commands.accept(&self.epoll, self.now_ms()),
            Token::Client(client) => {
                let request = self.commands.on_ready(client);
                events.extend(request.map(|request| Event::Command(client, request)));
            }
            Token::Control(process) => self.collect_from(process, events),
            Token::End(_) => self.collect_ended(events),
        }
    }

    fn collect_signals(&mut self, events: &mut VecDeque<Event>) {
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => self.collect_ended(events),
                Signal::SIGHUP => events.push_back(Event::ChangeRequested(Change::Reload)),
                Signal::SIGUSR2 => events.push_back(Event::ChangeRequested(Change::Upgrade)),
                Signal::SIGTTIN => events.push_back(Event::ChangeRequested(Change::Resize(1))),
                Signal::SIGTTOU => events.push_back(Event::ChangeRequested(Change::Resize(-1))),
                Signal::SIGUSR1 => events.push_back(Event::ReopenLogs),
                signal if STOPPING.contains(&signal) => events.push_back(Event::Stop(signal)),
                signal => events.push_back(Event::IgnoredSignal(signal)),
            }
        }
    }

    /// What a worker process reported. That comes before its end.
    pub(super) fn collect_from(&mut self, key: ProcessNumber, events: &mut VecDeque<Event>) {
        self.processes.flush(key);
        let Some(control) = self.processes.control(key) else {
            return;
        };
        loop {
            match control.receive() {
                Received::Message(report, _) => events.push_back(Event::Report(key, report)),
                Received::Nothing => return,
                Received::Exhausted => return self.processes.starve(key),
                Received::End => {
                    // The pidfd tells of the end itself.
                    let _ = self.epoll.remove(control.as_fd());
                    return;
                }
            }
        }
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
