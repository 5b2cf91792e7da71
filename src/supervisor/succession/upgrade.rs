//! What passes between a supervisor and its heir, which takes over every socket. What is done about it is for the event
//! loop.
//!
//! ```text
//! predecessor: has the binary executed with a socket of this conversation ── sends what it has ▶
//! heir:        starts its workers with those sockets; when they are ready ──── Ready ──────▶
//!              or can't, and says why ── Failed ───────────────────────────────────────────▶
//! predecessor: drains; sends the changes that waited ── HandedOver ────────────────────────▶
//! heir:        from here on what the kernel keeps for the sockets is its own to change
//! predecessor: passes on what it is still asked for, and counts ── Changes, Totals ────────▶
//! predecessor: exits, after the one before it: the end of the conversation
//! ```
//!
//! Until `Ready` the predecessor serves as before; if the heir ends before, or takes too long, that is
//! all that has happened.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::launcher::{Launched, LauncherSays, Launching};
use super::messages::{FromHeir, ToHeir, auxiliary_roles};
use super::unsent::{AllListeners, Handover, Part, Unsent};
use crate::control::{self, Control, Delivery, Received, Role};
use crate::observe::metrics::Reloads;
use crate::supervisor::commands::status::History;
use crate::supervisor::listeners::{Group, Listeners, Purpose};
use crate::supervisor::processes::sizing::PreviousSize;
use crate::supervisor::processes::totals::Account;
use crate::sys::epoll::Epoll;
use crate::sys::process::{Child, ProcessId};
use crate::sys::socket::{self, Listener};

/// The heir, as its predecessor sees it.
pub(crate) struct Heir {
    pub(crate) control: Control,
    child: Child,
    /// The file that was started.
    binary: String,
    /// The number of the upgrade among the changes.
    pub(crate) number: u64,
    pub(crate) state: HeirState,
    /// What it is still to be sent: there was no room yet.
    unsent: Unsent,
    /// The kernel had no memory for a message to or from it, and no event comes when it has.
    pub(crate) is_starved: bool,
}

/// ```text
/// Launching ── executed ─▶ Starting ── ready ─▶ Serves
///     └ can't be, is late      └ is late, or this server stops ─▶ Ending ─▶ ended, or given up
/// ```
/// One that ends by itself while it is starting has no state of its own. One that was not executed has done nothing that
/// its end would have to be waited for.
pub(crate) enum HeirState {
    /// It has until then to be ready. So far it is the launcher, which may have said why it can't execute the binary: its
    /// end follows.
    Launching { until_ms: u64, launching: Launching, last_words: Option<String> },
    /// It has until then to say that it serves. It may have said why it can't: its end follows.
    Starting { until_ms: u64, last_words: Option<String> },
    /// It was killed, for this reason. Until it has ended it may still change what the kernel keeps; one that hasn't by
    /// then hangs in a call to a file system, and makes no other.
    Ending { until_ms: u64, reason: String },
    /// It serves, and this supervisor drains.
    Serves,
}

/// What the predecessor has received of the heir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeirSays {
    /// It serves.
    Ready,
    /// Nothing for now.
    Nothing,
    /// It says no more; its end follows.
    End,
}

/// The supervisor that this one follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: ProcessId,
    pub(crate) has_command_socket: bool,
}

/// What an heir received; nothing where a supervisor has no predecessor.
pub(crate) struct Inheritance {
    pub(crate) from: Option<Predecessor>,
    pub(crate) listeners: Listeners,
    pub(crate) admin_listeners: Listeners,
    pub(crate) history: History,
    pub(crate) lanes: Option<PreviousSize>,
    pub(crate) accounts: Vec<(Role, Account)>,
    pub(crate) reloads: Reloads,
}

