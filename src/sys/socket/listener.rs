//! Listening sockets: made with socket2, in a group of one port or alone, steered, and closed to new connections. Those of
//! both families are one type, since all but their making and their closing is the same.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, SockFlag, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::Address;
use super::queue::{self, AcceptQueue};
use crate::sys::{cvt, process, retry};

/// A socket bound to one address, not listening yet.
pub struct Bound(Socket);

/// How a socket shares its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Alone: `listen` fails with `EADDRINUSE` while any other socket listens on the port.
    Exclusive,
    /// With the sockets of its `SO_REUSEPORT` group.
    Group,
    /// As `Group`, to keep the port for it without listening: a socket that wants it alone fails at bind already.
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

    /// A nonblocking, close-on-exec Unix socket, bound to `path`, where there must be nothing. Its file has these
    /// permissions from the first moment on.
    pub fn bind_unix(path: &Path, mode: u32) -> io::Result<Bound> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        let address = SockAddr::unix(path)?;
        process::with_umask(!mode, || socket.bind(&address))?;
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

impl Listener {
    /// Changes the length of the accept queue: listen(2) again. Connections that wait in it stay.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        SockRef::from(&self.0).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
    }

    /// Gives a socket that another process opened what [`Bound::bind`] gives: nonblocking, `TCP_NODELAY`.
    pub fn prepare(&self) -> io::Result<()> {
        let socket = SockRef::from(&self.0);
        socket.set_nonblocking(true)?;
        if self.is_unix() { Ok(()) } else { socket.set_tcp_nodelay(true) }
    }

    /// Whether it is a Unix socket. It has no group, so every lane takes connections from this one.
    pub fn is_unix(&self) -> bool {
        SockRef::from(&self.0).domain().is_ok_and(|domain| domain == Domain::UNIX)
    }

    /// Lets later sockets join this one's port as a `SO_REUSEPORT` group.
    pub fn open_to_group(&self) -> io::Result<()> {
        SockRef::from(&self.0).set_reuse_port(true)
    }

    /// The address it is bound to, with the port the kernel chose for port 0.
    pub fn local_address(&self) -> io::Result<Address> {
        Address::of(&SockRef::from(&self.0).local_addr()?)
    }

    /// Reads the accept queue back from the kernel.
    ///
    /// # Errors
    /// Of a Unix socket also if the kernel doesn't tell.
    pub fn accept_queue(&self) -> io::Result<AcceptQueue> {
        let socket = self.0.as_fd();
        if self.is_unix() { queue::of_unix(socket) } else { queue::of_tcp(socket) }
    }

    /// Ends the listening of a TCP socket in every process that has a copy: from here on accept(2) fails with `EINVAL`,
    /// and the socket has left its group. Connections in the accept queue are reset.
    pub fn close_everywhere(&self) -> io::Result<()> {
        // For a listening socket, shutdown(2) is the way back to a closed one (net/ipv4/af_inet.c).
        match nix::sys::socket::shutdown(self.0.as_raw_fd(), Shutdown::Read) {
            // Another process was first.
            Err(Errno::ENOTCONN) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Ignores connections that have not begun: one amid its handshake still gets into the queue, and any other client
    /// tries again after a second (tcp(7)) and finds the socket closed by then. In every process that has a copy.
    ///
    /// Clients of a Unix socket have no handshake: from here on they are refused, for good, and those that wait in the
    /// queue can still be accepted (net/unix/af_unix.c, `RCV_SHUTDOWN` in `unix_stream_connect`).
    pub fn ignore_new(&self) -> io::Result<()> {
        use socket2::SockFilter;
        if self.is_unix() {
            return Ok(nix::sys::socket::shutdown(self.0.as_raw_fd(), Shutdown::Read)?);
        }
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

    /// Ends what [`Listener::ignore_new`] began for a TCP socket, in this process or in another.
    pub fn stop_ignoring_new(&self) -> io::Result<()> {
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
        // SAFETY: accept4 just made this descriptor and nothing else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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

/// The longest accept queue that listen(2) grants (`net.core.somaxconn`); where /proc doesn't tell, any.
pub fn backlog_max() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: SocketAddr, sharing: Sharing) -> io::Result<Listener> {
        Bound::bind(address, sharing)?.listen(128)
    }

    #[test]
    fn a_group_grows_from_an_exclusive_listener_and_keeps_others_out() {
        let first = listen("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
        let address = first.local_address().unwrap().internet().unwrap();
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
    fn a_unix_socket_that_is_closed_to_new_clients_refuses_them_and_gives_out_those_that_wait() {
        let path = std::env::temp_dir().join(format!("laneway-closed-{}", process::id()));
        let listener = Bound::bind_unix(&path, 0o600).and_then(|bound| bound.listen(4)).unwrap();
        assert_eq!(listener.local_address().unwrap(), Address::Unix(path.clone()));
        let connect = || std::os::unix::net::UnixStream::connect(&path);
        let clients = [connect().unwrap(), connect().unwrap()];
        match listener.accept_queue() {
            Ok(queue) => assert_eq!(queue, AcceptQueue { waiting: 2, backlog: 4 }),
            Err(error) => eprintln!("skipped, no sock_diag here: {error}"),
        }
        listener.ignore_new().unwrap();
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let accepted = std::iter::from_fn(|| listener.accept().ok()).count();
        assert_eq!(accepted, clients.len());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_socket_that_ignores_new_connections_says_so() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), Sharing::Exclusive).unwrap();
        assert!(!listener.ignores_new());
        listener.ignore_new().unwrap();
        assert!(listener.ignores_new());
    }
}
