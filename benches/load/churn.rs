//! The load of connections that each live for one request: a fixed number of them is open at any time.
//!
//! Which side closes, and how: the request says `Connection: close`, so the server closes first, on its usual path; the
//! client has the whole response and the server's FIN, and answers with an RST (`SO_LINGER` of 0). So neither side
//! keeps a TIME_WAIT. With an orderly close one of them would, a minute for each request: on the client's side
//! the ports run out within a second, and on the server's the kernel's table of them fills up and then drops them,
//! which makes what is measured later cheaper. A server that does not know `Connection: close` gets the RST once
//! its response is there.
//!
//! Why not io_uring, as in [`super::client`]: nearly all of a connection's cost is its TCP handshake, which on
//! loopback runs within `connect`, the server's half of it too. Seven plain calls add little to that, and no client
//! on one CPU saturates a fast server this way; the server's CPU time for a request counts all the same. What does
//! matter is sleeping: a client that waits for each response makes the server wake it for each. So sockets come
//! in groups, and the client waits for the youngest of the oldest group: by then the others have their answer,
//! while the other groups keep the server busy.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Outcome;
use super::client::{CLOSE_REQUEST, SILENCE_MAX, STATUS_OK};

const GROUPS: usize = 4;

/// The client at work on one subject.
pub(crate) struct Churn {
    address: SockAddr,
    /// Oldest first.
    groups: VecDeque<Vec<Socket>>,
    response_bytes: usize,
    /// Whether the server closes, or leaves that to the client.
    server_closes: bool,
    buffer: Vec<u8>,
    responses: u64,
}

impl Churn {
    /// Opens the first `connections`, each with its request.
    pub(crate) fn connect(
        address: SocketAddr,
        response_bytes: usize,
        server_closes: bool,
        connections: usize,
    ) -> Outcome<Self> {
        let mut churn = Churn {
            address: address.into(),
            groups: VecDeque::new(),
            response_bytes,
            server_closes,
            // One byte more than may come, for a receive that ends only at the FIN.
            buffer: vec![0; response_bytes + usize::from(server_closes)],
            responses: 0,
        };
        for _ in 0..GROUPS {
            let group = (0..connections / GROUPS).map(|_| churn.open());
            let group = group.collect::<Outcome<Vec<_>>>()?;
            churn.groups.push_back(group);
        }
        Ok(churn)
    }

    fn open(&self) -> Outcome<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.connect(&self.address).map_err(|e| format!("opening a connection: {e}"))?;
        if send(socket.as_raw_fd(), CLOSE_REQUEST, MsgFlags::MSG_NOSIGNAL)? != CLOSE_REQUEST.len() {
            return Err("an empty socket did not take a whole request".into());
        }
        Ok(socket)
    }

    /// Receives the response and, where the server closes, the end of its stream; drops the connection.
    fn complete(&mut self, socket: Socket) -> Outcome<()> {
        let mut received = 0;
        while received < self.buffer.len() {
            let rest = &mut self.buffer[received..];
            match recv(socket.as_raw_fd(), rest, MsgFlags::MSG_WAITALL) {
                Ok(0) => break,
                Ok(bytes) => received += bytes,
                // What an io_uring of this process leaves to do, its end too, interrupts like a signal.
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    return Err(format!("no response within {SILENCE_MAX:?}").into());
                }
                Err(e) => return Err(format!("receiving: {e}").into()),
            }
        }
        if received != self.response_bytes {
            let expected = self.response_bytes;
            return Err(format!("{received} bytes arrived, not the response's {expected}").into());
        }
        if !self.buffer.starts_with(STATUS_OK) {
            let head = String::from_utf8_lossy(&self.buffer[..STATUS_OK.len()]);
            return Err(format!("expected a 200, got {head:?}…").into());
        }
        self.responses += 1;
        Ok(())
    }
}

impl super::Drive for Churn {
    fn responses(&self) -> u64 {
        self.responses
    }

    fn run_for(&mut self, duration: Duration) -> Outcome<()> {
        let deadline = Instant::now() + duration;
        while Instant::now() < deadline {
            let mut group = self.groups.pop_front().ok_or("no connections to churn")?;
            let mut fresh = Vec::with_capacity(group.len());
            while let Some(youngest) = group.pop() {
                self.complete(youngest)?;
                fresh.push(self.open()?);
            }
            self.groups.push_back(fresh);
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome<()> {
        while let Some(group) = self.groups.pop_front() {
            for socket in group {
                self.complete(socket)?;
            }
        }
        Ok(())
    }
}
