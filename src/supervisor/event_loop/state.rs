//! What the supervisor is, and how it comes to be: everything that it has before its first fork. It reacts to nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config, Count, LANES_MAX};
use crate::control::{Control, GenerationNumber};
use crate::observe::ledger::Ledger;
use crate::observe::metrics::Reloads;
use crate::supervisor::commands::Commands;
use crate::supervisor::commands::status::{History, unix_ms};
use crate::supervisor::commands::waiting::Waiting;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::loading::following::{self, Following};
use crate::supervisor::loading::loader::{Loaded, Loader};
use crate::supervisor::loading::reloading::Reloading;
use crate::supervisor::loading::startup;
use crate::supervisor::loading::warned::Warned;
use crate::supervisor::policy::{Action, Policy};
use crate::supervisor::presence::manager;
use crate::supervisor::presence::pid_file::PidFile;
use crate::supervisor::processes::Processes;
use crate::supervisor::succession::launcher::Launcher;
use crate::supervisor::succession::origin::Origin;
use crate::supervisor::succession::upgrade::{Heir, Inheritance, Predecessor};
use crate::supervisor::token::Token;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process;
use crate::sys::process::signal::{Signal, Signals};
use crate::worker::process::WorkerProcess;

/// Signals that stop the server.
pub(super) const STOPPING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
/// Signals that mean something else, or nothing.
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
/// How soon a control socket is tried again that the kernel had no memory for.
const STARVED_MS: u64 = 100;
/// How often the machine is measured again where it decides the number of lanes.
pub(super) const MEASURE_MS: u64 = 2_000;

/// How a call of [`run`](super::run) ends: twice, if it forked.
pub enum Outcome {
    /// In the supervisor, with the exit code.
    Exit(i32),
    /// In a forked child: everything of the supervisor's has been dropped, and this is left to run.
    Worker(Box<WorkerProcess>),
    /// In a forked child, as above, that reads the configuration.
    Loader(Box<Loader>),
    /// In a forked child, as above, that executes the binary of an upgrade.
    Launcher(Box<Launcher>),
}

/// A supervisor that has nothing to do any more but for the one before it, or for its heir.
pub(super) struct Staying {
    /// The code that it is about to exit with.
    pub(super) code: i32,
    /// When it exits, whatever the heir has taken.
    pub(super) until_ms: u64,
    /// Whether the last of it was put on its way.
    pub(super) is_told: bool,
}

/// The supervisor.
pub(super) struct Supervisor {
    pub(super) epoll: Epoll,
    pub(super) signals: Signals,
    pub(super) listeners: Listeners,
    /// The admin addresses', of which each has one socket.
    pub(super) admin_listeners: Listeners,
    pub(super) processes: Processes,
    pub(super) policy: Policy,
    pub(super) options: config::Options,
    pub(super) commands: Commands,
    pub(super) history: History,
    pub(super) pid_file: Option<PidFile>,
    pub(super) origin: Origin,
    /// The conversation with the supervisor that started this one, until that one ends.
    pub(super) predecessor_control: Option<Control>,
    /// What is known of that supervisor, also after its end.
    pub(super) predecessor: Option<Predecessor>,
    /// The supervisor that an upgrade has started: it is about to take over, or has.
    pub(super) heir: Option<Heir>,
    /// How often the service manager is to be told that the loop turns, and when next.
    pub(super) alive_every_ms: Option<u64>,
    pub(super) alive_ms: u64,
    /// The generation that serves.
    pub(super) current: GenerationNumber,
    /// Changes that were asked for while another one was under way.
    pub(super) waiting: Waiting,
    /// The number of the change that began last.
    pub(super) last_change: u64,
    pub(super) reloading: Option<Reloading>,
    /// What is known of the configuration file's changes.
    pub(super) following: Following,
    /// Set in a forked child alone, which leaves the loop and becomes this.
    pub(super) becomes: Option<Outcome>,
    /// When the machine is measured next.
    pub(super) measure_ms: u64,
    /// What came of reloads.
    pub(super) reloads: Reloads,
    /// It is about to exit, and stays for the supervisor before it, or for its heir.
    pub(super) staying: Option<Staying>,
    /// How often it was told to stop: the second time it waits for nothing.
    pub(super) stops: u32,
    /// When the heir is told next what was counted.
    pub(super) telling_ms: u64,
    pub(super) warned: Warned,
    pub(super) started: Instant,
}

