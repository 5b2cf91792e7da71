//! Drivers: what moves bytes for a loop. They know sockets and tokens, and nothing of HTTP.
//!
//! A loop waits, takes the events one after the other, and for each lets a connection work on its [`Input`]; what
//! that left to send it gives to [`Driver::send`]. With [`epoll`] an event says that a socket can be read, and each
//! receive and each send is a system call. With [`io_uring`] an event brings the bytes, and what many connections
//! send leaves with the next wait, in one call; what of a send the socket had no room for is known afterwards.

pub mod epoll;
pub mod io_uring;
pub mod token;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::epoll::Ready;
use crate::sys::ring::buffers::Buffer;
use crate::sys::ring::connected::Connected;
use crate::sys::ring::{self, Unsent};
pub use crate::sys::socket::Peer;
use crate::sys::socket::{self, Departure, Listener};
use token::Token;

/// Size of the buffer that a lane reads sockets into.
const INPUT_BYTES: usize = 64 * 1024;

/// One event loop's way to the kernel.
pub enum Driver {
    /// Readiness: epoll(7).
    Epoll(epoll::Driver),
    /// Completion: io_uring(7).
    IoUring(Box<io_uring::Driver>),
}

/// What happened to something that is watched.
#[derive(Debug)]
pub struct Event {
    /// What became of it, and its token.
    pub ready: Ready,
    /// The bytes that came with it, until [`Driver::give_back`].
    pub buffer: Option<Buffer>,
}

impl Event {
    /// What it is an event of.
    #[inline]
    pub fn token(&self) -> Token {
        Token::from_bits(self.ready.token)
    }
}

/// What a connection waits for between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Input,
    /// Something to read, and much of it.
    BulkInput,
    /// Room to send; what comes meanwhile may come.
    RoomOrInput,
    /// Room to send, and nothing else.
    Room,
    /// Nothing but its deadline.
    Nothing,
}

impl Driver {
    /// As in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Driver::Epoll(_) => "epoll",
            Driver::IoUring(_) => "io_uring",
        }
    }

    /// Watches a connection for the whole of its life.
    pub fn register(&mut self, socket: &Connected, token: u64) -> io::Result<()> {
        match self {
            Driver::Epoll(driver) => driver.register(socket, token),
            Driver::IoUring(driver) => {
                driver.register(socket, token);
                Ok(())
            }
        }
    }

    /// Says what a connection waits for, after every step of it.
    pub fn adjust(&mut self, socket: &Connected, token: u64, interest: Interest) {
        if let Driver::IoUring(driver) = self {
            driver.adjust(socket, token, interest);
        }
    }

    /// Ends what goes on with a connection, before its socket is closed.
    pub fn release(&mut self, token: u64) {
        if let Driver::IoUring(driver) = self {
            driver.release(token);
        }
    }

    /// Watches a control socket while it is readable, until [`Driver::forget`].
    pub fn watch(&mut self, fd: impl AsFd, token: Token) -> io::Result<()> {
        match self {
            Driver::Epoll(driver) => driver.watch(fd, token.to_bits()),
            Driver::IoUring(driver) => {
                driver.watch(token, ring::Wanted::Readable);
                Ok(())
            }
        }
    }

    /// Watches a source of connections while some wait in it. If it `is_shared`, other loops watch it all the time, and
    /// one of them gets the event. Until [`Driver::forget`].
    pub fn watch_source(
        &mut self,
        source: impl AsFd,
        token: Token,
        is_shared: bool,
    ) -> io::Result<()> {
        match self {
            Driver::Epoll(driver) => driver.watch_source(source, token.to_bits()),
            Driver::IoUring(driver) => {
                driver.watch_source(token, is_shared);
                Ok(())
            }
        }
    }

    /// Stops watching.
    pub fn forget(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Driver::Epoll(driver) => driver.forget(fd),
            Driver::IoUring(driver) => {
                driver.forget(token);
                Ok(())
            }
        }
    }

    /// Waits up to `timeout_ms` (`None`: for ever) and says how many events there may be. `fd_of` finds, by its token,
    /// the descriptor of what is watched and is no connection.
    pub fn wait<'f>(
        &mut self,
        timeout_ms: Option<u64>,
        fd_of: impl Fn(Token) -> Option<BorrowedFd<'f>>,
    ) -> io::Result<usize> {
        match self {
            Driver::Epoll(driver) => driver.wait(timeout_ms),
            Driver::IoUring(driver) => driver.wait(timeout_ms, fd_of),
        }
    }

    /// The next event of those.
    pub fn next_event(&mut self) -> Option<Event> {
        match self {
            Driver::Epoll(driver) => driver.next_event(),
            Driver::IoUring(driver) => driver.next_event(),
        }
    }

    /// What a connection reads in one step: what its event brought, if it did.
    pub fn input(&mut self, token: u64, buffer: Option<&Buffer>) -> Input<'_> {
        match self {
            Driver::Epoll(driver) => Input::new(None, Some(driver.buffer())),
            Driver::IoUring(driver) => driver.input(token, buffer),
        }
    }

    /// Takes back what an event brought.
    pub fn give_back(&mut self, buffer: Option<Buffer>) {
        if let (Driver::IoUring(driver), Some(buffer)) = (self, buffer) {
            driver.give_back(buffer);
        }
    }

    /// Sends `bytes`, at once or with the next wait; then what is left comes from [`Driver::next_unsent`]. Before
    /// anything else happens to the connection, [`Driver::settle`].
    pub fn send(&mut self, socket: &Connected, token: u64, bytes: &[u8]) -> Sent {
        match self {
            Driver::Epoll(_) => transmit(socket, bytes, Payload::Bytes(&[])),
            Driver::IoUring(driver) => driver.send(socket, token, bytes),
        }
    }

    /// Hands over what is queued of this connection, so that it is known what there was no room for.
    pub fn settle(&mut self, token: u64) {
        if let Driver::IoUring(driver) = self {
            driver.settle(token);
        }
    }

    /// What is left of a send that had been taken for whole. To be asked for after each wait, and after settling.
    pub fn next_unsent(&mut self) -> Option<Unsent> {
        match self {
            Driver::Epoll(_) => None,
            Driver::IoUring(driver) => driver.next_unsent(),
        }
    }
}

