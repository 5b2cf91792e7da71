//! Sockets: listeners made with socket2, and the four calls of the request path.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, getsockopt,
    recv as nix_recv, send as nix_send, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{cvt, retry};

/// A TCP socket bound to one address, not listening yet.
pub struct Bound(Socket);

/// How a socket shares its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Alone: `listen` fails with `EADDRINUSE` while any other socket listens on the port.
    Exclusive,
    /// With the sockets of its `SO_REUSEPORT` group.
    Group,
    /// As `Group`, to keep the port for it without listening: whoever wants it alone fails at bind already.
    Held,
}

impl Bound {
    /// A nonblocking, close-on-exec socket with `SO_REUSEADDR` and `TCP_NODELAY` (which connections
    /// inherit), bound to `address`. An IPv6 socket takes IPv6 alone.
    pub fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Bound> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(sharing != Sharing::Held)?;
        socket.set_reuse_port(sharing != Sharing::Exclusive)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SockAddr::from(address))?;
        Ok(Bound(socket))
    }

    /// Keeps the port, and doesn't listen.
    pub fn hold(self) -> Listener {
        Listener(self.0.into())
    }

    /// listen(2) with an accept queue of `backlog` connections (the kernel may grant fewer).
    pub fn listen(self, backlog: u32) -> io::Result<Listener> {
        self.0.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Listener(self.0.into()))
    }
}

/// A listening socket, or one that could be.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One that was passed on by another process.
impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Listener {
        Listener(socket)
    }
}

/// The accept queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// The backlog in effect, in connections.
    pub backlog: u32,
}

