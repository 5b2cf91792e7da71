//! The io_uring driver: one system call hands over what a turn sends and waits for what the next one reads.
//!
//! A connection has one receive, which goes on until the stream ends; the kernel puts what comes into the ring's
//! buffers. While one can't take more, or takes much, its receive is cancelled; then it is polled, and read as with
//! epoll. Small responses wait for the end of the turn, all others are sent at once. Listeners and control sockets are
//! polled, once at a time.

use std::io;
use std::os::fd::BorrowedFd;

use super::token::{self, Token, index_of};
use super::{Event, INPUT_BYTES, Input, Interest, Payload, Sent, transmit};
use crate::sys::epoll::Ready;
use crate::sys::ring::buffers::Buffer;
use crate::sys::ring::connected::Connected;
use crate::sys::ring::{Completion, Operation, Poll, Ring, Unsent, Wanted};

/// Most calls after which a poll that was cancelled is over.
const FORGET_CALLS_MAX: usize = 1_000;

/// One event loop's ring.
pub struct Driver {
    ring: Ring,
    /// What goes on with each connection, by the index of its place.
    links: Vec<Link>,
    watched: Vec<Watched>,
    /// How many polls of those there have been.
    polls: u64,
    input: Box<[u8]>,
}

/// What goes on with a connection.
struct Link {
    token: u64,
    /// The call to the kernel with which something leaves that names its socket.
    call: u64,
    /// Whether a receive goes on. Until it has completed, nothing else may read the socket.
    receive: Progress,
    poll: Progress,
    polled_for: Wanted,
    /// Nothing will come any more.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Idle,
    Going,
    /// Cancelled; its completion will come.
    Ending,
}

/// A descriptor of which events come for as long as it is readable.
struct Watched {
    token: Token,
    wanted: Wanted,
    /// The number of the poll that goes on. What comes of one that was cancelled is not taken for the next one's.
    poll: Option<u64>,
}

impl Driver {
    /// A driver that watches nothing yet.
    ///
    /// # Errors
    /// The kernel is older than 6.1, or io_uring is forbidden (`kernel.io_uring_disabled`, a seccomp filter).
    pub fn new() -> io::Result<Driver> {
        Ok(Driver {
            ring: Ring::new()?,
            links: Vec::new(),
            watched: Vec::new(),
            polls: 0,
            input: vec![0; INPUT_BYTES].into(),
        })
    }

    pub(super) fn register(&mut self, socket: &Connected, token: u64) {
        let index = index_of(token);
        if index >= self.links.len() {
            self.links.resize_with(index + 1, Link::unused);
        }
        self.links[index] = Link { token, ..Link::unused() };
        self.adjust(socket, token, Interest::Input);
    }

    pub(super) fn adjust(&mut self, socket: &Connected, token: u64, interest: Interest) {
        let link = &mut self.links[index_of(token)];
        let receives = matches!(interest, Interest::Input | Interest::RoomOrInput) && !link.ended;
        match link.receive {
            Progress::Idle if receives => {
                link.receive = Progress::Going;
                self.ring.receive(socket, token);
                link.call = self.ring.next_call();
            }
            Progress::Going if !receives => {
                link.receive = Progress::Ending;
                self.ring.cancel(Operation::Receive, token);
            }
            _ => {}
        }
        let polls = match interest {
            Interest::Room | Interest::RoomOrInput => Some(Wanted::Writable),
            Interest::BulkInput if link.receive == Progress::Idle => Some(Wanted::Readable),
            _ => None,
        };
        match (link.poll, polls) {
            (Progress::Idle, Some(wanted)) => {
                (link.poll, link.polled_for) = (Progress::Going, wanted);
                self.ring.poll(socket, wanted, token);
                link.call = self.ring.next_call();
            }
            (Progress::Going, wanted) if wanted != Some(link.polled_for) => {
                link.poll = Progress::Ending;
                self.ring.cancel(Operation::Poll, token);
            }
            _ => {}
        }
    }

    pub(super) fn release(&mut self, token: u64) {
        let link = std::mem::replace(&mut self.links[index_of(token)], Link::unused());
        // What goes on keeps the socket open.
        if link.receive == Progress::Going {
            self.ring.cancel(Operation::Receive, token);
        }
        if link.poll == Progress::Going {
            self.ring.cancel(Operation::Poll, token);
        }
    }

    pub(super) fn watch(&mut self, token: Token, wanted: Wanted) {
        self.watched.push(Watched { token, wanted, poll: None });
    }

    pub(super) fn watch_source(&mut self, token: Token, is_shared: bool) {
        // A poll by one takes a wake-up for itself even while its loop hangs, so that no event would come to a sibling
        // that adopts its sockets. Only where all watch the same, all the time, is it worth that.
        let wanted = if is_shared { Wanted::ReadableByOne } else { Wanted::Readable };
        self.watch(token, wanted);
    }

