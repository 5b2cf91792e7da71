//! One supervisor follows another: the heir is started, given up or handed over to, and sent what its predecessor is
//! still asked for. What passes between the two is in `upgrade`.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::changes::ENDING;
use super::event::Event;
use super::state::{Outcome, Staying, Supervisor};
use crate::control::Received;
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::commands::{Answer, Request};
use crate::supervisor::policy::Input;
use crate::supervisor::presence::manager;
use crate::supervisor::processes;
use crate::supervisor::succession::launcher::{self, Started};
use crate::supervisor::succession::messages::{self, ToHeir};
use crate::supervisor::succession::unsent::Handover;
use crate::supervisor::succession::upgrade::{self, Heir, HeirSays, HeirState};
use crate::supervisor::token::Token;
use crate::sys::epoll::Interest;
use crate::sys::process::{self, Reaped};
use crate::worker::fault;

/// How long an heir that was killed may take to end.
const END_MS: u64 = 5_000;
/// How often the heir is told what this supervisor still counts.
const TELLING_MS: u64 = 1_000;

impl Supervisor {
    /// Starts the binary anew and hands it the sockets. Until it serves, nothing else changes.
    pub(super) fn upgrade(&mut self, number: u64) {
        self.commands.begin(Request::Upgrade, number);
        let patience = self.config().map(|config| 2 * config.supervisor.ready_timeout);
        let until_ms = self.now_ms() + patience.unwrap_or_default().as_millis() as u64;
        let (generation, binary) = (self.current, self.origin.binary());
        tracing::info!(generation = generation.0, binary, "upgrade started");
        let started = if process::id() == 1 {
            Err("as pid 1 it can't make way for another process; replace the container".into())
        } else if let Some(engine) = self.engine().filter(|engine| engine.own_sockets.is_some()) {
            let name = engine.name;
            Err(format!(
                "the sockets of the engine \"{name}\" can't be handed over; stop and start"
            ))
        } else if !self.origin.is_repeatable {
            Err("the configuration came from what can be read only once; stop and start".into())
        } else {
            launcher::launch(&self.origin, &self.epoll)
                .map_err(|error| upgrade::cannot_start(&error.to_string()))
        };
        match started {
            Ok(Started::Supervisor(launched)) => {
                self.heir = Some(Heir::new(launched, binary, number, until_ms));
            }
            Ok(Started::Launcher(launcher)) => {
                self.becomes = Some(Outcome::Launcher(Box::new(launcher)));
            }
            Err(reason) => self.upgrade_failed(number, &reason),
        }
    }

    /// The launcher has said why it can't execute the binary: then its end follows. Or it has become the heir, which is
    /// sent what it needs.
    pub(super) fn collect_from_launcher(&mut self) {
        let handover = Handover {
            listeners: (&self.listeners, &self.admin_listeners),
            history: &self.history,
            lanes: self.lanes_now(),
            accounts: self.processes.records().accounts(),
            reloads: self.reloads,
            has_command_socket: self.commands.is_open(),
        };
        if let Some(heir) = self.heir.as_mut().filter(|heir| heir.is_launching()) {
            if heir.hear_launcher(&self.epoll) {
                heir.begin(handover);
            }
            self.flush_to_heir();
        }
    }

    /// Sends the heir what there was no room for.
    fn flush_to_heir(&mut self) {
        let listeners = (&self.listeners, &self.admin_listeners);
        if let Some(Err(error)) = self.heir.as_mut().map(|heir| heir.flush(listeners)) {
            self.give_up_heir(&upgrade::cannot_start(&error.to_string()));
        }
    }

    /// Whether the kernel had no memory for what the heir and this supervisor say: it is to be tried again.
    pub(super) fn is_heir_starved(&self) -> bool {
        self.heir.as_ref().is_some_and(|heir| heir.is_starved)
    }

