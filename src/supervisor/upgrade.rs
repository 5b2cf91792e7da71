//! Handing every socket over to another supervisor: a new binary in the place of this one, with nobody
//! noticing but the log.
//!
//! ```text
//! old: starts the binary with a socket of this conversation ── sends what it has ──▶
//! new: starts its workers with those sockets; when they are ready ──── Ready ──────▶
//! old: drains, and exits with code 0
//! ```
//!
//! Until `Ready` the old one serves as if nothing were; if the new one ends before, or takes too long, that is
//! all that has happened.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::listeners::{Asked, Group, Listeners};
use super::status::{Happening, History};
use crate::sys::process::{self, Inheritable, ProcessId};
use crate::sys::socket::{self, Listener, PACKET_FILES_MAX};
use crate::worker::control::{Control, Received};

/// The variable that tells a supervisor the number of its end of the conversation.
pub(super) const VARIABLE: &str = "LANEWAY_UPGRADE";

/// How this process was started, which is how another one is.
pub(super) struct Origin {
    binary: PathBuf,
    arguments: Vec<OsString>,
}

/// A supervisor on its way, seen from the old one.
pub(super) struct Heir {
    pub(super) control: Control,
    pub(super) pid: ProcessId,
    /// When it has taken too long.
    pub(super) until_ms: u64,
}

/// What one packet from the old one to the new one holds.
#[derive(Serialize, Deserialize)]
enum Parcel {
    /// Sockets of a group, which come with the packet, in order.
    Group { asked: Asked, is_activated: bool },
    /// Something that happened.
    Happening(Box<Happening>),
    /// That was all.
    End,
}

/// What the new one says.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    /// Its workers serve.
    Ready,
}

/// What the new one got.
pub(super) struct Inheritance {
    pub(super) control: Control,
    pub(super) listeners: Listeners,
    pub(super) history: History,
}

impl Origin {
    /// Looks while the binary is still the one that runs: later, /proc tells of a deleted file.
    pub(super) fn of_this_process() -> io::Result<Origin> {
        let binary = std::env::current_exe()?;
        Ok(Origin { binary, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Starts the binary that lies there now, and hands it everything.
    pub(super) fn start_heir(
        &self,
        listeners: &Listeners,
        history: &History,
        until_ms: u64,
    ) -> io::Result<Heir> {
        let (ours, theirs) = socket::packet_pair()?;
        let theirs = Inheritable::new(theirs)?;
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .env(VARIABLE, theirs.number().to_string())
            // It speaks of the process that it was made for.
            .env_remove("WATCHDOG_PID")
            .spawn()?;
        let pid = child.id() as ProcessId;
        let heir = Heir { control: Control::new(ours), pid, until_ms };
        if let Err(error) = heir.send(listeners, history) {
            process::kill(pid);
            return Err(error);
        }
        Ok(heir)
    }
}

impl Heir {
    fn send(&self, listeners: &Listeners, history: &History) -> io::Result<()> {
        for group in listeners.groups() {
            for listeners in group.listeners.chunks(PACKET_FILES_MAX) {
                let files: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
                let (asked, is_activated) = (group.asked, group.is_activated);
                self.control.command(&Parcel::Group { asked, is_activated }, &files)?;
            }
        }
        for happening in &history.0 {
            self.control.command(&Parcel::Happening(Box::new(happening.clone())), &[])?;
        }
        self.control.command(&Parcel::End, &[])
    }

    /// Whether it has said that it serves.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.control.receive(), Received::Message(Reply::Ready, _))
    }
}

impl Inheritance {
    /// Takes over what the process that started this one hands it, if one does.
    ///
    /// # Errors
    /// If what comes is not what a supervisor sends.
    pub(super) fn receive(variable: Option<&str>) -> io::Result<Option<Inheritance>> {
        let Some(number) = variable else {
            return Ok(None);
        };
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let number = number.parse().map_err(|_| bad("it names no descriptor"))?;
        let control = Control::new(process::inherited(number)?);
        let (mut groups, mut history) = (Vec::<Group>::new(), History::default());
        loop {
            match control.receive_within(PATIENCE) {
                Received::Message(Parcel::Group { asked, is_activated }, files) => {
                    let listeners = files.into_iter().map(Listener::from);
                    match groups.iter_mut().find(|group| group.asked == asked) {
                        Some(group) => group.listeners.extend(listeners),
                        None => groups.push(Group::inherit(asked, is_activated, listeners)?),
                    }
                }
                Received::Message(Parcel::Happening(happening), _) => {
                    history.0.push_back(*happening);
                }
                Received::Message(Parcel::End, _) => break,
                Received::Nothing => return Err(bad("the old supervisor is silent")),
                Received::End => return Err(bad("the old supervisor hung up")),
            }
        }
        Ok(Some(Inheritance { control, listeners: Listeners::inherit(groups), history }))
    }
}

/// How long the next parcel may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