impl Heir {
    /// The one that a launcher is about to become: `binary`.
    pub(crate) fn new(launched: Launched, binary: String, number: u64, until_ms: u64) -> Heir {
        let Launched { child, conversation: control, launching } = launched;
        let state = HeirState::Launching { until_ms, launching, last_words: None };
        Heir { control, child, binary, number, state, unsent: Unsent::default(), is_starved: false }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> ProcessId {
        self.child.id()
    }

    /// Kills it. It isn't waited for: on a file system that doesn't answer, the kernel may not end it.
    pub(crate) fn kill(&self) {
        // One that has ended already needs no signal.
        let _ = self.child.kill();
    }

    /// Whether it wasn't executed yet, as far as is known.
    pub(crate) fn is_launching(&self) -> bool {
        matches!(self.state, HeirState::Launching { .. })
    }

    /// Reads what its launcher has said, and says whether it was executed by now.
    pub(crate) fn hear_launcher(&mut self, epoll: &Epoll) -> bool {
        while let HeirState::Launching { until_ms, launching, last_words } = &mut self.state {
            match launching.hear() {
                LauncherSays::Nothing => return false,
                LauncherSays::NotExecuted(reason) => *last_words = Some(reason),
                LauncherSays::End => {
                    // A child that was just forked may still have a copy.
                    let _ = epoll.remove(launching.socket());
                    if last_words.is_some() {
                        return false;
                    }
                    self.state = HeirState::Starting { until_ms: *until_ms, last_words: None };
                }
            }
        }
        true
    }

    /// Whether it was executed, after it has ended.
    pub(crate) fn was_executed(&mut self, epoll: &Epoll) -> bool {
        self.hear_launcher(epoll);
        !self.is_launching()
    }

    /// It is to be sent this, as far as there is room: see [`Heir::flush`].
    pub(crate) fn begin(&mut self, handover: Handover<'_>) {
        self.unsent = Unsent::of(handover);
    }

    /// Sends what there is room for. An event comes when there is more, unless it `is_starved`.
    ///
    /// # Errors
    /// If something can't be sent, now or later.
    pub(crate) fn flush(&mut self, listeners: AllListeners<'_>) -> io::Result<()> {
        match self.unsent.flush(&self.control, listeners) {
            Delivery::Done | Delivery::NoRoom => {}
            Delivery::Exhausted => self.is_starved = true,
            Delivery::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends it this, or keeps it until there is room. False if it is gone, or has taken nothing for long.
    pub(crate) fn tell(&mut self, message: ToHeir) -> bool {
        let Unsent(waiting) = &mut self.unsent;
        if waiting.is_empty() {
            match self.control.send_or_fail(&message, &[]) {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if socket::is_send_exhaustion(&error) => self.is_starved = true,
                Err(_) => return false,
            }
        }
        let has_room = waiting.len() < UNSENT_MAX;
        if has_room {
            waiting.push_back(Part::Message(message));
        }
        has_room
    }

    /// Whether nothing is kept for it: it has taken everything, or is gone.
    pub(crate) fn has_been_told(&self) -> bool {
        self.unsent.0.is_empty()
    }

    /// It takes no more.
    pub(crate) fn hang_up(&mut self) {
        self.unsent = Unsent::default();
    }

    /// Reads what it has sent, and keeps why it can't serve.
    pub(crate) fn hear(&mut self) -> HeirSays {
        loop {
            match self.control.receive() {
                Received::Message(FromHeir::Ready, _) => return HeirSays::Ready,
                Received::Message(FromHeir::Failed(reason), _) => {
                    if let HeirState::Starting { last_words, .. } = &mut self.state {
                        *last_words = Some(reason);
                    }
                }
                Received::Nothing => return HeirSays::Nothing,
                Received::Exhausted => {
                    self.is_starved = true;
                    return HeirSays::Nothing;
                }
                Received::End => return HeirSays::End,
            }
        }
    }

    /// Why it never served, after it has ended with this `cause`: what it was, where it lies, and what it said.
    pub(crate) fn failure(mut self, cause: &str) -> String {
        self.hear();
        let (pid, binary) = (self.pid(), &self.binary);
        match self.state {
            HeirState::Ending { reason, .. } => reason,
            HeirState::Launching { last_words: Some(reason), .. } => cannot_start(&reason),
            HeirState::Starting { last_words: Some(reason), .. } => {
                format!("the new server, pid {pid}, {binary}, could not start: {reason}")
            }
            HeirState::Launching { .. } | HeirState::Starting { .. } | HeirState::Serves => {
                format!(
                    "the new server, pid {pid}, {binary}, {cause} and did not say why; what it wrote to standard error is \
                     where this server's log is"
                )
            }
        }
    }

    /// Wakes the loop no more: a child that was just forked may still have copies of its sockets.
    pub(crate) fn unwatch(&self, epoll: &Epoll) {
        let _ = epoll.remove(self.control.as_fd());
        if let HeirState::Launching { launching, .. } = &self.state {
            let _ = epoll.remove(launching.socket());
        }
    }

    /// When it has taken too long.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        match self.state {
            HeirState::Launching { until_ms, .. }
            | HeirState::Starting { until_ms, .. }
            | HeirState::Ending { until_ms, .. } => Some(until_ms),
            HeirState::Serves => None,
        }
    }

    /// Whether it serves in the place of this one.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.state, HeirState::Serves)
    }
}

