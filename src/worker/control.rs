//! What the supervisor and its workers say to each other, one packet a message, as JSON.
//!
//! A packet socket keeps messages whole and ends with the process at the other end, so that silence and
//! death can't be confused. A worker never waits to tell news; it waits only for room to tell of its own
//! beginning and end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::socket::{Patience, receive_packet, send_packet};

/// From the supervisor to a worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Start a worker for this lane of the process, in place of the one that ended.
    Start(usize),
    /// Every worker of the process finishes what is in flight, takes nothing new, and ends.
    Drain,
}

/// From a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub lane: usize,
    /// What.
    pub news: News,
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// It serves.
    Ready,
    /// It ended because something it can't do without failed.
    Failed(String),
    /// It ended by a panic.
    Panicked(String),
    /// A request ended by a panic; its connection was closed, the worker goes on.
    RequestPanicked(String),
    /// It stopped accepting because descriptors or memory ran out.
    AcceptPaused(String),
    /// It accepts again.
    AcceptResumed,
}

impl News {
    /// Whether the supervisor must not miss it.
    fn is_vital(&self) -> bool {
        matches!(self, News::Ready | News::Failed(_) | News::Panicked(_))
    }
}

/// Longest text in a message, in bytes; the rest is cut.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest packet: such a text with every byte escaped, and the frame.
const PACKET_BYTES_MAX: usize = 8 * TEXT_BYTES_MAX;

/// One end of the conversation.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// What a receive came to.
#[derive(Debug)]
pub enum Received<M> {
    /// A message.
    Message(M),
    /// None is there yet.
    Nothing,
    /// The other end is gone.
    End,
}

impl Control {
    /// Takes over one end of a packet socket pair.
    pub fn new(socket: OwnedFd) -> Control {
        Control(socket)
    }

    /// The descriptor, for the one handler that may only use a number.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Tells the supervisor. If it is gone there is nobody to tell, and the end of the stream will say so.
    pub fn report(&self, lane: usize, mut news: News) {
        use News::{AcceptPaused, Failed, Panicked, RequestPanicked};
        if let Failed(text) | Panicked(text) | RequestPanicked(text) | AcceptPaused(text) =
            &mut news
        {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        let patience = if news.is_vital() { Patience::Wait } else { Patience::DontWait };
        let _ = self.send(&Report { lane, news }, patience);
    }

    /// Tells a worker process; fails if it is gone.
    pub fn command(&self, command: &Command) -> io::Result<()> {
        self.send(command, Patience::DontWait)
    }

    fn send(&self, message: &impl Serialize, patience: Patience) -> io::Result<()> {
        send_packet(self.0.as_fd(), &serde_json::to_vec(message)?, patience)
    }

    /// The next message, without waiting. One that can't be understood is the end of the conversation.
    pub fn receive<M: DeserializeOwned>(&self) -> Received<M> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        match receive_packet(self.0.as_fd(), &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Ok(0) | Err(_) => Received::End,
            Ok(length) => {
                serde_json::from_slice(&buffer[..length]).map_or(Received::End, Received::Message)
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
