//! A reload, from its beginning to its answer: a child reads the configuration (`loader`), a generation is prepared of
//! it, and the policy puts it in the place of the one that serves.

use crate::control::GenerationNumber;
use std::path::Path;

use super::state::{Outcome, Supervisor};
use crate::supervisor::commands::status::unix_ms;
use crate::supervisor::commands::{Answer, Request};
use crate::supervisor::loading::loader::{Found, Loading, Read, Rejection, Started};
use crate::supervisor::loading::reloading::{Reloading, Stage};
use crate::supervisor::loading::startup;
use crate::supervisor::policy::Input;
use crate::supervisor::presence::manager;
use crate::supervisor::presence::pid_file::PidFile;
use crate::sys::process::Reaped;

/// Why a reload begins that nothing asked for.
const CHANGED: &str = "the configuration file has changed";
/// The same where that can't be told.
const MAY_HAVE_CHANGED: &str = "the configuration file may have changed";

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Answer {
        match rejection {
            Rejection::Invalid(reason) => Answer::Invalid(reason),
            Rejection::Unusable(reason) => Answer::Failed(reason),
        }
    }
}

impl Supervisor {
    /// Has the configuration read again. The process may be another one after this: see [`Supervisor::becomes`].
    pub(super) fn begin_reload(&mut self, number: u64) {
        self.commands.begin(Request::Reload, number);
        self.announce_reload(None);
        self.begin_reading(number, None);
    }

    /// When the configuration file, which has changed, is to be looked at, if nothing else is under way.
    pub(super) fn look_ms(&self) -> Option<u64> {
        self.following.due_ms().filter(|_| self.under_way().is_none())
    }

    /// Has the configuration file looked at, and read if it is another one than was read last.
    pub(super) fn look(&mut self) {
        if self.look_ms().is_some() {
            self.last_change += 1;
            self.following.look(self.now_ms());
            self.begin_reading(self.last_change, Some(self.following.seen()));
        }
    }

    fn announce_reload(&mut self, reason: Option<&str>) {
        tracing::info!(generation = self.policy.next_generation().0, reason, "reload started");
        manager::reloading();
    }

    /// Makes a reload known that nothing has asked for.
    fn announce_unasked(&mut self, reason: &str) {
        if let Some(reloading) = self.reloading.as_mut().filter(|of| !of.is_announced) {
            reloading.is_announced = true;
            self.announce_reload(Some(reason));
        }
    }

    /// Starts the child that reads it, for which a configuration that was `seen` is no change.
    fn begin_reading(&mut self, number: u64, seen: Option<u64>) {
        let patience = self.config().map(|config| config.supervisor.ready_timeout);
        let until_ms = self.now_ms() + patience.unwrap_or_default().as_millis() as u64;
        self.options.must_be_written = self.config().is_some_and(|config| config.is_written);
        let groups = self.listeners.groups().iter().chain(self.admin_listeners.groups());
        let open = groups.map(|group| group.requested.address().clone()).collect();
        let started = self.following.copy().and_then(|watch| {
            Loading::start(&self.options, open, seen, watch, &self.epoll, until_ms)
        });
        let is_announced = seen.is_none();
        match started {
            Ok(Started::Supervisor(loading)) => {
                let stage = Stage::Reading(loading);
                self.reloading = Some(Reloading { number, is_announced, stage });
            }
            Ok(Started::Loader(loader)) => {
                self.becomes = Some(Outcome::Loader(Box::new(loader)));
            }
            Err(error) => {
                let reason = format!("cannot start a process that reads it: {error}");
                let stage = Stage::Read(Err(Rejection::Unusable(reason)));
                self.reloading = Some(Reloading { number, is_announced, stage });
                self.announce_unasked(MAY_HAVE_CHANGED);
            }
        }
    }

    fn loading(&mut self) -> Option<&mut Loading> {
        match &mut self.reloading {
            Some(Reloading { stage: Stage::Reading(loading), .. }) => Some(loading),
            _ => None,
        }
    }

