//! Sockets: the calls of the request path, and what their errors mean. Listeners, packet sockets, and those that came
//! with the process have a file each.

mod address;
mod diag;
mod drops;
pub mod handshakes;
pub mod inherited;
mod listener;
mod packet;
pub mod ports;
mod queue;

pub use address::Address;
pub use drops::listen_drops;
pub use listener::{Bound, Listener, Sharing, backlog_max, may_bind};
pub use packet::{
    Blocking, PACKET_FILES_MAX, packet_pair, receive_packet, send_packet, send_packet_with_files,
};

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{
    MsgFlags, Shutdown, getsockopt, recv as nix_recv, send as nix_send, sendmsg, sockopt,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{cvt, retry};

/// getsockopt(2) of `TCP_INFO`.
fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` outlive the call, and `length` states the room in `info`.
    cvt(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    })?;
    Ok(info)
}

/// Whether `error` says that descriptors or memory have run out (accept(2)).
pub fn is_exhaustion(error: &io::Error) -> bool {
    const EXHAUSTED: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|errno| EXHAUSTED.contains(&errno))
}

/// Whether `error`, of a send to a packet socket, says that it may succeed later without anything telling when: memory
/// ran out, or too many descriptors are on their way (unix(7), `ETOOMANYREFS`).
pub fn is_send_exhaustion(error: &io::Error) -> bool {
    is_exhaustion(error) || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// Whether `error`, of a send to a packet socket, says that nothing receives at the other end any more.
pub fn is_unheard(error: &io::Error) -> bool {
    const GONE: [i32; 4] = [libc::EPIPE, libc::ECONNRESET, libc::ECONNREFUSED, libc::ENOTCONN];
    error.raw_os_error().is_some_and(|errno| GONE.contains(&errno))
}

/// The error of a process that may open no more files.
pub fn out_of_files() -> io::Error {
    Errno::EMFILE.into()
}

/// recv(2) into `buffer`; 0 is the end of the stream.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| nix_recv(socket.as_raw_fd(), buffer, MsgFlags::empty()))
}

/// recv(2) that throws away up to `buffer.len()` bytes: those of a TCP socket are not even copied (`MSG_TRUNC`,
/// tcp(7)). What `buffer` holds then means nothing. 0 is the end of the stream.
pub fn discard(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| nix_recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC))
}

/// Whether the end of what is sent leaves at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// At once.
    Now,
    /// A last segment that isn't full leaves with what comes next, another send or [`shutdown_write`] (`MSG_MORE`).
    WithNext,
}

/// As in linux/socket.h; nix has no name for it.
const MSG_MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

impl Departure {
    fn flags(self) -> MsgFlags {
        match self {
            Departure::Now => MsgFlags::MSG_NOSIGNAL,
            Departure::WithNext => MsgFlags::MSG_NOSIGNAL | MSG_MORE,
        }
    }
}

/// send(2) of as much of `bytes` as the socket takes.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], departure: Departure) -> io::Result<usize> {
    retry(|| nix_send(socket.as_raw_fd(), bytes, departure.flags()))
}

/// sendmsg(2) of `first` and then `second`, as much as the socket takes.
pub fn send_both(
    socket: BorrowedFd<'_>,
    first: &[u8],
    second: &[u8],
    departure: Departure,
) -> io::Result<usize> {
    let slices = [io::IoSlice::new(first), io::IoSlice::new(second)];
    retry(|| sendmsg::<()>(socket.as_raw_fd(), &slices, &[], departure.flags(), None))
}

/// sendfile(2) of `length` bytes of a regular file from `offset` on, until all are sent or the socket takes no more. Of
/// a socket whose peer is gone it raises SIGPIPE, which std has every program ignore.
///
/// # Errors
/// `WouldBlock` if the socket takes nothing; `UnexpectedEof` if the file has fewer, of which some may have been sent.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    offset: u64,
    length: usize,
) -> io::Result<usize> {
    let overflow = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut at = i64::try_from(offset).map_err(overflow)?;
    let mut sent = 0;
    while sent < length {
        // It may stop before the socket is full, and says nothing of it: only EAGAIN means that an event will come.
        match retry(|| sendfile64(socket, file, Some(&mut at), length - sent)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Has close(2) reset the connection and drop what was not acknowledged (`SO_LINGER` of zero seconds, socket(7)).
pub fn reset_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}

/// What is at the other end of a connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP socket of this address; one of IPv4 is of that family, also where the socket here is of IPv6.
    Internet(SocketAddr),
    /// A process of this machine, with a Unix socket.
    Unix,
    /// Nothing any more.
    Gone,
}

/// Asks for it (getpeername(2)).
pub fn peer(socket: BorrowedFd<'_>) -> Peer {
    let Ok(address) = SockRef::from(&socket).peer_addr() else { return Peer::Gone };
    match address.as_socket() {
        Some(address) => Peer::Internet((address.ip().to_canonical(), address.port()).into()),
        None if address.is_unix() => Peer::Unix,
        None => Peer::Gone,
    }
}

/// shutdown(2) of the writing side: the peer reads an end of stream, and may still write.
pub fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::socket::shutdown(socket.as_raw_fd(), Shutdown::Write)?)
}

/// Sets `TCP_NODELAY`.
#[cfg(feature = "may")]
pub fn set_nodelay(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_nodelay(true)
}

/// What became of everything that was written to a TCP socket.
#[cfg(feature = "may")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// So much was acknowledged by the peer's kernel, in bytes since the connection began.
    pub acknowledged: u64,
    /// So much was not, or has not left yet.
    pub waiting: u64,
}

/// Reads it back from the kernel (tcp(7), `TCP_INFO` and `SIOCOUTQ`).
#[cfg(feature = "may")]
pub fn written(socket: BorrowedFd<'_>) -> io::Result<Written> {
    // In this order: what is acknowledged in between is counted twice, and not left out.
    let waiting = unacknowledged(socket)?.into();
    let info = tcp_info(socket)?;
    Ok(Written { acknowledged: info.tcpi_bytes_acked, waiting })
}

/// Connects to the Unix socket at `path` without waiting for room in its queue.
///
/// # Errors
/// `WouldBlock` if a process listens there whose queue is full (connect(2), `EAGAIN`).
pub fn connect_without_waiting(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(OwnedFd::from(socket).into())
}

/// The process that listens at the other end of a connection to a Unix socket (unix(7), `SO_PEERCRED`).
pub fn peer_pid(stream: &impl AsFd) -> io::Result<super::process::ProcessId> {
    Ok(getsockopt(stream, sockopt::PeerCredentials)?.pid())
}

/// How much of what was sent has not arrived: of TCP, what the peer's kernel has not acknowledged, its end of stream
/// counted as a byte (tcp(7), SIOCOUTQ); of a socket pair, what was not received (unix(7)).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which SIOCOUTQ is for a socket, writes one int.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes.unsigned_abs())
}
