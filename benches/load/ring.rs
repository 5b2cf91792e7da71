//! The client's io_uring: sends and multishot receives over a fixed set of sockets, behind a safe API.
//!
//! Why io_uring: on loopback the sender pays for the receiver's half of TCP, so a client that makes one
//! system call for each thing it does costs as much as the server and cannot saturate it. Here one
//! `io_uring_enter` submits a batch of sends and waits for a batch of answers.
//!
//! The only `unsafe` of the benches. It knows nothing of HTTP.
#![allow(unsafe_code, reason = "io_uring takes raw addresses; this file keeps them alive")]

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use laneway::internals::Buffers;

const BUFFER_GROUP: u16 = 0;
const SUBMISSIONS: u32 = 4096;
/// Set in the user data of a send; the rest is the connection's index.
const SEND: u64 = 1 << 63;
/// How much of what arrived is shown to the caller: enough for a status line.
pub(super) const HEAD_BYTES: usize = 12;

/// Bytes that arrived on a connection.
pub(super) struct Arrival {
    /// Index of the socket in the order given to [`Ring::new`].
    pub(super) connection: usize,
    /// How many; 0 when the peer closed.
    pub(super) bytes: usize,
    /// The first of them, zeroes beyond their end.
    pub(super) head: [u8; HEAD_BYTES],
}

/// A ring over a fixed set of connected sockets, and the one message that is sent on them.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    message: NonNull<[u8]>,
    completed: VecDeque<cqueue::Entry>,
    sockets: Vec<TcpStream>,
}

impl Ring {
    /// Registers `sockets` and starts receiving on each of them.
    ///
    /// `arrivals_max` is how many receives may complete between two calls of [`Ring::wait`], each of up to
    /// `arrival_bytes_max`; beyond either, bytes arrive in more pieces but are not lost.
    pub(super) fn new(
        sockets: Vec<TcpStream>,
        message: Box<[u8]>,
        arrivals_max: usize,
        arrival_bytes_max: usize,
    ) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * SUBMISSIONS)
            .build(SUBMISSIONS)?;
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&fds)?;
        let buffers = Buffers::new(arrivals_max, arrival_bytes_max);
        // SAFETY: `drop` cancels every operation before it drops them, or leaks them.
        unsafe { buffers.register(&ring.submitter(), BUFFER_GROUP) }?;
        let mut ring = Ring {
            ring,
            buffers,
            message: NonNull::from(Box::leak(message)),
            completed: VecDeque::new(),
            sockets,
        };
        for connection in 0..ring.sockets.len() {
            ring.receive(connection)?;
        }
        Ok(ring)
    }

    /// Queues one message for `connection`; it leaves with the next [`Ring::wait`].
    pub(super) fn send(&mut self, connection: usize) -> io::Result<()> {
        let message = self.message;
        let entry = opcode::Send::new(
            Fixed(connection as u32),
            message.cast::<u8>().as_ptr(),
            message.len() as u32,
        )
        // The kernel repeats short sends, so success needs no completion and a failure is always seen.
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(SEND | connection as u64);
        self.push(&entry)
    }

    /// Submits what is queued and waits until `arrivals` receives have completed or `timeout` has passed.
    pub(super) fn wait(&mut self, arrivals: usize, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        let limits = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(arrivals.max(1), &limits) {
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => drop(other?),
        }
        self.completed.extend(self.ring.completion());
        Ok(())
    }

    /// The next arrival of those that [`Ring::wait`] collected, oldest first.
    pub(super) fn next_arrival(&mut self) -> io::Result<Option<Arrival>> {
        while let Some(entry) = self.completed.pop_front() {
            let connection = (entry.user_data() & !SEND) as usize;
            if entry.user_data() & SEND != 0 {
                // Only failures complete. A send that the peer's close overtook is that close.
                return Err(io::Error::from_raw_os_error(-entry.result()));
            }
            if !cqueue::more(entry.flags()) && entry.result() != 0 {
                self.receive(connection)?;
            }
            match entry.result() {
                error if error == -libc::ENOBUFS => {}
                error if error < 0 => return Err(io::Error::from_raw_os_error(-error)),
                bytes => {
                    let head = cqueue::buffer_select(entry.flags())
                        .map(|id| self.take_head(id, bytes as usize));
                    return Ok(Some(Arrival {
                        connection,
                        bytes: bytes as usize,
                        head: head.unwrap_or_default(),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Copies the start of what the kernel put into a buffer, and gives the buffer back.
    fn take_head(&mut self, id: u16, bytes: usize) -> [u8; HEAD_BYTES] {
        // SAFETY: called once for each completion of a receive, with the buffer that it names.
        let buffer = unsafe { self.buffers.take(id, bytes) };
        let mut head = [0; HEAD_BYTES];
        let arrived = self.buffers.bytes(&buffer);
        let shown = arrived.len().min(HEAD_BYTES);
        head[..shown].copy_from_slice(&arrived[..shown]);
        self.buffers.give_back(buffer);
        head
    }

    fn receive(&mut self, connection: usize) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(connection as u32), BUFFER_GROUP)
            .build()
            .user_data(connection as u64);
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: entries name registered sockets, the registered buffer group and the leaked message,
            // all of which outlive the operation: `drop` cancels every operation before it frees them.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The ring's own end is asynchronous in the kernel and would delay the FINs into the next measurement.
        for socket in &self.sockets {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let second = Timespec::new().sec(1);
        let cancelled =
            self.ring.submitter().register_sync_cancel(Some(second), CancelBuilder::any());
        if cancelled.is_err_and(|e| e.raw_os_error() != Some(libc::ENOENT)) {
            return self.buffers.leak(); // rather than free what is in use
        }
        // SAFETY: nothing is in flight any more, and the address came from `Box::leak`.
        drop(unsafe { Box::from_raw(self.message.as_ptr()) });
    }
}