    /// When the configuration has to have been read.
    pub(super) fn loading_until_ms(&self) -> Option<u64> {
        match &self.reloading {
            Some(Reloading { stage: Stage::Reading(loading), .. }) => Some(loading.until_ms),
            _ => None,
        }
    }

    /// The child that reads the configuration has said something, or is silent from here on; then its end follows.
    pub(super) fn collect_from_loader(&mut self) {
        let Some(loading) = self.loading() else {
            return;
        };
        let read = loading.hear();
        if loading.has_changed && !self.drop_spoilt() {
            self.announce_unasked(CHANGED);
        }
        let Some(loading) = self.loading() else {
            return;
        };
        if loading.is_silent
            && let Some(Reloading { stage: Stage::Reading(loading), .. }) = &self.reloading
        {
            let _ = self.epoll.remove(loading.socket());
        }
        if let Some(read) = read {
            self.has_read(read);
        }
    }

    /// A child has ended: if it is the one that reads the configuration, this is true.
    pub(super) fn loader_ended(&mut self, reaped: &Reaped) -> bool {
        let read = self.loading().and_then(|loading| loading.ended(reaped));
        let is_it = read.is_some();
        if let Some(read) = read {
            self.has_read(read);
        }
        is_it
    }

    /// The configuration was read, or can't be. Of one that nothing asked for and that is unchanged nothing is made known.
    fn has_read(&mut self, read: Read) {
        if self.drop_spoilt() {
            return;
        }
        let Read { outcome, fingerprint, watched } = read;
        if let Some(fingerprint) = fingerprint {
            self.following.read(fingerprint, watched);
        }
        match outcome {
            Found::Changed(result) => {
                let is_known = fingerprint.is_some();
                self.announce_unasked(if is_known { CHANGED } else { MAY_HAVE_CHANGED });
                if let Some(reloading) = &mut self.reloading {
                    reloading.stage = Stage::Read(result);
                }
            }
            Found::Unchanged => {
                self.reloading = None;
                self.follow();
            }
        }
    }

    /// Drops a reload that nothing asked for, and that may have read half a file: it is looked at again when it is whole.
    fn drop_spoilt(&mut self) -> bool {
        let now_ms = self.now_ms();
        let is_its = |reloading: &mut Reloading| !reloading.is_announced;
        let is_unasked = self.reloading.as_mut().is_some_and(is_its);
        let is_spoilt = is_unasked && self.following.is_spoilt(now_ms, &self.epoll);
        if !is_spoilt {
            return false;
        }
        if let Some(Reloading { stage: Stage::Reading(loading), .. }) = &mut self.reloading {
            loading.give_up();
            let _ = self.epoll.remove(loading.socket());
        }
        self.reloading = None;
        true
    }

    /// Follows the configuration file, or no more, as the generation that serves wants it.
    fn follow(&mut self) {
        let config = self.config().map(|config| &config.supervisor);
        let is_wanted = config.is_some_and(|config| config.reload_on_change);
        self.following.set(is_wanted, self.options.file.as_deref(), &self.epoll);
    }

    /// Gives up on a child that has taken too long to read the configuration.
    pub(super) fn give_up_loading(&mut self) {
        let now_ms = self.now_ms();
        if self.loading_until_ms().is_none_or(|until_ms| until_ms > now_ms) {
            return;
        }
        let patience = self.config().map(|config| config.supervisor.ready_timeout);
        let patience = humantime::format_duration(patience.unwrap_or_default()).to_string();
        if let Some(loading) = self.loading() {
            let doing = loading.give_up();
            let reason = format!("{doing} took longer than supervisor.ready_timeout, {patience}");
            self.has_read(Read::none(reason));
        }
    }

    /// Whether the configuration was read, and nothing keeps the reload from going on.
    pub(super) fn can_replace(&self) -> bool {
        let is_read = matches!(&self.reloading, Some(Reloading { stage: Stage::Read(_), .. }));
        is_read && !self.policy.is_changing()
    }

