//! io_uring(7): a queue of operations that one system call hands to the kernel, and of what came of them.
//!
//! All addresses that the kernel is given are kept in here: of the [`Buffers`] that it receives into, and
//! of the copies it sends from. A send never waits, so its copy is free again when the call returns. All descriptors
//! that it is given stay open until it has looked them up: [`Connected`], [`Poll`].
//!
//! A call to the kernel is over when everything has been handed over and everything collected that came of it, what the
//! completion queue had no room for included. A ring that fails a call, or is told what doesn't fit what it did, is
//! never called again: every [`Ring::wait`] from then on is an error.

pub mod buffers;
mod completion;
pub mod connected;

pub use completion::{Completion, Operation};

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use buffers::{Buffer, Buffers};
use connected::{Batch, Connected};

/// Operations that are queued between two calls; when there are more, a call is made in between.
const SUBMISSIONS: u32 = 256;
/// Room for what came of them. The kernel keeps what doesn't fit, and ends the receives it was of.
const COMPLETIONS: u32 = 4096;
/// Buffers to receive into: a power of two. All of them may come to be one socket's, within one call; where many have
/// something to read, a call completes about twenty receives since Linux 6.13.
const BUFFERS: usize = 64;
/// The size of each: most requests fit.
const BUFFER_BYTES: usize = 4096;
/// Room for copies of what is sent in one call.
const OUTPUT_BYTES: usize = 64 * 1024;
/// The most that is sent at once.
const SEND_BYTES_MAX: usize = OUTPUT_BYTES / 4;
const BUFFER_GROUP: u16 = 0;

/// What an operation is stands in the upper bits of its user data, a token or a number in the lower ones.
const TOKEN_BITS: u32 = 60;
/// The largest token of an operation.
pub const TOKEN_MAX: u64 = (1 << TOKEN_BITS) - 1;
const SEND: u64 = 1;
const CANCEL: u64 = 2;
/// Of a send, these bits are its index among the sends of its call, and those above them the call's number.
const SEND_INDEX_BITS: u32 = 16;
const _: () = assert!(SUBMISSIONS <= 1 << SEND_INDEX_BITS);

/// io_uring_enter(2): run what completions wait for.
const ENTER_GETEVENTS: u32 = 1;
/// An argument with a timeout comes along.
const ENTER_EXT_ARG: u32 = 1 << 3;
/// Waiting for clients is no wait for a disk, as which it would be shown. Since Linux 6.15.
const ENTER_NO_IOWAIT: u32 = 1 << 7;

/// A ring, for the thread that made it.
pub struct Ring {
    ring: IoUring,
    enter_flags: u32,
    buffers: Buffers,
    /// Copies of what the queued sends send.
    output: Box<[u8]>,
    output_bytes: usize,
    /// Those that the next call hands over.
    sends: Vec<Send>,
    completed: VecDeque<Completion>,
    unsent: VecDeque<Unsent>,
    /// How many calls are over.
    calls: u64,
    /// Why there are no more calls.
    failure: Option<io::Error>,
    /// What the next call names. Behind the ring, which the kernel closes first.
    batch: Batch,
}

/// A queued send, of these bytes of `output`.
struct Send {
    token: u64,
    start: usize,
    end: usize,
}

impl Send {
    /// What is left of it, by the result of its completion.
    fn unsent(&self, output: &[u8], result: i32) -> Option<Unsent> {
        let sent = match result {
            sent if sent >= 0 => Some(sent as usize),
            error if error == -libc::EAGAIN => Some(0),
            _ => None,
        };
        let rest = sent.map(|sent| output[self.start + sent..self.end].to_vec());
        let is_whole = rest.as_ref().is_some_and(Vec::is_empty);
        (!is_whole).then_some(Unsent { token: self.token, rest })
    }
}

/// A send that did not go whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsent {
    /// As given to it.
    pub token: u64,
    /// What there was no room for; none if the connection is broken.
    pub rest: Option<Vec<u8>>,
}

/// A poll that begins with a wait.
#[derive(Debug)]
pub struct Poll<'f> {
    /// Of which file.
    pub fd: BorrowedFd<'f>,
    /// For what.
    pub wanted: Wanted,
    /// The token of its completion.
    pub token: u64,
}

