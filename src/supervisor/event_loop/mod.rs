//! The supervisor's loop: what happens becomes an [`Event`], the [`policy`](super::policy) decides about it, and what
//! comes back is carried out here. It decides nothing itself.

mod changes;
mod event;
pub(super) mod presence;
mod reload;
mod succession;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config, Count};
use crate::control::{Control, Order, Received};
use crate::observe::ledger::Ledger;
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::process;
use crate::sys::process::signal::{Signal, Signals};
use crate::worker::process::WorkerProcess;
use changes::ENDING;
use event::Event;
use reload::Reloading;

use crate::supervisor::commands::status::History;
use crate::supervisor::commands::waiting::{Change, Waiting};
use crate::supervisor::commands::{self, Answer, Commands};
use crate::supervisor::listeners::Listeners;
use crate::supervisor::loading::loader::{Loaded, Loader};
use crate::supervisor::loading::startup::{self, Warned};
use crate::supervisor::policy::{Action, Fact, Input, Policy};
use crate::supervisor::presence::manager;
use crate::supervisor::presence::pid_file::PidFile;
use crate::supervisor::processes::sizing::LANES_MAX;
use crate::supervisor::processes::{self, Processes, Source};
use crate::supervisor::succession::origin::Origin;
use crate::supervisor::succession::passed::Passed;
use crate::supervisor::succession::upgrade::{self, Heir, Inheritance, Predecessor};
use crate::supervisor::tell;

/// How a call of [`run`] ends: twice, if it forked.
pub enum Outcome {
    /// In the supervisor, with the exit code.
    Exit(i32),
    /// In a forked child: everything of the supervisor's has been dropped, and this is left to run.
    Worker(Box<WorkerProcess>),
    /// In a forked child, as above, that reads the configuration.
    Loader(Box<Loader>),
}

/// Serves `config` until it is told to stop or has to give up; `options` say where a reload finds the next, and
/// `passed` is what the process was started with.
///
/// What goes wrong is logged. The process must have one thread.
pub fn run(config: Config, options: config::Options, passed: Passed) -> Outcome {
    // Before signals are kept for later: until then one ends a resolver that doesn't answer.
    let loaded = Loaded::of(config);
    let Passed { predecessor, activated } = passed;
    let mut conversation = None;
    let predecessor = predecessor.map_err(doing("cannot take over"));
    let started = predecessor.and_then(|socket| {
        conversation = socket.map(Control::new);
        Supervisor::start(loaded, options, activated, &mut conversation)
    });
    started.and_then(Supervisor::run).unwrap_or_else(|error| {
        tracing::error!(reason = %error, "could not start");
        upgrade::tell_failure(conversation.as_ref(), &error);
        Outcome::Exit(1)
    })
}

const TOKEN_SIGNALS: u64 = u64::MAX;
const TOKEN_HEIR: u64 = u64::MAX - 1;
const TOKEN_PREDECESSOR: u64 = u64::MAX - 2;
const TOKEN_LOADER: u64 = u64::MAX - 3;
const STOPPING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
const OTHERS: [Signal; 6] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];
/// Blocks of the ledger: one for each worker, of those that drain too.
const LEDGER_BLOCKS: usize = 4 * LANES_MAX;
/// How soon a conversation is gone on with that the kernel had no memory for.
const STARVED_MS: u64 = 100;
/// How often the machine is measured again where it decides the number of lanes.
const MEASURE_MS: u64 = 2_000;