    /// The heir has sent something, takes more, or has closed its socket; then its end follows.
    pub(super) fn collect_from_heir(&mut self, events: &mut VecDeque<Event>) {
        // What it says it says after its execution.
        self.collect_from_launcher();
        if let Some(heir) = &mut self.heir {
            heir.is_starved = false;
        }
        self.flush_to_heir();
        let Some(heir) = &mut self.heir else {
            return;
        };
        match heir.hear() {
            HeirSays::Nothing => {}
            HeirSays::Ready => events.push_back(Event::HeirReady),
            HeirSays::End => {
                heir.hang_up();
                let _ = self.epoll.remove(heir.control.as_fd());
            }
        }
    }

    /// The new supervisor is late: it is given up or, if it was given up before, not waited for any longer.
    pub(super) fn heir_is_late(&mut self) {
        let Some(Heir { state, .. }) = &self.heir else {
            return;
        };
        match state {
            HeirState::Launching { .. } => {
                let binary = self.origin.binary();
                let reason = format!(
                    "{binary} was not executed in time; look whether the file systems of it and of the folder that this \
                     server was started in answer"
                );
                self.drop_heir(&upgrade::cannot_start(&reason));
            }
            HeirState::Starting { .. } => self.give_up_heir("it was not ready in time"),
            HeirState::Ending { reason, .. } => {
                let reason = format!("{reason}; it was killed, and has not ended");
                self.undo_heir();
                self.drop_heir(&reason);
            }
            HeirState::Serves => {}
        }
    }

    /// The new supervisor can't be: it is killed, and when it has ended this one goes on as if it had not been.
    fn give_up_heir(&mut self, reason: &str) {
        let until_ms = self.now_ms() + END_MS;
        let is_starting = |heir: &&mut Heir| matches!(heir.state, HeirState::Starting { .. });
        if let Some(heir) = self.heir.as_mut().filter(is_starting) {
            heir.kill();
            heir.state = HeirState::Ending { until_ms, reason: reason.to_owned() };
        }
    }

    /// The upgrade has failed, and the new supervisor, which is killed, is not waited for.
    fn drop_heir(&mut self, reason: &str) {
        if let Some(heir) = self.heir.take() {
            heir.kill();
            heir.unwatch(&self.epoll);
            self.upgrade_failed(heir.number, reason);
        }
    }

    /// Ends what could only be the case while this supervisor serves: it is about to end itself.
    pub(super) fn give_up_changes(&mut self, reason: &str) {
        if self.heir.as_ref().is_some_and(|heir| !heir.serves()) {
            self.drop_heir(reason);
        }
        self.refuse_all(reason);
    }

    /// The new supervisor has ended before it served: if it is the process that ended, this is true.
    pub(super) fn heir_ended(&mut self, reaped: &Reaped) -> bool {
        let is_it = |heir: &mut Heir| heir.pid() == reaped.pid && !heir.serves();
        let Some(mut heir) = self.heir.take_if(is_it) else {
            return false;
        };
        heir.unwatch(&self.epoll);
        let number = heir.number;
        let was_executed = heir.was_executed(&self.epoll);
        let reason = heir.failure(&processes::cause(reaped.ended, false));
        if was_executed {
            // Whatever it did, it can't do again.
            self.undo_heir();
        }
        self.upgrade_failed(number, &reason);
        true
    }

    /// Undoes what an heir that has failed may have done to what the kernel keeps for the sockets, and to what this server
    /// is found by.
    fn undo_heir(&mut self) {
        self.restore_listeners();
        self.reappear();
    }

    fn upgrade_failed(&mut self, number: u64, reason: &str) {
        tracing::error!(generation = self.current.0, reason, "upgrade failed");
        self.commands.answer_of(number, &Answer::Failed(reason.to_owned()));
    }