/// What to poll for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Something to read, or the peer's end.
    Readable,
    /// The same, where other loops poll for it too: one of them is told, not all.
    ReadableByOne,
    /// Room to write.
    Writable,
}

impl Ring {
    /// io_uring_setup(2), with all that this file uses.
    ///
    /// # Errors
    /// The kernel is older than 6.1, io_uring is forbidden (`kernel.io_uring_disabled`, a seccomp filter), or this
    /// thread has a ring already.
    pub fn new() -> io::Result<Ring> {
        Ring::with_completions(COMPLETIONS)
    }

    /// With room for so many completions, a power of two.
    fn with_completions(completions: u32) -> io::Result<Ring> {
        let batch = Batch::begin()?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new(BUFFERS, BUFFER_BYTES);
        // SAFETY: the drop of this ring ends what is in flight before it drops them, or leaks them.
        unsafe { buffers.register(&ring.submitter(), BUFFER_GROUP) }?;
        let no_iowait = ring.params().is_feature_no_iowait();
        let mut ring = Ring {
            ring,
            enter_flags: ENTER_GETEVENTS
                | ENTER_EXT_ARG
                | if no_iowait { ENTER_NO_IOWAIT } else { 0 },
            buffers,
            output: vec![0; OUTPUT_BYTES].into(),
            output_bytes: 0,
            sends: Vec::with_capacity(SUBMISSIONS as usize),
            completed: VecDeque::with_capacity(SUBMISSIONS as usize),
            unsent: VecDeque::new(),
            calls: 0,
            failure: None,
            batch,
        };
        ring.try_out()?;
        Ok(ring)
    }

