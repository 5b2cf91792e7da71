//! What passes between a supervisor and its heir, which takes over every socket. What is done about it is for the event
//! loop.
//!
//! ```text
//! predecessor: starts the binary with a socket of this conversation ── sends what it has ──▶
//! heir:        starts its workers with those sockets; when they are ready ──── Ready ──────▶
//!              or can't, and says why ── Failed ───────────────────────────────────────────▶
//! predecessor: drains; sends the changes that waited ── HandedOver ────────────────────────▶
//! heir:        from here on what the kernel keeps for the sockets is its own to change
//! predecessor: passes on what it is still asked for, and counts ── Changes, Totals ────────▶
//! predecessor: exits with code 0, which is the end of the conversation
//! ```
//!
//! Until `Ready` the predecessor serves as before; if the heir ends before, or takes too long, that is
//! all that has happened.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::control::{self, Control, Received, Role};
use crate::supervisor::commands::status::{Happening, History};
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::listeners::{Group, Listeners, RequestedAddress};
use crate::supervisor::processes::sizing::PreviousSize;
use crate::supervisor::processes::totals::Totals;
use crate::sys::process::{self, Inheritable, ProcessId};
use crate::sys::socket::{self, Listener, PACKET_FILES_MAX};

/// The variable that tells an heir the number of its end of the conversation.
pub(crate) const VARIABLE: &str = "LANEWAY_UPGRADE";

/// The heir, as its predecessor sees it.
pub(crate) struct Heir {
    pub(crate) control: Control,
    pub(crate) pid: ProcessId,
    /// The file that was started.
    binary: String,
    /// The number of the upgrade among the changes.
    pub(crate) number: u64,
    pub(crate) state: HeirState,
}

/// ```text
/// Starting ── ready ─▶ Serves
///     └ is late, or this server stops ─▶ Ending ─▶ ended
/// ```
/// One that ends by itself while it is starting has no state of its own.
#[derive(Debug)]
pub(crate) enum HeirState {
    /// It has until then to say that it serves. It may have said why it can't: its end follows.
    Starting { until_ms: u64, last_words: Option<String> },
    /// It was killed, for this reason. Until it has ended it may still change what the kernel keeps.
    Ending { reason: String },
    /// It serves, and this supervisor drains.
    Serves,
}

/// What one packet from the predecessor to the heir holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHeir {
    /// Sockets of a group, which come with the packet, in order.
    Group {
        #[serde(rename = "asked")]
        requested: RequestedAddress,
        is_activated: bool,
        /// How many; fewer arrive where the heir may not open as many (unix(7)).
        #[serde(default)]
        files: usize,
    },
    /// Something that happened.
    Happening(Box<Happening>),
    /// How the lanes came to be that there are.
    Lanes(PreviousSize),
    /// What was counted so far, by the predecessor and those before it. Comes again, with what it counts while it drains.
    Totals(Vec<(Role, Totals)>),
    /// The predecessor has a command socket.
    HasCommandSocket,
    /// That is all that the heir needs to start.
    End,
    /// Changes that the predecessor was asked for, and that are the heir's to make.
    Changes(Vec<Change>),
    /// The predecessor drains.
    HandedOver,
}

/// What one packet from the heir to the predecessor holds.
#[derive(Serialize, Deserialize)]
pub(crate) enum FromHeir {
    /// Its workers serve.
    Ready,
    /// It can't be, and why.
    Failed(String),
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
#[derive(Default)]
pub(crate) struct Inheritance {
    pub(crate) from: Option<Predecessor>,
    pub(crate) listeners: Listeners,
    pub(crate) history: History,
    pub(crate) lanes: Option<PreviousSize>,
    pub(crate) totals: Vec<(Role, Totals)>,
}

/// What an heir is sent before it starts.
pub(crate) struct Handover<'s> {
    pub(crate) listeners: &'s Listeners,
    pub(crate) history: &'s History,
    pub(crate) lanes: Option<PreviousSize>,
    pub(crate) totals: BTreeMap<Role, Totals>,
    pub(crate) has_command_socket: bool,
}

/// Most lanes whose totals one message holds.
const TOTALS_MAX: usize = 128;

/// What was counted, in as many messages as it takes.
pub(crate) fn totals_messages(totals: BTreeMap<Role, Totals>) -> Vec<ToHeir> {
    let totals: Vec<_> = totals.into_iter().collect();
    totals.chunks(TOTALS_MAX).map(|totals| ToHeir::Totals(totals.to_vec())).collect()
}

