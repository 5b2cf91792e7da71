//! A connected socket that stays open until everything is handed over that names it to the kernel.
//!
//! What is queued for io_uring(7) names descriptors by number, and the kernel looks a number up only when it is handed
//! the queue: one that was closed in between may be another file's by then. So whatever is queued leaves the number of
//! its batch with the socket, and a socket that is dropped before the batch is over is closed when it is.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A connected socket, for the thread that made it.
#[derive(Debug)]
pub struct Connected {
    socket: ManuallyDrop<OwnedFd>,
    /// The last batch that names it.
    batch: Cell<u32>,
    /// Batches are counted by thread.
    one_thread: PhantomData<*const ()>,
}

/// What a ring has queued and not handed over: one batch after the other.
pub(in crate::sys) struct Batch {
    number: u32,
    one_thread: PhantomData<*const ()>,
}

/// Of a socket that no batch names.
const NONE: u32 = 0;

/// The batches of this thread.
struct Thread {
    has_ring: Cell<bool>,
    number: Cell<u32>,
    /// What was dropped and is named by the batch that is not over.
    closing: RefCell<Vec<OwnedFd>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A ring that is itself the thread's own may end later, and hands over what it has queued.
        std::mem::forget(self.closing.take());
    }
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            has_ring: Cell::new(false),
            number: Cell::new(NONE),
            closing: RefCell::new(Vec::new()),
        }
    };
}

impl From<OwnedFd> for Connected {
    fn from(socket: OwnedFd) -> Connected {
        let socket = ManuallyDrop::new(socket);
        Connected { socket, batch: Cell::new(NONE), one_thread: PhantomData }
    }
}

impl AsFd for Connected {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // SAFETY: the one place that takes it, and nothing is done with it afterwards.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        let batch = self.batch.get();
        if batch == NONE {
            return;
        }
        let mut socket = Some(socket);
        let told = THREAD.try_with(|thread| {
            if thread.has_ring.get() && thread.number.get() == batch {
                thread.closing.borrow_mut().extend(socket.take());
            }
        });
        if told.is_err() {
            // The thread is at its end, and its ring may still be there.
            std::mem::forget(socket);
        }
    }
}

impl Batch {
    /// The batches of this thread's ring.
    ///
    /// # Errors
    /// If it has one already, since a socket remembers one batch; or if the thread is at its end.
    pub(in crate::sys) fn begin() -> io::Result<Batch> {
        let begun = THREAD.try_with(|thread| {
            if thread.has_ring.replace(true) {
                return Err(io::Error::other("this thread has a ring already"));
            }
            let mut batch = Batch { number: thread.number.get(), one_thread: PhantomData };
            batch.end();
            Ok(batch)
        });
        begun.unwrap_or_else(|_| Err(io::Error::other("this thread is at its end")))
    }

    /// The number of a socket, which stays its own until [`Batch::end`].
    pub(in crate::sys) fn name(&self, socket: &Connected) -> RawFd {
        socket.batch.set(self.number);
        socket.as_fd().as_raw_fd()
    }

    /// All that was queued is handed over, or never will be. The next batch begins.
    pub(in crate::sys) fn end(&mut self) {
        // A number that comes again after so many batches only delays a close.
        self.number = self.number.checked_add(1).unwrap_or(NONE + 1);
        // At the end of its thread there is nothing left to be counted.
        let _ = THREAD.try_with(|thread| {
            thread.number.set(self.number);
            thread.closing.borrow_mut().clear();
        });
    }
}

/// Whether this thread has a ring, one that was leaked included.
pub(in crate::sys) fn has_ring() -> bool {
    THREAD.try_with(|thread| thread.has_ring.get()).unwrap_or(true)
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.end();
        let _ = THREAD.try_with(|thread| thread.has_ring.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A socket, and a peer that doesn't wait.
    fn pair() -> (Connected, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("nonblocking");
        (Connected::from(OwnedFd::from(ours)), theirs)
    }

    fn is_closed(mut peer: &UnixStream) -> bool {
        peer.read(&mut [0]).is_ok_and(|count| count == 0)
    }

    #[test]
    fn a_socket_that_is_dropped_while_a_batch_names_it_is_closed_with_the_batch() {
        let mut batch = Batch::begin().expect("the first");
        let (named, peer) = pair();
        let number = batch.name(&named);
        drop(named);
        assert!(!is_closed(&peer));
        let (other, _other_peer) = pair();
        assert_ne!(other.as_fd().as_raw_fd(), number, "the number is not another one's");
        batch.end();
        assert!(is_closed(&peer));
    }

    #[test]
    fn a_socket_that_no_batch_names_any_more_is_closed_at_once() {
        let mut batch = Batch::begin().expect("the first");
        let ((never, never_peer), (before, before_peer)) = (pair(), pair());
        batch.name(&before);
        batch.end();
        drop((never, before));
        assert!(is_closed(&never_peer) && is_closed(&before_peer));
    }

    #[test]
    fn what_a_ring_leaves_behind_is_closed_with_it() {
        let batch = Batch::begin().expect("the first");
        let ((early, early_peer), (late, late_peer)) = (pair(), pair());
        batch.name(&early);
        batch.name(&late);
        drop(early);
        drop(batch);
        assert!(is_closed(&early_peer));
        drop(late);
        assert!(is_closed(&late_peer));
    }

    #[test]
    fn a_thread_has_one_ring_at_a_time() {
        let first = Batch::begin().expect("the first");
        assert!(Batch::begin().is_err());
        drop(first);
        assert!(Batch::begin().is_ok());
    }
}