struct Supervisor {
    epoll: Epoll,
    signals: Signals,
    listeners: Listeners,
    processes: Processes,
    policy: Policy,
    options: config::Options,
    commands: Commands,
    history: History,
    pid_file: Option<PidFile>,
    origin: Origin,
    /// The conversation with the supervisor that started this one, until that one ends.
    predecessor: Option<Control>,
    /// What is known of it, if there was one.
    follows: Option<Predecessor>,
    /// The supervisor that is about to follow this one, or does.
    heir: Option<Heir>,
    /// How often the service manager wants to hear, and when next.
    alive_every_ms: Option<u64>,
    alive_ms: u64,
    /// The generation that serves.
    current: u64,
    /// Changes that were asked for while another one was under way.
    waiting: Waiting,
    /// The number of the change that began last.
    changes: u64,
    reloading: Option<Reloading>,
    /// This process is a child that was forked to become this.
    forked: Option<Box<Loader>>,
    /// When the machine is measured next.
    measure_ms: u64,
    /// When a supervisor that follows is told next what was counted.
    totals_ms: u64,
    warned: Warned,
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
    /// Sizes, binds, and says so; forks nothing yet. The `conversation` with the supervisor before, if there is one, is
    /// taken over if this succeeds.
    fn start(
        loaded: Loaded,
        options: config::Options,
        activated: io::Result<Vec<OwnedFd>>,
        conversation: &mut Option<Control>,
    ) -> Result<(Supervisor, Vec<Action>), String> {
        // Signals first: one that comes from here on is kept until somebody can act on it.
        process::keep_ended_children().map_err(doing("cannot wait for children"))?;
        let all: Vec<_> = [&STOPPING[..], &OTHERS].concat();
        let signals =
            Signals::block(&all).map_err(|error| format!("cannot take signals: {error}"))?;
        let epoll = Epoll::new().map_err(|error| format!("cannot set up epoll: {error}"))?;
        epoll
            .add(&signals, TOKEN_SIGNALS, Interest::Readable)
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
        let is_named = options.file.is_some();
        let options = options.reading(loaded.config.file.as_deref());
        let origin =
            Origin::of_this_process(options.folder.clone(), options.file.as_deref(), is_named);
        let inheritance = conversation.as_ref().map(Inheritance::receive).transpose();
        let inheritance = inheritance.map_err(doing("cannot take over"))?;
        let (follows, mut listeners, history, before, totals) = match inheritance {
            Some(Inheritance { from, listeners, history, lanes, totals }) => {
                (Some(from), listeners, history, lanes, totals)
            }
            None => (None, Listeners::default(), History::default(), None, Vec::new()),
        };
        if let Some(follows) = follows {
            origin.tell_heir(follows.pid);
        } else {
            activated
                .and_then(|sockets| listeners.activate(sockets))
                .map_err(doing("cannot use the sockets of the service manager"))?;
        }
        let engine = loaded.config.workers.engine.abilities();
        if engine.own_sockets.is_some() && !listeners.groups().is_empty() {
            let name = engine.name;
            return Err(format!(
                "the engine \"{name}\" opens its own sockets: it can't use those of a service manager or of the \
                 supervisor before"
            ));
        }
        let (pid_file, commands) = Supervisor::claim(&loaded.config, &options, follows, &epoll)?;
        let ledger = Ledger::new(LEDGER_BLOCKS).map_err(doing("cannot map the ledger"))?;
        let mut processes = Processes::new(Arc::new(ledger));
        let mut warned = Warned::default();
        let (made, plan) =
            startup::prepare(1, loaded, before, &mut listeners, processes.ledger(), &mut warned)?;
        processes.add(made);
        processes.inherit(totals);
        let seed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (policy, actions) = Policy::begin(plan, seed, 0);
        let supervisor = Supervisor {
            epoll,
            signals,
            listeners,
            processes,
            policy,
            options,
            commands,
            history,
            pid_file,
            origin,
            predecessor: conversation.take(),
            follows,
            heir: None,
            alive_every_ms: manager::watchdog_ms(),
            alive_ms: 0,
            current: 1,
            waiting: Waiting::default(),
            changes: 0,
            reloading: None,
            forked: None,
            warned,
            measure_ms: MEASURE_MS,
            totals_ms: 0,
            started: Instant::now(),
        };
        Ok((supervisor, actions))
    }

