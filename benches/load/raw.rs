//! The floor: the least a single-threaded epoll server can do for a request and still be correct.
//!
//! It counts requests by their terminator and answers each with the same bytes: no parsing, no state for a
//! connection but its socket, one receive and one send for each readiness event. Whatever a server costs
//! beyond this is what HTTP costs in it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use super::Outcome;

const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS: usize = 512;
const BACKLOG: i32 = 4096;
const TERMINATOR: &[u8] = b"\r\n\r\n";

/// Serves `response` to every request until the process is ended. `request_bytes` is the size of the usual
/// request: one that arrives alone is recognised without a search.
pub(super) fn serve(request_bytes: usize, response: &[u8]) -> Outcome<()> {
    let listener = listen()?;
    let address = listener.local_addr()?;
    eprintln!(r#"{{"level":"INFO","message":"listening","address":"{address}"}}"#);
    eprintln!(r#"{{"level":"INFO","message":"ready"}}"#);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listener_token = listener.as_raw_fd() as u64;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, listener_token))?;
    let mut lane = Lane {
        request_bytes,
        response_bytes: response.len(),
        terminator: memmem::Finder::new(TERMINATOR),
        input: vec![0; BUFFER_BYTES],
        // As many responses as requests fit the input, so that a batch always leaves in one send.
        output: response.repeat(BUFFER_BYTES / request_bytes + 1),
    };
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        for event in &events[..ready] {
            let token = event.data();
            if token == listener_token {
                accept_all(&listener, &epoll, &mut connections)?;
                continue;
            }
            let slot = &mut connections[token as usize];
            let Some(socket) = slot else { continue };
            if lane.answer(socket).is_err() || event.events().contains(EpollFlags::EPOLLRDHUP) {
                *slot = None;
            }
        }
    }
}

struct Lane {
    request_bytes: usize,
    response_bytes: usize,
    terminator: memmem::Finder<'static>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Lane {
    /// Receives what is there and answers it. An error means that the connection is to be closed.
    fn answer(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        loop {
            let received = match socket.read(&mut self.input) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => received,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let requests = self.count_requests(&self.input[..received])?;
            let bytes = requests * self.response_bytes;
            if socket.write(&self.output[..bytes])? < bytes {
                return Err(ErrorKind::WriteZero.into()); // the client takes less than it asked for
            }
            if received < self.input.len() {
                return Ok(()); // a short read: drained
            }
        }
    }

    fn count_requests(&self, input: &[u8]) -> io::Result<usize> {
        if !input.ends_with(TERMINATOR) {
            return Err(ErrorKind::InvalidData.into()); // it keeps no bytes, so it cannot serve half a request
        }
        if input.len() == self.request_bytes {
            return Ok(1);
        }
        Ok(self.terminator.find_iter(input).count())
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?; // inherited by what it accepts
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn accept_all(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut Vec<Option<TcpStream>>,
) -> Outcome<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd() as usize;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        epoll.add(&socket, EpollEvent::new(interest, fd as u64))?;
        if connections.len() <= fd {
            connections.resize_with(fd + 1, || None);
        }
        connections[fd] = Some(socket);
    }
}
