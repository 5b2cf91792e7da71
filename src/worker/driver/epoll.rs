//! The epoll driver: readiness in, bytes in and out.
//!
//! The contract: a connection is registered once, edge-triggered, for the whole of its life. After an
//! event its owner reads until a read comes back short or would block, and writes until a write does;
//! then, and only then, the next event is sure to come. Listeners and control sockets are level-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Event, INPUT_BYTES};
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::ring::connected::Connected;

/// Events taken in one turn: enough to spread the cost of a wait, few enough that time stays current.
const EVENTS_PER_TURN: usize = 512;

/// One event loop's epoll instance.
pub struct Driver {
    epoll: Epoll,
    events: Events,
    /// Which of the last wait's events come next, and how many there were.
    next: usize,
    count: usize,
    input: Box<[u8]>,
}

impl Driver {
    /// A driver that watches nothing yet.
    pub fn new() -> io::Result<Driver> {
        Ok(Driver {
            epoll: Epoll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            next: 0,
            count: 0,
            input: vec![0; INPUT_BYTES].into(),
        })
    }

    pub(super) fn register(&self, socket: &Connected, token: u64) -> io::Result<()> {
        self.epoll.add(socket, token, Interest::Edges)
    }

    pub(super) fn watch(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(fd, token, Interest::Readable)
    }

    pub(super) fn watch_source(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(source, token, Interest::ReadableByOne)
    }

    pub(super) fn forget(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.remove(fd)
    }

    pub(super) fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<usize> {
        (self.next, self.count) = (0, 0);
        self.count = self.epoll.wait(&mut self.events, timeout_ms)?;
        Ok(self.count)
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        if self.next == self.count {
            return None;
        }
        self.next += 1;
        Some(Event { ready: self.events.at(self.next - 1), buffer: None })
    }

    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.input
    }
}
