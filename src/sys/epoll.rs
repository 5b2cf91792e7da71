//! epoll(7): what to watch a descriptor for, and what became of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Readable, reported for as long as it is (level-triggered).
    Readable,
    /// As `Readable`, for a socket that other loops watch too: one of them is told, not all.
    ReadableByOne,
    /// Readable, writable and hang-up, each reported once when it comes (edge-triggered): registered
    /// once for the life of a connection.
    Edges,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Interest::Readable => EpollFlags::EPOLLIN,
            Interest::ReadableByOne => EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE,
            Interest::Edges => {
                EpollFlags::EPOLLIN
                    | EpollFlags::EPOLLOUT
                    | EpollFlags::EPOLLRDHUP
                    | EpollFlags::EPOLLET
            }
        }
    }
}

/// What happened to a descriptor, with the token that it was registered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token given to [`Epoll::add`].
    pub token: u64,
    /// There is something to read, an end of stream included.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer sends nothing more; what it sent before may still have to be read.
    pub read_closed: bool,
    /// The connection failed (a reset, or the peer is unreachable).
    pub broken: bool,
}

impl Ready {
    /// Nothing happened, to begin with.
    pub const fn quiet(token: u64) -> Ready {
        Ready { token, readable: false, writable: false, read_closed: false, broken: false }
    }
}

/// Room for what one wait can return.
pub struct Events(Vec<EpollEvent>);

impl Events {
    /// At most `capacity` events a wait.
    pub fn with_capacity(capacity: usize) -> Events {
        Events(vec![EpollEvent::empty(); capacity])
    }

    /// The event at `index` of the last wait.
    ///
    /// # Panics
    /// If `index` is not below the count that [`Epoll::wait`] returned at most.
    pub fn at(&self, index: usize) -> Ready {
        let event = self.0[index];
        let flags = event.events();
        Ready {
            token: event.data(),
            readable: flags.contains(EpollFlags::EPOLLIN),
            writable: flags.contains(EpollFlags::EPOLLOUT),
            // Without EPOLLERR a hang-up is that both sides were shut in good order.
            read_closed: flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP),
            broken: flags.contains(EpollFlags::EPOLLERR),
        }
    }
}

/// An epoll instance; closed on drop, and on exec.
pub struct Epoll(nix::sys::epoll::Epoll);

impl Epoll {
    /// epoll_create1(2).
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll(nix::sys::epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches `fd`; its events carry `token`. It is forgotten when the last copy of `fd` is closed.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    /// Forgets `fd`. Needed where another process holds a copy, because closing ours is then not enough.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits for events, `timeout_ms` milliseconds at most (`None`: for ever), and says how many came. A
    /// signal ends the wait with none.
    pub fn wait(&self, events: &mut Events, timeout_ms: Option<u64>) -> io::Result<usize> {
        let timeout = timeout_ms.map_or(EpollTimeout::NONE, |ms| {
            EpollTimeout::try_from(ms.min(i32::MAX as u64) as i32).unwrap_or(EpollTimeout::ZERO)
        });
        match self.0.wait(&mut events.0, timeout) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }
}