impl Listener {
    /// Changes the length of the accept queue: listen(2) again. Who waits in it stays.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        SockRef::from(&self.0).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
    }

    /// Gives a socket that was opened by somebody else what [`Bound::bind`] gives: nonblocking, `TCP_NODELAY`.
    pub fn prepare(&self) -> io::Result<()> {
        let socket = SockRef::from(&self.0);
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)
    }

    /// Lets later sockets join this one's port as a `SO_REUSEPORT` group.
    pub fn open_to_group(&self) -> io::Result<()> {
        SockRef::from(&self.0).set_reuse_port(true)
    }

    /// The address it is bound to, with the port the kernel chose for port 0.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        SockRef::from(&self.0)
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
    }

    /// Reads the accept queue back from the kernel: for a listener, `TCP_INFO` holds its length in
    /// `tcpi_unacked` and its bound in `tcpi_sacked` (net/ipv4/tcp.c, `tcp_get_info`).
    pub fn accept_queue(&self) -> io::Result<AcceptQueue> {
        let info = tcp_info(self.0.as_fd())?;
        Ok(AcceptQueue { waiting: info.tcpi_unacked, backlog: info.tcpi_sacked })
    }

    /// Ends the listening in every process that has a copy: from here on accept(2) fails with `EINVAL`, and
    /// the socket has left its group. Whoever waits in the accept queue is reset.
    pub fn close_everywhere(&self) -> io::Result<()> {
        // For a listening socket, shutdown(2) is the way back to a closed one (net/ipv4/af_inet.c).
        match nix::sys::socket::shutdown(self.0.as_raw_fd(), Shutdown::Read) {
            // Another process was first.
            Err(Errno::ENOTCONN) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Ignores connections that have not begun: who is amid a handshake still gets into the queue, who is not
    /// tries again after a second (tcp(7)) and finds the socket closed by then. In every process that has a copy.
    pub fn ignore_new(&self) -> io::Result<()> {
        use socket2::SockFilter;
        // A TCP socket's filter sees the segment from its TCP header on; byte 13 has the flags (RFC 9293 §3.1).
        const FLAGS: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        SockRef::from(&self.0).attach_filter(&[
            SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, FLAGS),
            SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, SYN | ACK),
            SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, SYN),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
        ])
    }

    /// Whether [`Listener::ignore_new`] was called for this socket, by whichever process: it is about to be closed for
    /// good. False where the kernel doesn't tell.
    pub fn ignores_new(&self) -> bool {
        let mut length: libc::socklen_t = 0;
        // SAFETY: without room for them the kernel writes no statements of the filter, but their number into `length`.
        let result = cvt(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_GET_FILTER,
                std::ptr::null_mut(),
                &raw mut length,
            )
        });
        result.is_ok() && length > 0
    }

    /// The end of [`Listener::ignore_new`], whoever asked for it.
    pub fn heed_new(&self) -> io::Result<()> {
        match SockRef::from(&self.0).detach_filter() {
            // There was none.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Has the kernel choose, for new connections to this socket's group, among its first `sockets` members
    /// at random; `None`: among all, by its own hash. Members count in the order in which they joined.
    pub fn steer(&self, sockets: Option<usize>) -> io::Result<()> {
        let Some(sockets) = sockets else {
            return detach_reuseport_bpf(self.0.as_fd());
        };
        let count = u32::try_from(sockets.max(1)).unwrap_or(u32::MAX);
        // BPF_LD | BPF_W | BPF_ABS at SKF_AD_OFF + SKF_AD_RANDOM; modulo; return (linux/filter.h).
        let statement =
            |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
        let mut program = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
            statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
            statement(libc::BPF_RET | libc::BPF_A, 0),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        Ok(setsockopt(&self.0, sockopt::AttachReusePortCbpf, &program)?)
    }

    /// accept4(2): the next waiting connection, nonblocking and close-on-exec.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = retry(|| nix::sys::socket::accept4(self.0.as_raw_fd(), flags))?;
        // SAFETY: accept4 just made this descriptor and nobody else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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

/// Takes the program of [`Listener::steer`] away; none is no error.
fn detach_reuseport_bpf(socket: BorrowedFd<'_>) -> io::Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: the option's value is an int that outlives the call.
    let result = cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const zero).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

/// The inodes of the sockets that listen on a port, of any address, where /proc tells (proc_net_tcp(5)).
///
/// Listeners come first in its tables, and no more than those are read: behind them may be a hundred thousand
/// connections, which take the kernel seconds to list.
pub fn listening_inodes(port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let of_line = |line: String| -> Option<(bool, u64)> {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, LISTEN, ..] = columns[..] else {
            return None;
        };
        Some((local.ends_with(&wanted), columns.get(9)?.parse().ok()?))
    };
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(file) = File::open(table) else {
            continue;
        };
        let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
        let listeners = lines.map_while(of_line);
        inodes.extend(listeners.filter(|(is_wanted, _)| *is_wanted).map(|(_, inode)| inode));
    }
    inodes
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

/// Whether this process may bind a port of this number; where /proc doesn't tell, it is believed to.
///
/// # Errors
/// `EACCES` where the port is one of those that take `CAP_NET_BIND_SERVICE` (ip(7), `ip_unprivileged_port_start`), and
/// this process doesn't have it.
pub fn may_bind(port: u16) -> io::Result<()> {
    const CAP_NET_BIND_SERVICE: u32 = 10;
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(1024);
    if port == 0 || u32::from(port) >= first {
        return Ok(());
    }
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    let may = status.map_or(true, |status| status.capeff & (1 << CAP_NET_BIND_SERVICE) != 0);
    if may { Ok(()) } else { Err(Errno::EACCES.into()) }
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

/// Has close(2) reset the connection and drop what was not acknowledged (`SO_LINGER` of zero seconds, socket(7)).
pub fn reset_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
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

/// The process that listens at the other end of a connection to a Unix socket (unix(7), `SO_PEERCRED`).
pub fn peer_pid(stream: &impl AsFd) -> io::Result<super::process::ProcessId> {
    Ok(getsockopt(stream, sockopt::PeerCredentials)?.pid())
}

/// Two connected `SOCK_SEQPACKET` sockets: messages arrive whole, in order, and an end of stream says
/// that the last copy of the other end is gone.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Whether a call on a packet socket may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits for room.
    Wait,
    /// It fails with `WouldBlock`.
    DontWait,
}

/// Sends one packet.
pub fn send_packet(socket: BorrowedFd<'_>, packet: &[u8], patience: Patience) -> io::Result<()> {
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    flags.set(MsgFlags::MSG_DONTWAIT, patience == Patience::DontWait);
    retry(|| nix_send(socket.as_raw_fd(), packet, flags)).map(drop)
}

/// Most descriptors that one packet carries (unix(7), `SCM_MAX_FD`).
pub const PACKET_FILES_MAX: usize = 253;

/// Sends one packet with copies of `files`, without waiting.
pub fn send_packet_with_files(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let rights = if files.is_empty() { &[][..] } else { &rights };
    let packet = [io::IoSlice::new(packet)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    retry(|| sendmsg::<()>(socket.as_raw_fd(), &packet, rights, flags, None)).map(drop)
}

/// How much of what was sent has not arrived: of TCP, what the peer's kernel has not acknowledged, its end of stream
/// counted as a byte (tcp(7), SIOCOUTQ); of a socket pair, what was not received (unix(7)).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which SIOCOUTQ is for a socket, writes one int.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes.unsigned_abs())
}

/// Receives one packet without waiting, and the descriptors that came with it, close-on-exec: fewer than were sent,
/// if this process may not open as many. 0 is the end of the stream.
pub fn receive_packet(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    // Room for the descriptors, aligned as their header; nix would refuse what is cut short, and leak it.
    const SPACE_WORDS: usize = (PACKET_FILES_MAX * size_of::<RawFd>()).div_ceil(8) + 4;
    let mut space = [0_u64; SPACE_WORDS];
    let mut buffers = [io::IoSliceMut::new(buffer)];
    // SAFETY: all zeroes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = buffers.as_mut_ptr().cast();
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = retry(|| {
        // SAFETY: the header names memory that outlives the call; an IoSliceMut is an iovec.
        Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) })
    })?;
    // SAFETY: recvmsg has filled in the header.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: it is null or points into `space`.
    while let Some(message) = unsafe { part.as_ref() } {
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the macro only computes.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // Its type is not everywhere the same.
            let length: usize = message.cmsg_len as _;
            let count = (length - head) / size_of::<RawFd>();
            // SAFETY: within `space`, by the length that the kernel gave.
            let numbers = unsafe { libc::CMSG_DATA(part) }.cast::<RawFd>();
            for index in 0..count {
                let number = numbers.wrapping_add(index);
                // SAFETY: one of `count` numbers, which need not be aligned.
                let number = unsafe { number.read_unaligned() };
                // SAFETY: the kernel just made this descriptor for this process.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `part` is a part of this header.
        part = unsafe { libc::CMSG_NXTHDR(&raw const header, part) };
    }
    Ok(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: SocketAddr, sharing: Sharing) -> io::Result<Listener> {
        Bound::bind(address, sharing)?.listen(128)
    }

    #[test]
    fn a_group_grows_from_an_exclusive_listener_and_keeps_others_out() {
        let first = listen("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
        let address = first.local_address().unwrap();
        let taken = |sharing| listen(address, sharing).unwrap_err().kind();
        assert_eq!(taken(Sharing::Group), io::ErrorKind::AddrInUse);
        first.open_to_group().unwrap();
        let second = listen(address, Sharing::Group).unwrap();
        assert_eq!(taken(Sharing::Exclusive), io::ErrorKind::AddrInUse);

        // Both take part: of 64 connections each gets some, or the kernel's hash is broken.
        let clients: Vec<_> =
            (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let waiting = |listener: &Listener| listener.accept_queue().unwrap().waiting;
        assert_eq!(waiting(&first) + waiting(&second), clients.len() as u32);
        assert!(waiting(&first) > 0 && waiting(&second) > 0);
        assert_eq!(first.accept_queue().unwrap().backlog, 128);
    }

    #[test]
    fn a_socket_that_ignores_new_connections_says_so() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
        assert!(!listener.ignores_new());
        listener.ignore_new().unwrap();
        assert!(listener.ignores_new());
    }
}
