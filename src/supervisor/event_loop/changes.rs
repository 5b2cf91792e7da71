//! What the supervisor is asked for while it serves: another configuration or number of lanes, its status.
//! Each is prepared here, refused if it can't be, and then the policy's to decide about.
//!
//! One change goes on at a time. What is asked for meanwhile waits for its turn, passes to the supervisor that
//! follows, or is refused with a reason. Each has a number, by which its outcome finds the clients that asked for it.

use std::os::fd::AsFd;

use humantime::format_duration;

use super::state::{MEASURE_MS, Supervisor};
use crate::config::{self, Abilities, LANES_MAX};
use crate::control::{GenerationNumber, Order, ProcessNumber, Role, Wants, WorkerNumber};
use crate::observe::log;
use crate::observe::snapshot::{Health, Snapshot};
use crate::supervisor::commands::facts::{facts, queues};
use crate::supervisor::commands::snapshot::{self, Circumstances, ServedAddress};
use crate::supervisor::commands::status::{self, Subject};
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::commands::{Answer, Request};
use crate::supervisor::loading::sockets::ADMIN_BACKLOG;
use crate::supervisor::loading::startup;
use crate::supervisor::policy::Input;
use crate::supervisor::presence::manager;
use crate::supervisor::processes::sizing;
use crate::supervisor::succession::upgrade::Heir;
use crate::supervisor::token::ClientNumber;

/// Why nothing can change any more.
pub(super) const ENDING: &str = "this server is about to end";

impl Supervisor {
    /// What a client of the command socket asks for.
    pub(super) fn take_command(&mut self, client: ClientNumber, request: Request) -> Option<Input> {
        match request {
            Request::Status => {
                let unready = || Answer::Failed("no generation serves".into());
                let status = status::status(&self.subject());
                let answer = status.map_or_else(unready, |status| Answer::Status(Box::new(status)));
                self.commands.answer(client, &answer);
                None
            }
            Request::Health => {
                self.commands.answer(client, &Answer::Health(self.health()));
                None
            }
            Request::Reload | Request::Upgrade => {
                let change = match request {
                    Request::Reload => Change::Reload,
                    _ => Change::Upgrade,
                };
                match self.refusal() {
                    Some(reason) => self.commands.answer(client, &Answer::Failed(reason)),
                    None => self.request_change(change),
                }
                None
            }
            Request::Stop => {
                let config = self.config().map(|config| &config.supervisor);
                let (delay, timeout) = config
                    .map(|config| (config.drain_delay, config.drain_timeout))
                    .unwrap_or_default();
                let first = match delay.is_zero() || self.policy.is_ending() {
                    true => String::new(),
                    false => format!("serves for another {}, and then ", format_duration(delay)),
                };
                let timeout = format_duration(timeout);
                let pid = crate::sys::process::id();
                let text =
                    format!("pid {pid} {first}finishes what is in flight, for {timeout} at most");
                self.commands.answer(client, &Answer::Begun(text));
                self.stop("server stop")
            }
        }
    }

