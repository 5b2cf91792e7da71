//! What came of an operation of the ring, and what became possible by it: errno and the bits of poll(2) end here.

use super::buffers::Buffer;
use crate::sys::epoll::Ready;

/// What can go on until it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Operation {
    /// [`Ring::receive`](super::Ring::receive)
    Receive = 3,
    /// [`Ring::poll`](super::Ring::poll)
    Poll = 4,
}

/// What came of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Of which.
    pub operation: Operation,
    /// As given to it.
    pub token: u64,
    /// How many bytes were received, or what a poll found (poll(2)); below 0, an errno.
    pub result: i32,
    /// Whether more will come of it.
    pub more: bool,
    /// Where the bytes are.
    pub buffer: Option<Buffer>,
}

impl Completion {
    /// What became possible: of a receive by its bytes, which may still be in the socket where there was no buffer for
    /// them, of a poll by what it found (poll(2)).
    pub fn ready(&self) -> Ready {
        let quiet = Ready::quiet(self.token);
        let result = self.result;
        match self.operation {
            Operation::Receive => {
                let is_unread = result == -libc::ENOBUFS;
                let is_over = !(result > 0 || is_unread || result == -libc::ECANCELED);
                let readable = result > 0 || is_unread;
                Ready { readable, read_closed: is_over, broken: is_over && result < 0, ..quiet }
            }
            Operation::Poll => {
                let has = |events: i16| result > 0 && result & i32::from(events) != 0;
                Ready {
                    readable: has(libc::POLLIN),
                    writable: has(libc::POLLOUT),
                    read_closed: has(libc::POLLRDHUP | libc::POLLHUP),
                    broken: has(libc::POLLERR),
                    ..quiet
                }
            }
        }
    }
}
