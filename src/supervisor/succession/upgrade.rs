//! Handing every socket over to another supervisor: a new binary in the place of this one, with nobody
//! noticing but the log.
//!
//! ```text
//! old: starts the binary with a socket of this conversation ── sends what it has ──▶
//! new: starts its workers with those sockets; when they are ready ──── Ready ──────▶
//!      or can't, and says why ── Failed ───────────────────────────────────────────▶
//! old: drains; sends the changes that waited ── HandedOver ────────────────────────▶
//! new: from here on what the kernel keeps for the sockets is its own to change
//! old: passes on what it is still asked for, and counts ── Changes, Totals ─────────▶
//! old: exits with code 0, which is the end of the conversation
//! ```
//!
//! Until `Ready` the old one serves as if nothing were; if the new one ends before, or takes too long, that is
//! all that has happened. What is said is here, what is done about it in `succession`.

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
use crate::supervisor::processes::sizing::Before;
use crate::supervisor::processes::totals::Totals;
use crate::sys::process::{self, Inheritable, ProcessId};
use crate::sys::socket::{self, Listener, PACKET_FILES_MAX};

/// The variable that tells a supervisor the number of its end of the conversation.
pub(crate) const VARIABLE: &str = "LANEWAY_UPGRADE";

/// A supervisor on its way, seen from the old one.
pub(crate) struct Heir {
    pub(crate) control: Control,
    pub(crate) pid: ProcessId,
    /// What was started.
    binary: String,
    /// The number of the change that it is.
    pub(crate) number: u64,
    pub(crate) state: HeirState,
}

/// ```text
/// Starting ── ready ─▶ Serves
///     └ is late, or this server stops ─▶ Ending ─▶ gone
/// ```
/// One that ends by itself while it is starting is gone at once.
#[derive(Debug)]
pub(crate) enum HeirState {
    /// It has until then to say that it serves. It may have said why it can't: its end follows.
    Starting { until_ms: u64, last_words: Option<String> },
    /// It was killed, for this reason. Until it has ended it may still change what the kernel keeps.
    Ending { reason: String },
    /// It serves, and this supervisor drains.
    Serves,
}

/// What one packet from the old one to the new one holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Parcel {
    /// Sockets of a group, which come with the packet, in order.
    Group {
        #[serde(rename = "asked")]
        requested: RequestedAddress,
        is_activated: bool,
        /// How many; fewer arrive where the new one may not open as many (unix(7)).
        #[serde(default)]
        files: usize,
    },
    /// Something that happened.
    Happening(Box<Happening>),
    /// How the lanes came to be that there are.
    Lanes(Before),
    /// What was counted so far, by the old one and those before it. Comes again, with what it counts while it drains.
    Totals(Vec<(Role, Totals)>),
    /// The old one has a command socket.
    HasCommandSocket,
    /// That is all that the new one needs to start.
    End,
    /// Changes that the old one was asked for, and that are the new one's to make.
    Changes(Vec<Change>),
    /// The old one drains.
    HandedOver,
}

/// What the new one says.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Its workers serve.
    Ready,
    /// It can't be, and why.
    Failed(String),
}

/// What the old one hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The new one serves.
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

/// What the new one got; nothing where it follows none.
#[derive(Default)]
pub(crate) struct Inheritance {
    pub(crate) from: Option<Predecessor>,
    pub(crate) listeners: Listeners,
    pub(crate) history: History,
    pub(crate) lanes: Option<Before>,
    pub(crate) totals: Vec<(Role, Totals)>,
}

/// What the new one is told before it starts.
pub(crate) struct Estate<'s> {
    pub(crate) listeners: &'s Listeners,
    pub(crate) history: &'s History,
    pub(crate) lanes: Option<Before>,
    pub(crate) totals: BTreeMap<Role, Totals>,
    pub(crate) has_command_socket: bool,
}

/// Most lanes whose totals one parcel holds.
const TOTALS_MAX: usize = 128;

/// What was counted, in as many parcels as it takes.
pub(crate) fn parcels(totals: BTreeMap<Role, Totals>) -> Vec<Parcel> {
    let totals: Vec<_> = totals.into_iter().collect();
    totals.chunks(TOTALS_MAX).map(|totals| Parcel::Totals(totals.to_vec())).collect()
}