    /// The server as it is now.
    fn subject(&self) -> Subject<'_> {
        let accept = self.config().map(|config| config.workers.accept);
        let queues = accept.map(|accept| queues(accept, &self.listeners, self.policy.lanes()));
        Subject {
            configuration: config::file_path(&self.options),
            generation: self.current,
            uptime_ms: self.now_ms(),
            policy: &self.policy,
            processes: &self.processes,
            listeners: &self.listeners,
            admin_listeners: &self.admin_listeners,
            accounts: self.processes.records().accounts(),
            queues: queues.unwrap_or_default(),
            history: &self.history,
        }
    }

    /// Whether it works, and what of it doesn't.
    fn health(&self) -> Health {
        snapshot::health(&self.policy, &self.circumstances(), self.now_ms())
    }

    /// Answers an admin worker's question. One that can't be answered is answered by the silence.
    pub(super) fn inform(
        &mut self,
        key: ProcessNumber,
        worker: WorkerNumber,
        number: u64,
        wants: Wants,
    ) {
        let record = self.processes.records().get(worker);
        let asker = record.map(|record| record.worker).filter(|worker| worker.process == key);
        let Some(asker) = asker.filter(|asker| asker.role == Role::Admin) else { return };
        let mut snapshot = Snapshot { health: self.health(), ..Snapshot::default() };
        if wants != Wants::default() {
            let subject = self.subject();
            snapshot.metrics = wants.metrics.then(|| facts(&subject, self.reloads));
            let status = wants.status.then(|| status::status(&subject)).flatten();
            let status = status.and_then(|status| serde_json::to_string_pretty(&status).ok());
            snapshot.status = status.map(|text| text + "\n");
            // Nothing that grows is less on the heir's page, which may be asked for next.
            self.tell_counts();
        }
        let file = snapshot.write();
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        self.processes.order(asker, Order::Snapshot(number), &files);
    }

    /// What makes the health of the server beside its workers.
    fn circumstances(&self) -> Circumstances {
        let prepared = self.processes.generations.get(self.current);
        let requested = prepared.map_or(&[][..], |prepared| &prepared.addresses);
        let groups = self.listeners.groups().iter();
        let served = groups.filter(|group| requested.contains(&group.requested));
        let rejected = self.reloads.has_failed.then(|| {
            "the last reload was rejected: the configuration before it is served".to_owned()
        });
        Circumstances {
            addresses: served.map(ServedAddress::of).collect(),
            change: self.under_way(),
            is_followed: self.heir.as_ref().is_some_and(Heir::serves),
            faults: self.access_log_trouble().into_iter().chain(rejected).collect(),
        }
    }

    /// Why the access log can't be written, if it can't.
    fn access_log_trouble(&self) -> Option<String> {
        let (_, worker) = self.policy.state_of(Role::AccessLog)?;
        let record = self.processes.records().get(worker?.number)?;
        let reason = record.trouble.as_ref()?;
        Some(format!("the access log fails: {reason}"))
    }

    /// Why a command that changes something is refused now.
    fn refusal(&self) -> Option<String> {
        match &self.heir {
            Some(heir) if heir.serves() => Some(format!(
                "another supervisor, pid {}, has taken over; ask that one",
                heir.pid()
            )),
            Some(heir) => Some(format!(
                "an upgrade, to pid {}, is under way; ask again when it has ended",
                heir.pid()
            )),
            None if self.policy.is_ending() => Some(ENDING.into()),
            None => None,
        }
    }

    /// A change is asked for: it begins as soon as no other is under way.
    pub(super) fn request_change(&mut self, change: Change) {
        if self.heir.as_ref().is_some_and(Heir::serves) {
            return self.pass_on(&[change]);
        }
        if self.policy.is_ending() {
            return self.refuse(change, ENDING);
        }
        if let Some(reason) = self.under_way() {
            tracing::info!(change = change.word(), reason, "change waits");
        }
        self.waiting.add(change);
    }

    /// What keeps a change from beginning now.
    pub(super) fn under_way(&self) -> Option<&'static str> {
        if self.heir.is_some() {
            Some("an upgrade is under way")
        } else if self.reloading.is_some() {
            Some("a reload is under way")
        } else {
            self.policy.is_changing().then_some("workers are about to be replaced")
        }
    }

    /// The change that can begin now.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        if self.under_way().is_some() { None } else { self.waiting.next() }
    }

    /// Begins a change that has waited for its turn.
    pub(super) fn begin(&mut self, change: Change) -> Option<Input> {
        self.last_change += 1;
        match change {
            Change::Reload => {
                self.begin_reload(self.last_change);
                None
            }
            Change::Upgrade => {
                self.upgrade(self.last_change);
                None
            }
            Change::Resize(by) => self.resize_by(by),
        }
    }

    /// Says that a change will not be, to the log and to the clients that wait for it.
    pub(super) fn refuse(&mut self, change: Change, reason: &str) {
        let answer = Answer::Failed(reason.to_owned());
        match change {
            Change::Reload => {
                tracing::error!(reason, "reload rejected");
                self.commands.refuse(Request::Reload, &answer);
            }
            Change::Upgrade => {
                tracing::error!(generation = self.current.0, reason, "upgrade failed");
                self.commands.refuse(Request::Upgrade, &answer);
            }
            Change::Resize(by) => tracing::error!(by, reason, "resize rejected"),
        }
    }

    /// This server is about to end: what waits, and what is under way, will not be.
    pub(super) fn refuse_all(&mut self, reason: &str) {
        for change in self.waiting.take_all() {
            self.refuse(change, reason);
        }
        self.refuse_reload(reason);
    }

    /// Begins the end of this server, or forces it.
    pub(super) fn stop(&mut self, reason: &'static str) -> Option<Input> {
        self.give_up_changes("this server was told to stop");
        self.stops = self.stops.saturating_add(1);
        if let Some(staying) = &mut self.staying {
            staying.until_ms = 0;
        }
        if !self.heir.as_ref().is_some_and(Heir::serves) {
            manager::stopping();
        }
        Some(Input::Stop(reason))
    }

    pub(super) fn engine(&self) -> Option<&'static Abilities> {
        self.config().map(|config| config.workers.engine.abilities())
    }

    /// Closes the sockets of addresses that neither the generation that serves nor one on its way has a use for.
    pub(super) fn keep_current_listeners(&mut self) {
        let asked = self.processes.generations.addresses_from(self.current);
        if !asked.is_empty() {
            self.listeners.keep(&asked);
            let asked = self.processes.generations.admin_addresses_from(self.current);
            self.admin_listeners.keep(&asked);
        }
    }

    /// Sets what the kernel keeps for the sockets as the generation that serves wants it, after something that was to
    /// follow it was given up.
    pub(super) fn restore_listeners(&mut self) {
        let Some(prepared) = self.processes.generations.get(self.current) else {
            return;
        };
        let (backlog, accesses) = (prepared.generation.config.server.backlog, prepared.accesses);
        let restored = self.listeners.restore(backlog, accesses);
        if let Err(error) = restored.and(self.admin_listeners.restore(ADMIN_BACKLOG, accesses)) {
            tracing::error!(reason = %error, "cannot restore the sockets");
        }
    }

    /// A generation serves from here on.
    ///
    /// # Errors
    /// If it can't, which only an heir may not be able to.
    pub(super) fn serve(&mut self, generation: GenerationNumber) -> Result<(), String> {
        self.current = generation;
        if self.listeners.are_lent() {
            // The supervisor before this one goes on with both if this fails.
            self.take_over_names()?;
            self.begin_to_listen()?;
        }
        if let Some(config) = self.config() {
            log::start(&config.log, config.colour);
        }
        self.keep_current_listeners();
        Ok(())
    }

    /// Has every socket of the generation that serves listen: an heir's don't until then.
    fn begin_to_listen(&self) -> Result<(), String> {
        let backlog = self.config().map_or(0, |config| config.server.backlog);
        self.listeners.begin_to_listen(backlog).map_err(|error| format!("cannot listen: {error}"))
    }

    /// How the lanes came to be that there are.
    pub(super) fn lanes_now(&self) -> Option<sizing::PreviousSize> {
        let prepared = self.processes.generations.get(self.current)?;
        let count = prepared.generation.config.workers.count;
        let configured = prepared.size.configured;
        Some(sizing::PreviousSize { count, configured, lanes: self.policy.lanes() })
    }

    /// So many lanes more, or fewer, within what there can be.
    fn resize_by(&mut self, by: isize) -> Option<Input> {
        let lanes = self.policy.lanes();
        let wanted = lanes.saturating_add_signed(by).clamp(1, LANES_MAX);
        if wanted.abs_diff(lanes) < by.unsigned_abs() {
            let reason = if by < 0 {
                "one lane has to stay"
            } else {
                "there can't be more lanes than workers.count allows"
            };
            tracing::error!(lanes, by, reason, "resize rejected");
        }
        if wanted == lanes {
            if by == 0 {
                tracing::info!(lanes, reason = "lanes more and lanes fewer make none", "resized");
            }
            return None;
        }
        self.resize(wanted)
    }

    /// Sees to it that there are sockets for so many lanes.
    fn resize(&mut self, lanes: usize) -> Option<Input> {
        let config = self.config()?;
        let (sockets, backlog) = (config.workers.accept.sockets(lanes), config.server.backlog);
        match self.listeners.grow(sockets, backlog) {
            Ok(()) => Some(Input::Resize(lanes)),
            Err(error) => {
                tracing::error!(lanes, reason = %error, "resize rejected");
                Some(Input::Opened(self.listeners.lanes()))
            }
        }
    }

    /// Looks whether the machine allows another number of lanes than it did.
    pub(super) fn measure(&mut self) -> Option<Input> {
        self.measure_ms = self.now_ms() + MEASURE_MS;
        let machine = sizing::measure_again();
        let config = self.config()?;
        let (count, pin) = (config.workers.count, config.workers.pin);
        let size = sizing::size(count, &machine);
        let lanes = size.lanes.min(LANES_MAX);
        let prepared = self.processes.generations.get_mut(self.current)?;
        if lanes == prepared.size.configured {
            return None;
        }
        startup::log_size(&size, &machine, &mut self.warned);
        prepared.size = size;
        if pin {
            prepared.cpus = machine.cpus;
        }
        self.resize(lanes)
    }
}