    /// Receives a byte, because a kernel that lacks that kind of receive doesn't say so earlier.
    fn try_out(&mut self) -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"?")?;
        drop(theirs);
        self.receive(&Connected::from(OwnedFd::from(ours)), 0);
        let mut received = 0;
        loop {
            self.wait([], Some(1000))?;
            let completion = self.next_completion().ok_or(io::ErrorKind::Unsupported)?;
            if completion.result < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result));
            }
            received += completion.result;
            completion.buffer.into_iter().for_each(|buffer| self.give_back(buffer));
            match completion.more {
                true => {}
                false if received == 1 => return Ok(()),
                false => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
    }

    /// Queues: receive from `socket` whenever something comes, until the end of the stream, a failure, or there is no
    /// buffer left.
    pub fn receive(&mut self, socket: &Connected, token: u64) {
        let fd = Fd(self.batch.name(socket));
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
        self.push(entry.user_data(user_data(Operation::Receive as u64, token)));
    }

    /// Queues: tell once when `socket` is ready.
    pub fn poll(&mut self, socket: &Connected, wanted: Wanted, token: u64) {
        let fd = self.batch.name(socket);
        self.push_poll(fd, wanted, token);
    }

    fn push_poll(&mut self, fd: RawFd, wanted: Wanted, token: u64) {
        let events = match wanted {
            Wanted::Readable => libc::EPOLLIN | libc::EPOLLRDHUP,
            Wanted::ReadableByOne => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
            Wanted::Writable => libc::EPOLLOUT,
        };
        let entry = opcode::PollAdd::new(Fd(fd), events as u32).build();
        self.push(entry.user_data(user_data(Operation::Poll as u64, token)));
    }

    /// Queues: end an operation. What has come of it by then is told all the same, and that it ended.
    pub fn cancel(&mut self, operation: Operation, token: u64) {
        let entry = opcode::AsyncCancel::new(user_data(operation as u64, token)).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(user_data(CANCEL, 0)));
    }

    /// Queues: send a copy of `bytes`, as far as there is room; what there is none for, [`Ring::next_unsent`] tells.
    /// What is sent to `socket` in another way before the next call comes first. Too many bytes are refused.
    pub fn send(&mut self, socket: &Connected, token: u64, bytes: &[u8]) -> bool {
        if bytes.len() > SEND_BYTES_MAX {
            return false;
        }
        if self.output_bytes + bytes.len() > OUTPUT_BYTES || self.ring.submission().is_full() {
            self.submit();
        }
        if self.failure.is_some() {
            return true; // The next wait tells, and that of no connection.
        }
        let (start, end) = (self.output_bytes, self.output_bytes + bytes.len());
        let copy = &mut self.output[start..end];
        copy.copy_from_slice(bytes);
        let number = self.calls << SEND_INDEX_BITS & TOKEN_MAX | self.sends.len() as u64;
        // For WAITALL the kernel goes on after a short send, and calls it a failure if it can't, as it may not wait
        // for DONTWAIT: a success, of which nothing need be told, is whole.
        let fd = Fd(self.batch.name(socket));
        let entry = opcode::Send::new(fd, copy.as_ptr(), copy.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(SEND, number));
        self.push(entry);
        self.sends.push(Send { token, start, end });
        self.output_bytes = end;
        true
    }

    fn push(&mut self, entry: squeue::Entry) {
        if self.ring.submission().is_full() {
            self.submit();
        }
        // SAFETY: an entry names no memory but the buffer group and, if it is a send, a part of `output`. The kernel
        // is done with that when the call that hands it over returns, and `call` keeps it unchanged until then. It
        // names a descriptor that is open until then, as `batch` and the borrow of `wait` see to.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.fail(io::ErrorKind::StorageFull.into());
        }
    }

    /// Which call to the kernel comes next: what was queued since the last one is not handed over yet.
    pub fn next_call(&self) -> u64 {
        self.calls
    }

    /// Hands over what is queued.
    pub fn submit(&mut self) {
        self.call(0, &Timespec::new());
    }

    /// Hands over what is queued, and these polls, and waits up to `timeout_ms` (`None`: for ever) until something is
    /// completed.
    ///
    /// # Errors
    /// If a call to the kernel failed, now or before: what was queued may never be handed over. Or if `polls` panicked
    /// before.
    pub fn wait<'f>(
        &mut self,
        polls: impl IntoIterator<Item = Poll<'f>>,
        timeout_ms: Option<u64>,
    ) -> io::Result<()> {
        let guard = FailIfDropped(self);
        for Poll { fd, wanted, token } in polls {
            guard.0.push_poll(fd.as_raw_fd(), wanted, token);
        }
        std::mem::forget(guard);
        let has_news = !self.completed.is_empty() || !self.unsent.is_empty();
        let completions = if has_news || timeout_ms == Some(0) { 0 } else { 1 };
        let forever = Duration::from_secs(u64::from(u32::MAX));
        let timeout = timeout_ms.map_or(forever, Duration::from_millis);
        self.call(completions, &Timespec::from(timeout.min(forever)));
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(io::Error::new(failure.kind(), failure.to_string())),
        }
    }

    /// Calls the kernel until all that is queued is handed over, and all collected that came of it.
    fn call(&mut self, completions: u32, timeout: &Timespec) {
        if self.failure.is_some() {
            return; // Descriptors of what is queued may be closed by now.
        }
        if let Err(error) = self.enter(completions, timeout) {
            return self.fail(error);
        }
        self.calls += 1;
        self.sends.clear();
        self.output_bytes = 0;
        self.batch.end();
    }

    /// io_uring_enter(2), as often as it takes.
    fn enter(&mut self, mut completions: u32, timeout: &Timespec) -> io::Result<()> {
        let limits = SubmitArgs::new().timespec(timeout);
        loop {
            let queued = self.ring.submission().len() as u32;
            let submitter = self.ring.submitter();
            // SAFETY: the argument is what ENTER_EXT_ARG says it is, and lives until the call returns.
            let result =
                unsafe { submitter.enter(queued, completions, self.enter_flags, Some(&limits)) };
            self.collect();
            let submission = self.ring.submission();
            let (is_empty, has_overflowed) = (submission.is_empty(), submission.cq_overflow());
            match result.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) | Err((Some(libc::ETIME | libc::EINTR), _)) if is_empty => {
                    if !has_overflowed {
                        return Ok(());
                    }
                    // The kernel keeps what there was no room for, and hands it out with the next call. Among it may be
                    // what became of these sends.
                    completions = 0;
                }
                Ok(1..) | Err((Some(libc::EINTR | libc::EBUSY), _)) => completions = 0,
                Ok(_) => return Err(io::ErrorKind::OutOfMemory.into()),
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// There are no more calls. The first reason is kept.
    fn fail(&mut self, error: io::Error) {
        self.failure.get_or_insert(error);
    }

    /// Takes in what was completed, and what is left of sends while their copies are there.
    fn collect(&mut self) {
        let mut stray = None;
        for entry in self.ring.completion() {
            let (what, token) = (entry.user_data() >> TOKEN_BITS, entry.user_data() & TOKEN_MAX);
            let operation = match what {
                SEND => {
                    let is_of_this_call =
                        token >> SEND_INDEX_BITS == self.calls & (TOKEN_MAX >> SEND_INDEX_BITS);
                    let index = token as usize & ((1 << SEND_INDEX_BITS) - 1);
                    match self.sends.get(index).filter(|_| is_of_this_call) {
                        Some(send) => {
                            self.unsent.extend(send.unsent(&self.output, entry.result()));
                        }
                        None => stray = Some(token),
                    }
                    continue;
                }
                what if what == Operation::Receive as u64 => Operation::Receive,
                what if what == Operation::Poll as u64 => Operation::Poll,
                _ => continue, // There was nothing left to cancel.
            };
            let bytes = entry.result().max(0) as usize;
            let id = cqueue::buffer_select(entry.flags());
            // SAFETY: this is the one completion that tells of this receive.
            let buffer = id.map(|id| unsafe { self.buffers.take(id, bytes) });
            let more = cqueue::more(entry.flags());
            let result = entry.result();
            self.completed.push_back(Completion { operation, token, result, more, buffer });
        }
        if let Some(token) = stray {
            // Which send it belongs to can't be told any more, and to go on would be to lose a failure.
            self.fail(io::Error::other(format!(
                "a send of another call was completed: {token:#x}"
            )));
        }
    }

    /// How many completions have come and were not told of.
    pub fn completions(&self) -> usize {
        self.completed.len()
    }

    /// Whether such a completion has come and was not told of.
    pub fn has_completed(&self, operation: Operation, token: u64) -> bool {
        let is_it = |of: &Completion| (of.operation, of.token) == (operation, token);
        self.completed.iter().any(is_it)
    }

    /// The oldest completion that was not told of.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completed.pop_front()
    }

    /// The oldest failure of a send that was not told of.
    pub fn next_unsent(&mut self) -> Option<Unsent> {
        self.unsent.pop_front()
    }

    /// What is in a buffer.
    ///
    /// # Panics
    /// If it is another ring's.
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    /// Lets the kernel receive into a buffer again.
    ///
    /// # Panics
    /// If it is another ring's.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.buffers.give_back(buffer);
    }
}

