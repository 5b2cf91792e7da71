//! The kernel, and the only place where `unsafe` is allowed: thin safe functions over nix, socket2 and libc.
//!
//! Owned descriptors go in and out, `-1` becomes an `io::Error` here and nowhere else, and nothing in
//! here decides anything: no policy, no retry but for `EINTR`.

#![allow(
    unsafe_code,
    reason = "the one layer that speaks to the kernel; tests/tidy.rs keeps it the only one"
)]

#[cfg(feature = "may")]
pub mod coroutine;
pub mod cpu;
pub mod epoll;
pub mod file;
pub mod memory;
pub mod process;
pub mod ring;
pub mod socket;
pub mod wake;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether `fd` takes a write within `patience`. For a pipe that means: one of up to `PIPE_BUF` bytes
/// (pipe(7)), whole and without waiting. A descriptor that can't tell is taken for ready.
pub fn takes_write_within(fd: impl AsFd, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    retry(|| poll(&mut fds, timeout)).map_or(true, |ready| ready > 0)
}

/// Whether `fd` has something to read, an end of stream included, within `patience`.
pub fn has_input_within(fd: impl AsFd, patience: Duration) -> bool {
    let [has_input] = which_have_input_within([fd.as_fd()], patience);
    has_input
}

/// Which of `fds` have something to read, an end of stream included, as soon as one has, or after `patience`.
pub fn which_have_input_within<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    patience: Duration,
) -> [bool; N] {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match retry(|| poll(&mut fds, timeout)) {
        Ok(1..) => fds.map(|fd| fd.any().unwrap_or(true)),
        Ok(_) | Err(_) => [false; N],
    }
}

/// Waits until one of `inputs` has something to read, an end of stream included, `room` takes a write, or `patience` is over,
/// and says which of `inputs` have something.
pub fn wait_within<const N: usize>(
    inputs: [Option<BorrowedFd<'_>>; N],
    room: Option<BorrowedFd<'_>>,
    patience: Duration,
) -> [bool; N] {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let has_input = inputs.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    let has_room = room.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLOUT));
    let mut fds: Vec<PollFd<'_>> = has_input.chain(has_room).collect();
    let is_told = retry(|| poll(&mut fds, timeout)).is_ok_and(|ready| ready > 0);
    let mut told = fds.iter().map(|fd| is_told && fd.any().unwrap_or(true));
    inputs.map(|input| input.is_some() && told.next().unwrap_or(false))
}

/// Turns the `-1` of a libc call into the error that `errno` holds.
fn cvt(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Calls `f` again for as long as a signal interrupts it.
fn retry<T>(mut f: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match f() {
            Err(nix::Error::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