    pub(super) fn forget(&mut self, token: Token) {
        let Some(at) = self.watched.iter().position(|watched| watched.token == token) else {
            return;
        };
        if let Some(poll) = self.watched.swap_remove(at).poll {
            // At once: until then it keeps a socket open that other processes may take for closed, and takes
            // wake-ups. One call completes some twenty operations at most.
            self.ring.cancel(Operation::Poll, poll);
            for _ in 0..FORGET_CALLS_MAX {
                self.ring.submit();
                if self.ring.has_completed(Operation::Poll, poll) {
                    break;
                }
            }
        }
    }

    pub(super) fn wait<'f>(
        &mut self,
        timeout_ms: Option<u64>,
        fd_of: impl Fn(Token) -> Option<BorrowedFd<'f>>,
    ) -> io::Result<usize> {
        let Driver { ring, watched, polls, .. } = self;
        let unpolled = watched.iter_mut().filter(|watched| watched.poll.is_none());
        let begun = unpolled.filter_map(|watched| {
            let fd = fd_of(watched.token)?;
            *polls += 1;
            let token = token::of_poll(*polls);
            watched.poll = Some(token);
            Some(Poll { fd, wanted: watched.wanted, token })
        });
        ring.wait(begun, timeout_ms)?;
        Ok(self.ring.completions())
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        while let Some(completion) = self.ring.next_completion() {
            if let Some(ready) = self.note(&completion) {
                return Some(Event { ready, buffer: completion.buffer });
            }
            // It is of something that is gone.
            completion.buffer.into_iter().for_each(|buffer| self.ring.give_back(buffer));
        }
        None
    }

    /// The event that a completion is, if what it is of is still there.
    fn note(&mut self, completion: &Completion) -> Option<Ready> {
        let Completion { operation, token, more, .. } = *completion;
        let link = self.links.get_mut(index_of(token)).filter(|link| link.token == token);
        match (operation, link) {
            (Operation::Receive, Some(link)) => {
                if !more {
                    link.receive = Progress::Idle;
                }
                let ready = completion.ready();
                link.ended = ready.read_closed;
                Some(ready)
            }
            (Operation::Poll, Some(link)) => {
                link.poll = Progress::Idle;
                Some(completion.ready())
            }
            (Operation::Poll, None) => {
                let mut watched = self.watched.iter_mut();
                let watched = watched.find(|watched| watched.poll == Some(token))?;
                watched.poll = None;
                Some(Ready { readable: true, ..Ready::quiet(watched.token.to_bits()) })
            }
            (Operation::Receive, None) => None,
        }
    }

    pub(super) fn input(&mut self, token: u64, buffer: Option<&Buffer>) -> Input<'_> {
        let link = self.links.get(index_of(token)).filter(|link| link.token == token);
        let is_ours = link.is_some_and(|link| link.receive == Progress::Idle);
        let brought = buffer.map(|buffer| self.ring.bytes(buffer));
        if link.is_some_and(|link| link.ended) {
            return Input::last(brought);
        }
        Input::new(brought, is_ours.then_some(&mut *self.input))
    }

    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.ring.give_back(buffer);
    }

    pub(super) fn send(&mut self, socket: &Connected, token: u64, bytes: &[u8]) -> Sent {
        if !self.ring.send(socket, token, bytes) {
            return transmit(socket, bytes, Payload::Bytes(&[]));
        }
        self.links[index_of(token)].call = self.ring.next_call();
        Sent::Bytes(bytes.len())
    }

    pub(super) fn settle(&mut self, token: u64) {
        let link = self.links.get(index_of(token)).filter(|link| link.token == token);
        if link.is_some_and(|link| link.call == self.ring.next_call()) {
            self.ring.submit();
        }
    }

    pub(super) fn next_unsent(&mut self) -> Option<Unsent> {
        self.ring.next_unsent()
    }
}

impl Link {
    fn unused() -> Link {
        Link {
            token: u64::MAX,
            call: u64::MAX,
            receive: Progress::Idle,
            poll: Progress::Idle,
            polled_for: Wanted::Readable,
            ended: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::worker::driver::token::Key;

    #[test]
    fn what_comes_finds_a_buffer_however_much_came_before_as_each_is_given_back() {
        // The kernel may be too old for it, or forbid it.
        let Ok(mut driver) = Driver::new() else { return };
        let (mut client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("nonblocking");
        let socket = Connected::from(OwnedFd::from(server));
        let token = Key { index: 0, generation: 0 }.to_token();
        driver.register(&socket, token);
        for round in 0..1_000 {
            client.write_all(b"x").expect("room");
            let mut event = None;
            while event.is_none() {
                driver.wait(None, |_| None).expect("a wait");
                event = driver.next_event();
            }
            let buffer = event.and_then(|event| event.buffer);
            let buffer = buffer.unwrap_or_else(|| panic!("none in round {round}"));
            assert_eq!(driver.ring.bytes(&buffer), b"x");
            driver.give_back(buffer);
        }
        driver.release(token);
    }
}