/// Where a connection finds its bytes, in one step: first what its event brought, then what its socket has.
pub struct Input<'b> {
    brought: Option<&'b [u8]>,
    socket: SocketInput<'b>,
}

/// What is known of a socket's bytes.
enum SocketInput<'b> {
    /// They can be read, into this.
    Readable(&'b mut [u8]),
    /// The kernel reads them, and events bring them.
    Taken,
    /// All were brought.
    Ended,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// Bytes, at least one.
    Bytes {
        /// These.
        bytes: &'b [u8],
        /// Nothing more is there now. An end of stream may be all the same.
        is_all: bool,
    },
    /// Nothing is there yet, or what is there will come with an event ([`Input::reaches_socket`]).
    Nothing,
    /// The peer will send no more, or the connection is broken.
    End,
}

/// What throwing input away came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// So many bytes, and nothing more is there now. An end of stream may be all the same, unless they are none.
    All(usize),
    /// So many bytes, and there may be more.
    Some(usize),
    /// The peer will send no more, or the connection is broken.
    End,
}

impl<'b> Input<'b> {
    /// Of these bytes, and those that come from the socket by way of `buffer`: none while the kernel reads it.
    pub fn new(brought: Option<&'b [u8]>, buffer: Option<&'b mut [u8]>) -> Input<'b> {
        Input { brought, socket: buffer.map_or(SocketInput::Taken, SocketInput::Readable) }
    }

    /// Of these bytes, after which the peer sends no more.
    fn last(brought: Option<&'b [u8]>) -> Input<'b> {
        Input { brought, socket: SocketInput::Ended }
    }

    /// Whether [`Input::receive`] reads the socket, once it has given out what the event brought. Not while the kernel
    /// receives on its own: then that nothing was received doesn't mean that nothing has come.
    pub fn reaches_socket(&self) -> bool {
        !matches!(self.socket, SocketInput::Taken)
    }

    /// Whether there is nothing to receive from: no bytes that an event brought, and no socket.
    pub fn is_empty(&self) -> bool {
        self.brought.is_none() && !self.reaches_socket()
    }

    /// Reads once.
    pub fn receive(&mut self, socket: &Connected) -> Received<'_> {
        if let Some(bytes) = self.brought.take() {
            return Received::Bytes { bytes, is_all: true };
        }
        let buffer = match &mut self.socket {
            SocketInput::Readable(buffer) => buffer,
            SocketInput::Taken => return Received::Nothing,
            SocketInput::Ended => return Received::End,
        };
        match socket::recv(socket.as_fd(), buffer) {
            Ok(0) => Received::End,
            // A short read has emptied the socket.
            Ok(count) => Received::Bytes { bytes: &buffer[..count], is_all: count < buffer.len() },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// Reads once, and throws away what there is, up to the size of the lane's buffer.
    pub fn discard(&mut self, socket: &Connected) -> Discarded {
        if let Some(bytes) = self.brought.take() {
            return Discarded::All(bytes.len());
        }
        let buffer = match &mut self.socket {
            SocketInput::Readable(buffer) => buffer,
            SocketInput::Taken => return Discarded::All(0),
            SocketInput::Ended => return Discarded::End,
        };
        match socket::discard(socket.as_fd(), buffer) {
            Ok(0) => Discarded::End,
            Ok(count) if count < buffer.len() => Discarded::All(count),
            Ok(count) => Discarded::Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Discarded::All(0),
            Err(_) => Discarded::End,
        }
    }

    /// What was read without being asked for.
    pub fn brought(&mut self) -> Option<&[u8]> {
        self.brought.take()
    }
}

/// What a write came to: how many bytes the kernel took, of all that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many; fewer than offered means that an event comes when there is room.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

/// What is sent from where it is.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'p> {
    /// Bytes.
    Bytes(&'p [u8]),
    /// So many bytes of a file, from there on.
    File {
        /// A regular file.
        file: &'p File,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: usize,
    },
}

impl Payload<'_> {
    /// How long it is, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::File { length, .. } => *length,
        }
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// So many bytes of it, if it is of a file: what the kernel reads there is read while other connections wait.
    pub fn up_to(self, bytes_max: usize) -> Self {
        match self {
            Payload::File { file, offset, length } => {
                Payload::File { file, offset, length: length.min(bytes_max) }
            }
            bytes => bytes,
        }
    }
}