/// Until it is forgotten: descriptors are queued that stay open no longer than a call of [`Ring::wait`]. Should that
/// unwind, they are never handed over.
struct FailIfDropped<'r>(&'r mut Ring);

impl Drop for FailIfDropped<'_> {
    fn drop(&mut self) {
        self.0.fail(io::Error::other("what was to be polled panicked"));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring ends what is in flight only later, and would keep sockets open until then.
        self.submit();
        let second = Timespec::from(Duration::from_secs(1));
        let submitter = self.ring.submitter();
        let cancelled = submitter.register_sync_cancel(Some(second), CancelBuilder::any());
        // What is cancelled still takes wake-ups for itself, until a call has told of its end.
        self.submit();
        while self.failure.is_none() && !self.completed.is_empty() {
            self.completed.clear();
            self.submit();
        }
        if cancelled.is_err_and(|error| error.raw_os_error() != Some(libc::ENOENT)) {
            self.buffers.leak(); // Rather than free what is in use.
        }
    }
}

/// # Panics
/// If the token would make it another operation's.
fn user_data(what: u64, token: u64) -> u64 {
    assert!(token <= TOKEN_MAX, "a token of {TOKEN_BITS} bits: {token:#x}");
    what << TOKEN_BITS | token
}

#[cfg(test)]
mod tests;