    /// The new supervisor serves: it gets what has waited, and this one drains.
    pub(super) fn hand_over(&mut self) -> Option<Input> {
        let is_starting = |heir: &&mut Heir| matches!(heir.state, HeirState::Starting { .. });
        let heir = self.heir.as_mut().filter(is_starting)?;
        heir.state = HeirState::Serves;
        let (pid, number) = (heir.pid(), heir.number);
        // Before the heir is told that it serves alone: a service manager may listen to the main process only.
        manager::main_process(pid);
        let changes = self.waiting.take_all();
        self.pass_on(&changes);
        self.tell_counts();
        self.tell_heir(ToHeir::HandedOver);
        self.listeners.leave_to_heir();
        self.admin_listeners.leave_to_heir();
        tracing::info!(pid, generation = self.current.0, "upgrade done");
        let mut text = format!("pid {pid} serves");
        if process::is_in_foreground() {
            // The shell waits for this process alone, and then takes the terminal back.
            let reason = "the shell takes the terminal back when the old supervisor ends";
            let remedy =
                format!("Ctrl-C does not reach it: stop it with `kill {pid}` or `server stop`");
            text =
                format!("{text}, no longer in the foreground of its terminal: {reason}. {remedy}");
            tracing::warn!(pid, reason, remedy, "no longer in the foreground");
        }
        self.commands.answer_of(number, &Answer::Done(text));
        Some(Input::HandedOver)
    }

    /// Has the heir make changes that this supervisor was asked for.
    pub(super) fn pass_on(&mut self, changes: &[Change]) {
        let Some(pid) = self.heir.as_ref().map(Heir::pid).filter(|_| !changes.is_empty()) else {
            return;
        };
        let is_told = self.tell_heir(ToHeir::Changes(changes.to_vec()));
        for change in changes {
            if !is_told {
                self.refuse(*change, ENDING);
                continue;
            }
            tracing::info!(change = change.word(), pid, "change passed on");
            let reason =
                format!("pid {pid} has taken over before this began, and was passed it on");
            let answer = Answer::Failed(reason);
            match change {
                Change::Reload => self.commands.refuse(Request::Reload, &answer),
                Change::Upgrade => self.commands.refuse(Request::Upgrade, &answer),
                Change::Resize(_) => {}
            }
        }
    }

    /// Tells the heir, if one serves, what was counted by now. One that has not taken all of the last account is told the
    /// next one after it.
    pub(super) fn tell_counts(&mut self) {
        let Some(heir) = self.heir.as_ref().filter(|heir| heir.serves()) else {
            return;
        };
        let now_ms = self.now_ms();
        if !heir.has_been_told() {
            self.telling_ms = now_ms;
            return;
        }
        self.telling_ms = now_ms + TELLING_MS;
        let accounts = self.processes.records().accounts();
        for message in messages::telling(&accounts, self.lanes_now(), self.reloads) {
            self.tell_heir(message);
        }
    }

    /// When that is to be done next, unless an event comes first: that the heir has taken what it was told before.
    pub(super) fn telling_due_ms(&self) -> Option<u64> {
        let takes = self.heir.as_ref().is_some_and(|heir| heir.serves() && heir.has_been_told());
        let is_over = self.staying.as_ref().is_some_and(|staying| staying.is_told);
        (takes && !is_over).then_some(self.telling_ms)
    }

    /// Whether the heir takes the message, now or when it has room.
    fn tell_heir(&mut self, message: ToHeir) -> bool {
        self.heir.as_mut().is_some_and(|heir| heir.tell(message))
    }

    /// Every worker of this supervisor is ready: the one before it hands over. False if there was none.
    pub(super) fn succeed(&mut self) -> bool {
        let Some(predecessor) = self.predecessor_control.take() else {
            return false;
        };
        fault::on_hand_over();
        for message in upgrade::report_ready(&predecessor) {
            self.take_from_predecessor(message);
        }
        if let Some(prepared) = self.processes.generations.get(self.current) {
            let accesses = prepared.accesses;
            let taken = self.listeners.take_over(accesses);
            if let Err(error) = taken.and(self.admin_listeners.take_over(accesses)) {
                tracing::warn!(reason = %error, "cannot take over the sockets");
            }
        }
        self.keep_current_listeners();
        // It may send more until it ends. If its socket can't be watched, that is lost.
        match self.epoll.add(&predecessor, Token::Predecessor.to_bits(), Interest::Readable) {
            Ok(()) => self.predecessor_control = Some(predecessor),
            Err(_) => self.processes.records_mut().inherit_no_more(),
        }
        true
    }

