//! The epoll driver: readiness in, bytes in and out.
//!
//! The contract: a connection is registered once, edge-triggered, for the whole of its life. After an
//! event its owner reads until a read comes back short or would block, and writes until a write does;
//! then, and only then, the next event is sure to come. Listeners and control sockets are level-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::epoll::{Epoll, Events, Interest, Ready};
use crate::sys::socket::{self, Listener};

/// Events taken in one turn: enough to spread the cost of a wait, few enough that time stays current.
const EVENTS_PER_TURN: usize = 512;

/// One event loop's epoll instance.
pub struct Driver {
    epoll: Epoll,
    events: Events,
}

impl Driver {
    /// A driver that watches nothing yet.
    pub fn new() -> io::Result<Driver> {
        Ok(Driver { epoll: Epoll::new()?, events: Events::with_capacity(EVENTS_PER_TURN) })
    }

    /// Watches a connection for the whole of its life.
    pub fn register(&self, socket: &OwnedFd, token: u64) -> io::Result<()> {
        self.epoll.add(socket, token, Interest::Edges)
    }

    /// Watches a control socket while it is readable.
    pub fn watch(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(fd, token, Interest::Readable)
    }

    /// Watches what connections come from while somebody waits in it. Where other loops watch it too, one is told.
    pub fn watch_source(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(source, token, Interest::ReadableByOne)
    }

    /// Stops watching.
    pub fn forget(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.remove(fd)
    }

    /// Waits up to `timeout_ms` (`None`: for ever) and says how many events came.
    pub fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<usize> {
        self.epoll.wait(&mut self.events, timeout_ms)
    }

    /// One event of the last wait.
    ///
    /// # Panics
    /// If `index` is not below the count that [`Driver::wait`] returned.
    pub fn event(&self, index: usize) -> Ready {
        self.events.at(index)
    }
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing is there yet.
    Nothing,
    /// The peer will send no more, or the connection is broken.
    End,
}

/// Reads once.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Received {
    match socket::recv(socket.as_fd(), buffer) {
        Ok(0) => Received::End,
        Ok(count) => Received::Bytes(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
        Err(_) => Received::End,
    }
}

/// What a write came to: how many bytes the kernel took, of all that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many; fewer than offered means that an event will tell of room.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

/// Writes `first`, then `second`, once.
pub fn transmit(socket: &OwnedFd, first: &[u8], second: &[u8]) -> Sent {
    let result = if second.is_empty() {
        socket::send(socket.as_fd(), first)
    } else {
        socket::send_both(socket.as_fd(), first, second)
    };
    match result {
        Ok(count) => Sent::Bytes(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Bytes(0),
        Err(_) => Sent::Broken,
    }
}

/// Says to the peer that no more will be sent.
pub fn finish_sending(socket: &OwnedFd) -> io::Result<()> {
    socket::shutdown_write(socket.as_fd())
}

/// What an accept came to.
pub enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// Nobody waits.
    Nobody,
    /// A failure of that one connection: the next may be fine.
    Transient,
    /// The listener was closed.
    Closed,
    /// Descriptors or memory have run out: trying again at once would spin.
    Exhausted(io::Error),
}

/// Accepts once, with its failures sorted by what to do about them (accept(2), "Error handling").
pub fn accept(listener: &Listener) -> Accepted {
    match listener.accept() {
        Ok(socket) => Accepted::Connection(socket),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
        Err(error) if socket::is_exhaustion(&error) => Accepted::Exhausted(error),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Accepted::Closed,
        Err(_) => Accepted::Transient,
    }
}