    /// Prepares a generation of what was read. If it is bad, nothing has changed.
    pub(super) fn replace(&mut self) -> Option<Input> {
        let Reloading { number, is_announced, stage } = self.reloading.take()?;
        let Stage::Read(read) = stage else {
            self.reloading = Some(Reloading { number, is_announced, stage });
            return None;
        };
        let prepared = read.and_then(|loaded| {
            if self.config().is_some_and(|of| of.workers.engine != loaded.config.workers.engine) {
                let reason = "workers.engine can't change while the server runs; stop and start";
                return Err(Rejection::Unusable(reason.into()));
            }
            self.warn_of_pid_file(loaded.config.supervisor.pid_file.as_deref());
            let generation = self.policy.next_generation();
            let before = self.lanes_now();
            let listeners = (&mut self.listeners, &mut self.admin_listeners);
            let ledger = self.processes.records().ledger();
            startup::prepare(generation, *loaded, before, listeners, ledger, &mut self.warned)
                .map_err(Rejection::Unusable)
        });
        match prepared {
            Ok((prepared, plan)) => {
                let stage = Stage::Replacing(prepared.generation.number);
                self.reloading = Some(Reloading { number, is_announced, stage });
                self.processes.generations.add(prepared);
                Some(Input::Replace(plan))
            }
            Err(rejection) => {
                let (Rejection::Invalid(reason) | Rejection::Unusable(reason)) = &rejection;
                tracing::error!(reason, "reload rejected");
                self.reload_ended(number, &rejection.into());
                self.keep_current_listeners();
                self.restore_listeners();
                Some(Input::Opened(self.listeners.lanes()))
            }
        }
    }

    /// Warns of a pid file that is another one than this server has, and says where its command socket stays.
    fn warn_of_pid_file(&mut self, asked: Option<&Path>) {
        let own = self.pid_file.as_ref().map(PidFile::path);
        let shown = |path: Option<&Path>| path.map(|path| path.display().to_string());
        let what = shown(asked).unwrap_or_default();
        if own == asked || !self.warned.is_new("pid file unchanged", &what) {
            return;
        }
        let (path, socket) = (shown(own), shown(self.commands.path()));
        let reason = "a reload changes neither the pid file nor the command socket";
        let remedy = "an upgrade does, or stop and start the server";
        tracing::warn!(path, socket, reason, remedy, "pid file unchanged");
    }

    /// A generation serves, or can't be: the reload is over, if that was its generation.
    pub(super) fn generation_settled(&mut self, generation: GenerationNumber, answer: &Answer) {
        if matches!(answer, Answer::Failed(_)) {
            self.restore_listeners();
        }
        let is_its = |reloading: &mut Reloading| matches!(reloading.stage, Stage::Replacing(of) if of == generation);
        match self.reloading.take_if(is_its) {
            Some(reloading) => self.reload_ended(reloading.number, answer),
            None => manager::ready(self.policy.lanes(), self.current),
        }
    }

    /// Answers every client that waits for the reload. The server serves, whether it succeeded or not.
    fn reload_ended(&mut self, number: u64, answer: &Answer) {
        self.follow();
        self.reloads.count(matches!(answer, Answer::Done(_)), unix_ms());
        self.commands.answer_of(number, answer);
        manager::ready(self.policy.lanes(), self.current);
    }

    /// This server is about to end: a reload that is under way will not be.
    pub(super) fn refuse_reload(&mut self, reason: &str) {
        if let Some(loading) = self.loading() {
            loading.give_up();
        }
        if let Some(reloading) = self.reloading.take_if(|reloading| reloading.is_announced) {
            tracing::error!(reason, "reload rejected");
            self.reloads.count(false, unix_ms());
            let answer = Answer::Failed(reason.to_owned());
            self.commands.answer_of(reloading.number, &answer);
        }
        self.reloading = None;
    }
}
