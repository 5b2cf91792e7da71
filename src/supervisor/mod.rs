//! The supervisor: one thread that owns every listening socket, keeps a worker in every lane, and decides
//! nothing itself: events go to [`policy`], and what comes back is carried out here.
//!
//! It knows nothing of HTTP, and never touches a connection.

pub mod event;
pub mod listeners;
pub mod policy;
mod processes;
pub mod sizing;
mod startup;
mod tell;

use std::io;
use std::time::Instant;

use crate::config::Config;
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};
use crate::worker::control::Received;
use crate::worker::process::WorkerProcess;
use event::Event;
use policy::{Action, Input, Policy};
use processes::Processes;

/// How a call of [`run`] ends: twice, if it forked.
pub enum Outcome {
    /// In the supervisor, with the exit code.
    Exit(i32),
    /// In a forked child: everything of the supervisor's has been dropped, and this is left to run.
    Worker(Box<WorkerProcess>),
}

/// Serves `config` until it is told to stop or has to give up.
///
/// What goes wrong is logged. The process must have one thread.
pub fn run(config: Config) -> Outcome {
    let result = Supervisor::start(config).and_then(Supervisor::run);
    result.unwrap_or_else(|error| {
        tracing::error!(reason = %error, "could not start");
        Outcome::Exit(1)
    })
}

const TOKEN_SIGNALS: u64 = u64::MAX;
const STOPPING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
const UNUSED: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTTIN, Signal::SIGTTOU];

struct Supervisor {
    epoll: Epoll,
    signals: Signals,
    processes: Processes,
    policy: Policy,
    started: Instant,
}

/// What became of carrying out actions.
enum Carried {
    /// Go on.
    On,
    /// This is the end of [`run`].
    Out(Outcome),
}

impl Supervisor {
    /// Sizes, binds, and says so; forks nothing yet.
    fn start(config: Config) -> Result<(Supervisor, Vec<Action>), String> {
        // Signals first: one that comes from here on is kept until somebody can act on it.
        let all: Vec<_> = [&STOPPING[..], &UNUSED, &[Signal::SIGCHLD]].concat();
        let signals =
            Signals::block(&all).map_err(|error| format!("cannot take signals: {error}"))?;
        let epoll = Epoll::new().map_err(|error| format!("cannot set up epoll: {error}"))?;
        epoll
            .add(&signals, TOKEN_SIGNALS, Interest::Readable)
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
        let settings = startup::settings(&config.supervisor);
        let processes = startup::prepare(config)?;
        let seed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (policy, actions) = Policy::begin(settings, &processes.lanes(), seed, 0);
        let supervisor = Supervisor { epoll, signals, processes, policy, started: Instant::now() };
        Ok((supervisor, actions))
    }

    fn run((mut supervisor, actions): (Supervisor, Vec<Action>)) -> Result<Outcome, String> {
        if let Carried::Out(outcome) = supervisor.carry_out(actions) {
            return Ok(outcome);
        }
        let mut events = Events::with_capacity(64);
        loop {
            let due_ms = supervisor.policy.next_ms();
            let patience_ms = due_ms.map(|due_ms| due_ms.saturating_sub(supervisor.now_ms()));
            let count = supervisor
                .epoll
                .wait(&mut events, patience_ms)
                .map_err(|error| format!("cannot wait for events: {error}"))?;
            let mut happened = Vec::new();
            for index in 0..count {
                supervisor.collect(events.at(index).token, &mut happened);
            }
            happened.push(Event::Tick);
            for event in happened {
                if let Carried::Out(outcome) = supervisor.react(event) {
                    return Ok(outcome);
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Turns readiness into events.
    fn collect(&mut self, token: u64, happened: &mut Vec<Event>) {
        if token != TOKEN_SIGNALS {
            return self.collect_from(token, happened);
        }
        while let Ok(Some(signal)) = self.signals.next() {
            if signal == Signal::SIGCHLD {
                self.collect_ended(happened);
            } else if STOPPING.contains(&signal) {
                happened.push(Event::Stop(signal));
            } else {
                happened.push(Event::Unused(signal));
            }
        }
    }

    /// A control socket or a pidfd. What a worker said comes before its end.
    fn collect_from(&mut self, token: u64, happened: &mut Vec<Event>) {
        match self.processes.by_token(token) {
            Some((place, processes::Source::Control(control))) => loop {
                match control.receive() {
                    Received::Message(report) => happened.push(Event::Report(place, report)),
                    Received::Nothing => break,
                    Received::End => {
                        // The pidfd tells of the end itself.
                        let _ = self.epoll.remove(std::os::fd::AsFd::as_fd(control));
                        break;
                    }
                }
            },
            Some((_, processes::Source::Pidfd)) => self.collect_ended(happened),
            None => {}
        }
    }

    /// Reaps every child that has ended: worker processes, and the orphans that pid 1 inherits.
    fn collect_ended(&mut self, happened: &mut Vec<Event>) {
        while let Ok(Some((pid, ended))) = process::reap() {
            if let Some((place, control)) = self.processes.control_of(pid) {
                while let Received::Message(report) = control.receive() {
                    happened.push(Event::Report(place, report));
                }
            }
            happened.push(Event::Ended(pid, ended));
        }
    }

    /// Lets the policy decide about one event, and carries its decision out.
    fn react(&mut self, event: Event) -> Carried {
        let Some(input) = self.processes.take_note(event) else {
            return Carried::On;
        };
        let now_ms = self.now_ms();
        let actions = self.policy.decide(input, now_ms);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Carried {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::StartProcess { process, lanes } => {
                    match self.processes.start(process, lanes, &self.epoll) {
                        Ok(None) => {}
                        Ok(Some(worker)) => return Carried::Out(Outcome::Worker(Box::new(worker))),
                        Err(error) => {
                            let cause = format!("cannot start a process: {error}");
                            let input = Input::ProcessEnded { process, cause };
                            let now_ms = self.now_ms();
                            actions.extend(self.policy.decide(input, now_ms));
                        }
                    }
                }
                Action::StartWorker { process, lane } => self.processes.start_worker(process, lane),
                Action::CloseListeners => self.processes.close_listeners(),
                Action::Drain(process) => self.processes.drain(process),
                Action::Kill(process) => self.processes.kill(process),
                Action::Tell(fact) => self.processes.tell(&fact),
                Action::Exit(code) => {
                    tell::stopped(code, self.started.elapsed(), self.processes.ledger());
                    return Carried::Out(Outcome::Exit(code));
                }
            }
        }
        Carried::On
    }
}

/// An I/O error with what was being done.
fn doing(what: &str) -> impl FnOnce(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}