/// What an upgrade fails with whose binary can't be started, for this reason.
pub(crate) fn cannot_start(reason: &str) -> String {
    format!("cannot start the binary: {reason}")
}

impl Default for Inheritance {
    fn default() -> Inheritance {
        Inheritance {
            from: None,
            listeners: Listeners::of(Purpose::Serve),
            admin_listeners: Listeners::of(Purpose::Admin),
            history: History::default(),
            lanes: None,
            accounts: Vec::new(),
            reloads: Reloads::default(),
        }
    }
}

impl Inheritance {
    /// Takes over what the process that started this one hands it.
    ///
    /// # Errors
    /// If what comes is not what a supervisor sends.
    pub(crate) fn receive(control: &Control) -> io::Result<Inheritance> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        // Not the parent of this process: the predecessor may have ended by now.
        let pid = socket::peer_pid(control)?;
        let mut from = Predecessor { pid, has_command_socket: false };
        let (mut groups, mut admin) = (Vec::<Group>::new(), Vec::<Group>::new());
        let mut history = History::default();
        let (mut lanes, mut accounts, mut reloads) = (None, Vec::new(), Reloads::default());
        loop {
            match control.receive_within(PATIENCE) {
                Received::Message(ToHeir::Group { files: count, .. }, files)
                    if files.len() < count =>
                {
                    // Connections that wait in those that are missing would be lost with the predecessor.
                    return Err(socket::out_of_files());
                }
                Received::Message(
                    ToHeir::Group { requested, is_activated, is_admin, file, .. },
                    files,
                ) => {
                    let listeners = files.into_iter().map(Listener::from);
                    let groups = if is_admin { &mut admin } else { &mut groups };
                    match groups.iter_mut().find(|group| group.requested == requested) {
                        Some(group) => group.listeners.extend(listeners),
                        None => {
                            groups.push(Group::inherit(requested, is_activated, file, listeners)?);
                        }
                    }
                }
                Received::Message(ToHeir::Happening(happening), _) => {
                    history.0.push_back(*happening);
                }
                Received::Message(ToHeir::Lanes { size, reloads: before, auxiliary }, _) => {
                    (lanes, reloads) = (Some(size), before);
                    accounts.extend(auxiliary_roles(&auxiliary));
                }
                Received::Message(ToHeir::Totals(more), _) => accounts.extend(more),
                Received::Message(ToHeir::HasCommandSocket, _) => from.has_command_socket = true,
                Received::Message(ToHeir::End, _) => break,
                Received::Message(ToHeir::Changes(_) | ToHeir::HandedOver, _) => {
                    return Err(bad("the old supervisor hands over before this one is ready"));
                }
                Received::Nothing | Received::Exhausted => {
                    return Err(bad("the old supervisor is silent"));
                }
                Received::End => return Err(bad("the old supervisor hung up")),
            }
        }
        let listeners = Listeners::inherit(Purpose::Serve, groups);
        let admin_listeners = Listeners::inherit(Purpose::Admin, admin);
        let from = Some(from);
        Ok(Inheritance { from, listeners, admin_listeners, history, lanes, accounts, reloads })
    }
}

/// Most messages that are kept for an heir which serves: what is counted for as many lanes as there can be, and changes.
const UNSENT_MAX: usize = 1_024;
/// How long the next message may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the predecessor may take to answer that it hands over: a turn of its loop.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Says to the predecessor that this supervisor serves, and returns what it answers, up to and with
/// [`ToHeir::HandedOver`]. If it has ended, or is stopped, that is nothing.
pub(crate) fn report_ready(predecessor: &Control) -> Vec<ToHeir> {
    let mut messages = Vec::new();
    if predecessor.send_or_fail(&FromHeir::Ready, &[]).is_err() {
        return messages;
    }
    while let Received::Message(message, _) = predecessor.receive_within(HAND_OVER) {
        let is_last = matches!(message, ToHeir::HandedOver);
        messages.push(message);
        if is_last {
            break;
        }
    }
    messages
}

/// Says to the predecessor, if there is one, why this supervisor can't follow it. If that has ended, the log alone has it.
pub(crate) fn report_failure(predecessor: Option<&Control>, reason: &str) {
    let mut reason = reason.to_owned();
    control::cut(&mut reason);
    if let Some(predecessor) = predecessor {
        let _ = predecessor.send_or_fail(&FromHeir::Failed(reason), &[]);
    }
}

#[cfg(test)]
mod tests;
