//! One worker process as the supervisor sees it: its pid, the socket over which it is told what to do, and what could not
//! be sent yet. It knows no other process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::control::{Command, Control, Delivery, GenerationNumber, Hosting, Outbox};
use crate::sys::process::Child;
use crate::sys::socket;

pub(super) struct WorkerChild {
    pub(super) child: Child,
    pub(super) control: Control,
    pub(super) outbox: Outbox,
    pub(super) hosting: Hosting,
    pub(super) generation: GenerationNumber,
    /// Why it ends, where that is known before its end.
    pub(super) last_words: Option<String>,
}

impl WorkerChild {
    pub(super) fn new(
        child: Child,
        control: Control,
        hosting: Hosting,
        generation: GenerationNumber,
    ) -> WorkerChild {
        let outbox = Outbox::default();
        WorkerChild { child, control, outbox, hosting, generation, last_words: None }
    }

    /// Sends a command, at once or when there is room: a process with hundreds of lanes is told more at a time than a
    /// socket holds, and it may itself be reporting something.
    pub(super) fn send(&mut self, command: Command, files: &[BorrowedFd<'_>]) -> Delivery {
        let delivery = match self.outbox.is_empty() {
            true => self.control.send(&command, files),
            false => Delivery::NoRoom,
        };
        match delivery {
            Delivery::Done => return Delivery::Done,
            Delivery::NoRoom | Delivery::Exhausted => {}
            Delivery::Failed(error) => return cannot_be_told(&error),
        }
        let copies = files.iter().map(BorrowedFd::try_clone_to_owned);
        match copies.collect::<io::Result<Vec<_>>>() {
            Ok(files) => {
                if !self.outbox.push(command, files) {
                    let pid = self.child.id();
                    tracing::error!(pid, reason = "it does not read its commands", "worker deaf");
                }
                delivery
            }
            Err(error) => {
                Delivery::Failed(io::Error::other(format!("cannot pass sockets: {error}")))
            }
        }
    }

    /// Sends what there was no room for.
    pub(super) fn flush(&mut self) -> Delivery {
        match self.outbox.flush(&self.control) {
            Delivery::Failed(error) => cannot_be_told(&error),
            delivery => delivery,
        }
    }
}

fn cannot_be_told(error: &io::Error) -> Delivery {
    Delivery::Failed(io::Error::other(format!("it can't be told what to do: {error}")))
}

/// The two ends of the way from the acceptor to a lane, in accept mode handoff between processes. What is in it outlives
/// the workers at both ends.
pub(super) struct Conduit {
    /// Where the acceptor puts connections in.
    pub(super) outlet: OwnedFd,
    /// Where the lane's worker takes them out.
    pub(super) intake: OwnedFd,
}

impl Conduit {
    pub(super) fn new() -> io::Result<Conduit> {
        socket::packet_pair().map(|(outlet, intake)| Conduit { outlet, intake })
    }
}