impl Heir {
    /// Starts the binary of `origin` as it is now, and hands it everything.
    pub(crate) fn start(
        origin: &Origin,
        estate: Estate<'_>,
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
        if let Err(error) = heir.send(estate) {
            process::kill(pid);
            return Err(error);
        }
        Ok(heir)
    }

    fn send(&self, estate: Estate<'_>) -> io::Result<()> {
        let Estate { listeners, history, lanes, totals, has_command_socket } = estate;
        for group in listeners.groups() {
            for listeners in group.listeners.chunks(PACKET_FILES_MAX) {
                let files: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
                let (requested, is_activated) = (group.requested, group.is_activated);
                let parcel = Parcel::Group { requested, is_activated, files: files.len() };
                self.control.send_or_fail(&parcel, &files)?;
            }
        }
        for happening in &history.0 {
            self.control.send_or_fail(&Parcel::Happening(Box::new(happening.clone())), &[])?;
        }
        for parcel in lanes.map(Parcel::Lanes).into_iter().chain(parcels(totals)) {
            self.control.send_or_fail(&parcel, &[])?;
        }
        if has_command_socket {
            self.control.send_or_fail(&Parcel::HasCommandSocket, &[])?;
        }
        self.control.send_or_fail(&Parcel::End, &[])
    }

    /// Hears what it says, and keeps why it can't be.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            match self.control.receive() {
                Received::Message(Reply::Ready, _) => return Heard::Ready,
                Received::Message(Reply::Failed(reason), _) => {
                    if let HeirState::Starting { last_words, .. } = &mut self.state {
                        *last_words = Some(reason);
                    }
                }
                Received::Nothing | Received::Exhausted => return Heard::Nothing,
                Received::End => return Heard::End,
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
        // Not the parent of this process: the old one may have ended by now.
        let pid = socket::peer_pid(control)?;
        let mut from = Predecessor { pid, has_command_socket: false };
        let (mut groups, mut history) = (Vec::<Group>::new(), History::default());
        let (mut lanes, mut totals) = (None, Vec::new());
        loop {
            match control.receive_within(PATIENCE) {
                Received::Message(Parcel::Group { files: count, .. }, files)
                    if files.len() < count =>
                {
                    // Clients that wait in those that are missing would be lost with the old one.
                    return Err(socket::out_of_files());
                }
                Received::Message(Parcel::Group { requested, is_activated, files: _ }, files) => {
                    let listeners = files.into_iter().map(Listener::from);
                    match groups.iter_mut().find(|group| group.requested == requested) {
                        Some(group) => group.listeners.extend(listeners),
                        None => groups.push(Group::inherit(requested, is_activated, listeners)?),
                    }
                }
                Received::Message(Parcel::Happening(happening), _) => {
                    history.0.push_back(*happening);
                }
                Received::Message(Parcel::Lanes(before), _) => lanes = Some(before),
                Received::Message(Parcel::Totals(more), _) => totals.extend(more),
                Received::Message(Parcel::HasCommandSocket, _) => from.has_command_socket = true,
                Received::Message(Parcel::End, _) => break,
                Received::Message(Parcel::Changes(_) | Parcel::HandedOver, _) => {
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

/// How long the next parcel may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the old one may take to answer that it hands over: a turn of its loop.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Says to the old supervisor that this one serves, and hears what it says to that, up to and with
/// [`Parcel::HandedOver`]. If it is gone, or stopped, there is nothing more to hear.
pub(crate) fn tell_ready(predecessor: &Control) -> Vec<Parcel> {
    let mut parcels = Vec::new();
    if predecessor.send_or_fail(&Reply::Ready, &[]).is_err() {
        return parcels;
    }
    while let Received::Message(parcel, _) = predecessor.receive_within(HAND_OVER) {
        let is_last = matches!(parcel, Parcel::HandedOver);
        parcels.push(parcel);
        if is_last {
            break;
        }
    }
    parcels
}

/// Says to the old supervisor, if there is one, why this one can't follow it. If that is gone, the log alone has it.
pub(crate) fn tell_failure(predecessor: Option<&Control>, reason: &str) {
    let mut reason = reason.to_owned();
    control::cut(&mut reason);
    if let Some(predecessor) = predecessor {
        let _ = predecessor.send_or_fail(&Reply::Failed(reason), &[]);
    }
}