impl Supervisor {
    /// Takes signals first: one that comes from here on is kept until the loop reads it. Then sizes, binds, and says so;
    /// forks nothing yet. The `conversation` with the supervisor before, if there is one, is
    /// taken over if this succeeds.
    pub(super) fn start(
        loaded: Loaded,
        options: config::Options,
        activated: io::Result<Vec<OwnedFd>>,
        conversation: &mut Option<Control>,
    ) -> Result<(Supervisor, Vec<Action>), String> {
        let (signals, epoll) = watch_for_signals()?;
        let is_named = options.file.is_some();
        let options = options.reading(loaded.config.file.as_deref());
        let origin =
            Origin::of_this_process(options.folder.clone(), options.file.as_deref(), is_named);
        let inheritance =
            conversation.as_ref().map_or(Ok(Inheritance::default()), Inheritance::receive);
        let inheritance = inheritance.map_err(doing("cannot take over"))?;
        let Inheritance { from: predecessor, history, lanes: before, accounts, .. } = inheritance;
        let Inheritance { mut listeners, mut admin_listeners, reloads, .. } = inheritance;
        if let Some(predecessor) = predecessor {
            origin.log_upgrade_received(predecessor.pid);
        } else {
            activated
                .and_then(|sockets| listeners.activate(sockets))
                .map_err(doing("cannot use the sockets of the service manager"))?;
        }
        check_sockets_of(&loaded.config, &listeners)?;
        let (pid_file, commands) =
            Supervisor::claim(&loaded.config, &options, predecessor, &epoll)?;
        let following = follow(&loaded.config, &options, &epoll);
        let ledger = Ledger::new(LEDGER_BLOCKS).map_err(doing("cannot map the ledger"))?;
        let mut processes = Processes::new(Arc::new(ledger));
        let mut warned = Warned::default();
        let ledger = processes.records().ledger();
        let first = GenerationNumber::FIRST;
        let both = (&mut listeners, &mut admin_listeners);
        let (prepared, plan) = startup::prepare(first, loaded, before, both, ledger, &mut warned)?;
        processes.generations.add(prepared);
        processes.records_mut().inherit(accounts);
        let (policy, actions) = Policy::begin(plan, seed(), 0);
        let supervisor = Supervisor {
            epoll,
            signals,
            listeners,
            admin_listeners,
            processes,
            policy,
            options,
            commands,
            history,
            pid_file,
            origin,
            predecessor_control: conversation.take(),
            predecessor,
            heir: None,
            alive_every_ms: manager::watchdog_ms(),
            alive_ms: 0,
            current: first,
            waiting: Waiting::default(),
            last_change: 0,
            reloading: None,
            following,
            becomes: None,
            warned,
            measure_ms: MEASURE_MS,
            reloads: Reloads::begun(unix_ms(), reloads),
            staying: None,
            stops: 0,
            telling_ms: 0,
            started: Instant::now(),
        };
        Ok((supervisor, actions))
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// When something is due that the policy doesn't know of.
    pub(super) fn own_due_ms(&self) -> impl Iterator<Item = u64> {
        let alive_ms = self.alive_every_ms.map(|_| self.alive_ms);
        let heir_ms = self.heir.as_ref().and_then(Heir::until_ms);
        let heir_ms = heir_ms.into_iter().chain(self.telling_due_ms());
        let heir_ms = heir_ms.chain(self.staying.as_ref().map(|staying| staying.until_ms));
        let own = alive_ms.into_iter().chain(heir_ms).chain(self.loading_until_ms());
        let own = own.chain(self.following.resume_ms()).chain(self.look_ms());
        let are_starved = self.processes.are_starved() || self.is_heir_starved();
        let starved_ms = are_starved.then(|| self.now_ms() + STARVED_MS);
        own.chain(self.commands.resume_ms()).chain(self.measures_ms()).chain(starved_ms)
    }

    /// Tells the service manager that this loop turns, as often as it asks for.
    pub(super) fn show_life(&mut self) {
        let now_ms = self.now_ms();
        if let Some(every_ms) = self.alive_every_ms.filter(|_| self.alive_ms <= now_ms) {
            manager::alive();
            self.alive_ms = now_ms + every_ms;
        }
    }

    /// When the machine is to be measured, if that could change anything.
    pub(super) fn measures_ms(&self) -> Option<u64> {
        let config = self.config()?;
        (config.workers.count == Count::Auto && self.under_way().is_none())
            .then_some(self.measure_ms)
    }

    /// The configuration of the generation that serves.
    pub(super) fn config(&self) -> Option<&Config> {
        self.processes.generations.get(self.current).map(|of| &*of.generation.config)
    }
}

/// Follows the configuration's file from here on, if that is wanted. It was read before, so it is looked at once more.
fn follow(config: &Config, options: &config::Options, epoll: &Epoll) -> Following {
    let mut following = Following::default();
    if config.supervisor.reload_on_change {
        following.read(config.fingerprint, following::watch_file(options, None));
        following.doubt(0);
        following.set(true, options.file.as_deref(), epoll);
    }
    following
}

/// Keeps signals, the ends of children included, until they are read.
fn watch_for_signals() -> Result<(Signals, Epoll), String> {
    process::keep_ended_children().map_err(doing("cannot wait for children"))?;
    process::keep_file_size_an_error().map_err(doing("cannot ignore a signal"))?;
    let all: Vec<_> = [&STOPPING[..], &OTHERS].concat();
    let signals = Signals::block(&all).map_err(doing("cannot take signals"))?;
    let epoll = Epoll::new().map_err(doing("cannot set up epoll"))?;
    epoll
        .add(&signals, Token::Signals.to_bits(), Interest::Readable)
        .map_err(doing("cannot watch for signals"))?;
    Ok((signals, epoll))
}

/// Refuses sockets that came from another process where the engine can't use them.
fn check_sockets_of(config: &Config, listeners: &Listeners) -> Result<(), String> {
    let engine = config.workers.engine.abilities();
    if engine.own_sockets.is_none() || listeners.groups().is_empty() {
        return Ok(());
    }
    let name = engine.name;
    Err(format!(
        "the engine \"{name}\" opens its own sockets: it can't use those of a service manager or of the supervisor \
         before"
    ))
}

/// An I/O error with what was being done.
pub(super) fn doing(what: &str) -> impl FnOnce(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// What the policy's randomness begins with: servers that start at once don't restart their workers in step.
fn seed() -> u64 {
    u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