/// Writes `head`, then `payload`, now, as much as there is room for. A file that is shorter breaks the connection.
pub fn transmit(socket: &Connected, head: &[u8], payload: Payload<'_>) -> Sent {
    transmit_for(socket, head, payload, Departure::Now)
}

/// The same for the last bytes of a connection. Once all are taken, [`finish_sending`] is due at once: the end of the
/// stream leaves in one segment with the last of them.
pub fn transmit_last(socket: &Connected, head: &[u8], payload: Payload<'_>) -> Sent {
    transmit_for(socket, head, payload, Departure::WithNext)
}

fn transmit_for(
    socket: &Connected,
    head: &[u8],
    payload: Payload<'_>,
    departure: Departure,
) -> Sent {
    let fd = socket.as_fd();
    match payload {
        _ if payload.is_empty() => Sent::of(socket::send(fd, head, departure)),
        Payload::Bytes(bytes) => Sent::of(socket::send_both(fd, head, bytes, departure)),
        Payload::File { file, offset, length } => {
            let head_sent = match head {
                [] => Sent::Bytes(0),
                head => Sent::of(socket::send(fd, head, Departure::WithNext)),
            };
            if head_sent != Sent::Bytes(head.len()) {
                return head_sent;
            }
            match Sent::of(socket::send_file(fd, file, offset, length)) {
                Sent::Bytes(sent) => Sent::Bytes(head.len() + sent),
                Sent::Broken => Sent::Broken,
            }
        }
    }
}

impl Sent {
    fn of(result: io::Result<usize>) -> Sent {
        match result {
            Ok(count) => Sent::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Bytes(0),
            Err(_) => Sent::Broken,
        }
    }
}

/// Says to the peer that no more will be sent.
pub fn finish_sending(socket: &Connected) -> io::Result<()> {
    socket::shutdown_write(socket.as_fd())
}

/// How many bytes that were sent the peer has not acknowledged, its end of stream counted as one; 0 where nothing can
/// be known, because the connection is gone.
pub fn unacknowledged(socket: &Connected) -> u32 {
    socket::unacknowledged(socket.as_fd()).unwrap_or(0)
}

/// What is at the other end of a connection.
pub fn peer(socket: &Connected) -> Peer {
    socket::peer(socket.as_fd())
}

/// Has the close of a connection reset it, with what was not acknowledged, instead of the kernel keeping that for a
/// client that takes none.
pub fn forget_unsent(socket: &impl AsFd) {
    // A socket that refuses this is closed as any other.
    let _ = socket::reset_on_close(socket.as_fd());
}

/// What an accept came to.
pub enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// No connection waits.
    Empty,
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
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Empty,
        Err(error) if socket::is_exhaustion(&error) => Accepted::Exhausted(error),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Accepted::Closed,
        Err(_) => Accepted::Transient,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_an_accept_from_what_does_not_listen_any_more_ends_its_source() {
        let accept_from = |socket: OwnedFd| accept(&Listener::from(socket));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address"));
        assert!(matches!(accept_from(stream.expect("a connection").into()), Accepted::Closed));
        listener.set_nonblocking(true).expect("nonblocking");
        let listener = OwnedFd::from(listener);
        let again = listener.try_clone().expect("a copy");
        assert!(matches!(accept_from(listener), Accepted::Connection(_)));
        assert!(matches!(accept_from(again), Accepted::Empty));
        // EOPNOTSUPP, one of the errors by which a failure of one connection is told (accept(2)).
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(matches!(accept_from(datagrams.into()), Accepted::Transient));
    }

    #[test]
    fn a_discard_that_filled_its_buffer_says_that_more_may_be_there() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("nonblocking");
        let socket = Connected::from(OwnedFd::from(server));
        client.write_all(b"6bytes").expect("room");
        let discard = || Input::new(None, Some(&mut [0; 4])).discard(&socket);
        assert_eq!(discard(), Discarded::Some(4));
        assert_eq!(discard(), Discarded::All(2));
        assert_eq!(discard(), Discarded::All(0));
        drop(client);
        assert_eq!(discard(), Discarded::End);
    }
}