    fn run((mut supervisor, actions): (Supervisor, Vec<Action>)) -> Result<Outcome, String> {
        if let Carried::Out(outcome) = supervisor.carry_out(actions) {
            return Ok(outcome);
        }
        let mut events = Events::with_capacity(64);
        loop {
            let due_ms = supervisor.policy.next_ms().into_iter().chain(supervisor.own_due_ms());
            let now_ms = supervisor.now_ms();
            let patience_ms = due_ms.min().map(|due_ms| due_ms.saturating_sub(now_ms));
            let count = supervisor
                .epoll
                .wait(&mut events, patience_ms)
                .map_err(|error| format!("cannot wait for events: {error}"))?;
            supervisor.show_life();
            let mut happened = VecDeque::new();
            for token in supervisor.processes.take_starved() {
                supervisor.collect_from(token, &mut happened);
            }
            for index in 0..count {
                supervisor.collect(events.at(index).token, &mut happened);
            }
            if supervisor.measures_ms().is_some_and(|due_ms| due_ms <= supervisor.now_ms()) {
                happened.push_back(Event::Remeasure);
            }
            happened.push_back(Event::Tick);
            while let Some(event) = happened.pop_front() {
                if let Carried::Out(outcome) = supervisor.react(event) {
                    return Ok(outcome);
                }
                if supervisor.can_replace() {
                    happened.push_front(Event::Read);
                } else if let Some(change) = supervisor.next_change() {
                    happened.push_front(Event::Turn(change));
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// When something is due that the policy doesn't know of.
    fn own_due_ms(&self) -> impl Iterator<Item = u64> {
        let alive_ms = self.alive_every_ms.map(|_| self.alive_ms);
        let heir_ms = self.heir.as_ref().and_then(Heir::until_ms);
        let heir_ms = heir_ms.into_iter().chain(self.totals_due_ms());
        let own = alive_ms.into_iter().chain(heir_ms).chain(self.loading_until_ms());
        let starved_ms = self.processes.are_starved().then(|| self.now_ms() + STARVED_MS);
        own.chain(self.commands.resume_ms()).chain(self.measures_ms()).chain(starved_ms)
    }

    /// Tells the service manager, as often as it wants to hear, that this loop turns.
    fn show_life(&mut self) {
        let now_ms = self.now_ms();
        if let Some(every_ms) = self.alive_every_ms.filter(|_| self.alive_ms <= now_ms) {
            manager::alive();
            self.alive_ms = now_ms + every_ms;
        }
    }

    /// When the machine is to be measured, if that could change anything.
    fn measures_ms(&self) -> Option<u64> {
        let config = self.config()?;
        (config.workers.count == Count::Auto && self.under_way().is_none())
            .then_some(self.measure_ms)
    }

    /// The configuration of the generation that serves.
    fn config(&self) -> Option<&Config> {
        self.processes.generation(self.current).map(|made| &*made.generation.config)
    }

    /// Turns readiness into events.
    fn collect(&mut self, token: u64, happened: &mut VecDeque<Event>) {
        match token {
            TOKEN_SIGNALS => {}
            TOKEN_HEIR => return self.collect_from_heir(happened),
            TOKEN_PREDECESSOR => return self.collect_from_predecessor(happened),
            TOKEN_LOADER => return self.collect_from_loader(),
            commands::TOKENS.. => {
                let request = self.commands.on_ready(token, &self.epoll, self.now_ms());
                happened.extend(request.map(|(token, request)| Event::Asked(token, request)));
                return;
            }
            _ => return self.collect_from(token, happened),
        }
        while let Ok(Some(signal)) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => self.collect_ended(happened),
                Signal::SIGHUP => happened.push_back(Event::Wanted(Change::Reload)),
                Signal::SIGUSR2 => happened.push_back(Event::Wanted(Change::Upgrade)),
                Signal::SIGTTIN => happened.push_back(Event::Wanted(Change::Resize(1))),
                Signal::SIGTTOU => happened.push_back(Event::Wanted(Change::Resize(-1))),
                signal if STOPPING.contains(&signal) => happened.push_back(Event::Stop(signal)),
                signal => happened.push_back(Event::Unused(signal)),
            }
        }
    }

    /// A control socket or a pidfd. What a worker said comes before its end.
    fn collect_from(&mut self, token: u64, happened: &mut VecDeque<Event>) {
        if let Some((key, Source::Control(_))) = self.processes.by_token(token) {
            self.processes.flush(key);
        }
        let mut starved = None;
        match self.processes.by_token(token) {
            Some((key, Source::Control(control))) => loop {
                match control.receive() {
                    Received::Message(report, _) => happened.push_back(Event::Report(key, report)),
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
            Some((_, Source::Pidfd)) => self.collect_ended(happened),
            None => {}
        }
        starved.into_iter().for_each(|key| self.processes.starve(key));
    }

    /// Reaps every child that has ended: worker processes, and the orphans that pid 1 inherits.
    fn collect_ended(&mut self, happened: &mut VecDeque<Event>) {
        while let Ok(Some(reaped)) = process::reap() {
            if let Some((key, control)) = self.processes.control_of(reaped.pid) {
                while let Received::Message(report, _) = control.receive() {
                    happened.push_back(Event::Report(key, report));
                }
            }
            happened.push_back(Event::Ended(reaped));
        }
    }

    /// Lets the policy decide about one event, and carries its decision out.
    fn react(&mut self, event: Event) -> Carried {
        let input = self.take_note(event);
        if let Some(loader) = self.forked.take() {
            return Carried::Out(Outcome::Loader(loader));
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

    /// Takes note of an event, and says what of it the policy has to know.
    fn take_note(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Tick => {
                let now_ms = self.now_ms();
                let until_ms = self.heir.as_ref().and_then(Heir::until_ms);
                if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                    self.disinherit("it was not ready in time");
                }
                self.give_up_loading();
                self.commands.resume(now_ms, &self.epoll);
                if self.totals_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                    self.tell_totals();
                }
                Some(Input::Tick)
            }
            Event::Stop(signal) => self.stop(signal.as_str()),
            Event::Wanted(change) => {
                self.want(change);
                None
            }
            Event::Turn(change) => self.begin(change),
            Event::Read => self.replace(),
            Event::HeirReady => self.hand_over(),
            Event::Told(parcel) => {
                self.told(parcel);
                None
            }
            Event::Asked(token, request) => self.asked(token, request),
            Event::Remeasure => self.measure(),
            Event::Unused(signal) => {
                tracing::warn!(signal = signal.as_str(), "signal ignored");
                None
            }
            Event::Report(key, report) => self.processes.take_report(key, report),
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

    fn carry_out(&mut self, actions: Vec<Action>) -> Carried {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::StartProcess { generation, workers } => {
                    match self.processes.start(generation, &workers, &self.epoll) {
                        Ok(None) => None,
                        Ok(Some(worker)) => return Carried::Out(Outcome::Worker(Box::new(worker))),
                        Err(error) => {
                            let cause = format!("cannot start a process: {error}");
                            self.processes.dismiss(&workers);
                            let process = workers.first().map_or(0, |worker| worker.process);
                            Some(Input::ProcessEnded { process, cause })
                        }
                    }
                }
                Action::Serve(generation) => self.serve(generation).err().map(|cause| {
                    // Nothing else that was decided can be: its workers have been given nothing yet.
                    actions.clear();
                    Input::CannotServe(cause)
                }),
                Action::Exit(code) => {
                    self.tell_totals();
                    self.disappear();
                    tell::stopped(code, self.started.elapsed(), &self.processes);
                    self.commands.answer_end(&match code {
                        0 => Answer::Done("stopped".into()),
                        _ => Answer::Failed(format!("it ended with code {code}; its log says why")),
                    });
                    return Carried::Out(Outcome::Exit(code));
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

    /// Carries out an action that neither forks nor ends anything here; what came of it may concern the
    /// policy.
    fn carry_out_one(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::StartWorker(worker) => {
                if let Err(error) = self.processes.start_worker(worker) {
                    let cause = format!("cannot start a worker: {error}");
                    self.processes.dismiss(&[worker]);
                    return Some(Input::WorkerEnded { worker, cause });
                }
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
            // A supervisor that is about to follow has it, too, and may want it: then it is asked again.
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
            Action::Drain(process, kind) => self.processes.drain(process, kind),
            Action::Seal(process) => self.processes.seal(process),
            Action::DrainWorker(worker) => {
                let config = self.processes.config_of(worker);
                let timeout = config.map(|config| config.supervisor.drain_timeout);
                let timeout_ms = timeout.unwrap_or_default().as_millis() as u64;
                self.processes.order(worker, Order::Drain { timeout_ms }, &[]);
            }
            Action::Kill(process) => self.processes.kill(process),
            Action::Renew { generation, of } => self.processes.renew(generation, of),
            Action::Forget(generation) => {
                self.processes.forget(generation);
                self.keep_current_listeners();
            }
            Action::Tell(fact) => self.tell(&fact),
            Action::StartProcess { .. }
            | Action::Serve(_)
            | Action::Exit(_)
            | Action::ReadBeats => {}
        }
        None
    }

    /// What the policy decides about how long ago each worker turned.
    fn read_beats(&mut self) -> Vec<Action> {
        let now_ms = self.processes.ledger().now_ms();
        let beat = |post: &processes::Post| {
            (post.worker, now_ms.saturating_sub(self.processes.counters(post).turned_ms()))
        };
        let beats = self.processes.posts().map(beat).collect();
        let now_ms = self.now_ms();
        self.policy.decide(Input::Beats(beats), now_ms)
    }

    fn tell(&mut self, fact: &Fact) {
        if matches!(fact, Fact::AllReady { .. }) && self.predecessor.is_none() {
            // Whoever hears that it is ready may use it.
            self.appear();
        }
        tell::fact(fact, &self.processes);
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
                upgrade::tell_failure(self.predecessor.as_ref(), cause);
            }
            Fact::Withdrawn { generation, cause } => {
                self.generation_settled(*generation, &Answer::Failed(cause.clone()));
            }
            Fact::Replaced { generation, .. } => {
                let text = format!("generation {generation} serves");
                self.generation_settled(*generation, &Answer::Done(text));
            }
            Fact::WorkerRestarting { worker, .. } => self.processes.count_restart(worker.role),
            _ => {}
        }
    }
}

/// An I/O error with what was being done.
fn doing(what: &str) -> impl FnOnce(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}