impl Heir {
    /// Starts the binary of `origin` as it is now, and hands it everything.
    pub(crate) fn start(
        origin: &Origin,
        handover: Handover<'_>,
        number: u64,
        until_ms: u64,
    ) -> io::Result<Heir> {
        let (ours, theirs) = socket::packet_pair()?;
        let theirs = Inheritable::new(theirs)?;
        let child = origin
            .command()?
            .env(VARIABLE, theirs.number().to_string())
            // It speaks of the process that it was made for.
            .env_remove("WATCHDOG_PID")
            .spawn()?;
        let pid = child.id() as ProcessId;
        let state = HeirState::Starting { until_ms, last_words: None };
        let (control, binary) = (Control::new(ours), origin.binary());
        let heir = Heir { control, pid, binary, number, state };
        if let Err(error) = heir.send(handover) {
            process::kill(pid);
            return Err(error);
        }
        Ok(heir)
    }

    fn send(&self, handover: Handover<'_>) -> io::Result<()> {
        let Handover { listeners, history, lanes, totals, has_command_socket } = handover;
        for group in listeners.groups() {
            for listeners in group.listeners.chunks(PACKET_FILES_MAX) {
                let files: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
                let (requested, is_activated) = (group.requested, group.is_activated);
                let message = ToHeir::Group { requested, is_activated, files: files.len() };
                self.control.send_or_fail(&message, &files)?;
            }
        }
        for happening in &history.0 {
            self.control.send_or_fail(&ToHeir::Happening(Box::new(happening.clone())), &[])?;
        }
        for message in lanes.map(ToHeir::Lanes).into_iter().chain(totals_messages(totals)) {
            self.control.send_or_fail(&message, &[])?;
        }
        if has_command_socket {
            self.control.send_or_fail(&ToHeir::HasCommandSocket, &[])?;
        }
        self.control.send_or_fail(&ToHeir::End, &[])
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
                Received::Nothing | Received::Exhausted => return HeirSays::Nothing,
                Received::End => return HeirSays::End,
            }
        }
    }

    /// Why it never served, after it has ended with this `cause`: what it was, where it lies, and what it said.
    pub(crate) fn failure(mut self, cause: &str) -> String {
        self.hear();
        let (pid, binary) = (self.pid, &self.binary);
        match self.state {
            HeirState::Ending { reason } => reason,
            HeirState::Starting { last_words: Some(reason), .. } => {
                format!("the new server, pid {pid}, {binary}, could not start: {reason}")
            }
            HeirState::Starting { .. } | HeirState::Serves => format!(
                "the new server, pid {pid}, {binary}, {cause} and did not say why; what it wrote to standard error is \
                 where this server's log is"
            ),
        }
    }

    /// When it has taken too long.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        match self.state {
            HeirState::Starting { until_ms, .. } => Some(until_ms),
            HeirState::Ending { .. } | HeirState::Serves => None,
        }
    }

    /// Whether it serves in the place of this one.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.state, HeirState::Serves)
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
        let (mut groups, mut history) = (Vec::<Group>::new(), History::default());
        let (mut lanes, mut totals) = (None, Vec::new());
        loop {
            match control.receive_within(PATIENCE) {
                Received::Message(ToHeir::Group { files: count, .. }, files)
                    if files.len() < count =>
                {
                    // Connections that wait in those that are missing would be lost with the predecessor.
                    return Err(socket::out_of_files());
                }
                Received::Message(ToHeir::Group { requested, is_activated, files: _ }, files) => {
                    let listeners = files.into_iter().map(Listener::from);
                    match groups.iter_mut().find(|group| group.requested == requested) {
                        Some(group) => group.listeners.extend(listeners),
                        None => groups.push(Group::inherit(requested, is_activated, listeners)?),
                    }
                }
                Received::Message(ToHeir::Happening(happening), _) => {
                    history.0.push_back(*happening);
                }
                Received::Message(ToHeir::Lanes(before), _) => lanes = Some(before),
                Received::Message(ToHeir::Totals(more), _) => totals.extend(more),
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
        let listeners = Listeners::inherit(groups);
        Ok(Inheritance { from: Some(from), listeners, history, lanes, totals })
    }
}

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