    /// What the supervisor before this one says while it drains, or its end.
    pub(super) fn collect_from_predecessor(&mut self, events: &mut VecDeque<Event>) {
        let Some(predecessor) = &self.predecessor_control else {
            return;
        };
        loop {
            match predecessor.receive() {
                Received::Message(message, _) => events.push_back(Event::FromPredecessor(message)),
                Received::Nothing | Received::Exhausted => return,
                Received::End => break,
            }
        }
        let _ = self.epoll.remove(predecessor.as_fd());
        self.predecessor_control = None;
        events.push_back(Event::PredecessorEnded);
    }

    /// Whether the supervisor before this one still drains, and needs this one for it. An heir learns of its counts, and of
    /// what it is asked for, through this one alone; and a service manager kills what is left of a service when its main
    /// process has ended.
    pub(super) fn is_needed_by_predecessor(&self) -> bool {
        let is_between = self.heir.as_ref().is_some_and(Heir::serves);
        self.predecessor_control.is_some() && (is_between || manager::is_there())
    }

    /// Whether it can't end yet when its own work is done: for the one before it, or for what its heir is still to be told.
    pub(super) fn has_to_stay(&self) -> bool {
        self.is_needed_by_predecessor() || self.heir.as_ref().is_some_and(Heir::serves)
    }

    /// All is done but that. No supervisor stays for it longer than for its own connections.
    pub(super) fn stay(&mut self, code: i32) {
        let timeout = self.config().map(|config| config.supervisor.drain_timeout);
        let timeout = timeout.filter(|_| self.stops < 2).unwrap_or_default();
        let until_ms = self.now_ms() + timeout.as_millis() as u64;
        self.staying = Some(Staying { code, until_ms, is_told: false });
    }

    /// Has the supervisor before this one, which drains, open its access log once more, too: the program that moved the log
    /// away knows of this one alone. False if there is none.
    pub(super) fn pass_on_reopening(&self) -> bool {
        // As long as it holds its end of the conversation no other process has its number.
        let predecessor = self.predecessor.filter(|_| self.predecessor_control.is_some());
        predecessor.is_some_and(|predecessor| process::signal_reopen(predecessor.pid))
    }

    /// The end of a supervisor that has stayed, when nothing keeps it any more.
    pub(super) fn leave(&mut self) -> Option<Outcome> {
        let Staying { code, until_ms, .. } = *self.staying.as_ref()?;
        let is_late = until_ms <= self.now_ms();
        if self.is_needed_by_predecessor() && !is_late {
            return None;
        }
        let has_told = self.tell_last();
        if !has_told && !is_late {
            return None;
        }
        if !has_told {
            let pid = self.heir.as_ref().map(Heir::pid);
            let reason = "the new server has not taken them in time";
            tracing::warn!(pid, reason, "counts not handed over");
        }
        Some(self.exit(code))
    }

    /// Tells the heir what was counted in all, behind what it was told before. Whether it has taken that.
    fn tell_last(&mut self) -> bool {
        let has_been_told = |heir: &Option<Heir>| {
            let serving = heir.as_ref().filter(|heir| heir.serves());
            serving.is_none_or(Heir::has_been_told)
        };
        let staying = self.staying.as_mut().filter(|staying| !staying.is_told);
        if let Some(staying) = staying.filter(|_| has_been_told(&self.heir)) {
            staying.is_told = true;
            self.tell_counts();
        }
        has_been_told(&self.heir) && self.staying.as_ref().is_none_or(|staying| staying.is_told)
    }

    /// Takes note of what the supervisor before this one says.
    pub(super) fn take_from_predecessor(&mut self, message: ToHeir) {
        match message {
            ToHeir::Changes(changes) => {
                changes.into_iter().for_each(|change| self.request_change(change))
            }
            ToHeir::Totals(accounts) => self.processes.records_mut().inherit(accounts),
            ToHeir::Lanes { auxiliary, .. } => {
                let accounts = messages::auxiliary_roles(&auxiliary);
                self.processes.records_mut().inherit(accounts);
            }
            // What comes before this one is ready is part of its start.
            ToHeir::HandedOver
            | ToHeir::Group { .. }
            | ToHeir::Happening(_)
            | ToHeir::HasCommandSocket
            | ToHeir::End => {}
        }
    }
}
