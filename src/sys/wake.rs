//! eventfd(2): a descriptor that is readable from a call of `notify` to the next `reset`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes a thread that waits in epoll.
pub struct Wake(EventFd);

impl Wake {
    /// One that is not readable.
    pub fn new() -> io::Result<Wake> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Wake(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes it readable.
    pub fn notify(&self) {
        // The one possible failure is a counter that is full: then it is readable.
        let _ = self.0.write(1);
    }

    /// Makes it unreadable, and says whether it was readable.
    pub fn reset(&self) -> io::Result<bool> {
        match self.0.read() {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
