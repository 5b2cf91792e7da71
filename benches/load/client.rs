//! The client: keeps a fixed number of requests outstanding on each connection, in one thread.
//!
//! It knows how long a response is, and counts bytes instead of reading them: that, and a wait for many
//! events at once, is why it costs less than a server that has to look at what it gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use laneway::sys::epoll::{Epoll, Events, Interest};
use laneway::sys::socket::{recv, send};

/// What to load a server with.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections, all open from the start.
    pub connections: usize,
    /// Requests outstanding on each.
    pub depth: usize,
}

/// Connections under load.
pub struct Client {
    epoll: Epoll,
    events: Events,
    connections: Vec<Connection>,
    /// `depth` requests.
    batch: Vec<u8>,
    /// The length of `depth` responses.
    batch_response_bytes: usize,
    depth: usize,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    missing: usize,
}

/// The response to one `request`, whole.
pub fn fetch(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    socket.write_all(request).expect("send");
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).expect("a response");
        assert_ne!(count, 0, "the connection was closed within a response");
        response.extend_from_slice(&buffer[..count]);
        if let Some(end) = memchr::memmem::find(&response, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&response[..end]).to_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").trim().parse().expect("a number");
            if response.len() >= end + 4 + length {
                assert_eq!(response.len(), end + 4 + length, "more than one response");
                return response;
            }
        }
    }
}

impl Client {
    /// Opens the connections, checks one whole response on each, and sends nothing more yet.
    pub fn connect(
        address: SocketAddr,
        load: Load,
        request: &[u8],
        response_bytes: usize,
    ) -> Client {
        let epoll = Epoll::new().expect("epoll");
        let mut connections = Vec::with_capacity(load.connections);
        let mut first = vec![0; response_bytes];
        for index in 0..load.connections {
            let mut socket = TcpStream::connect(address).expect("connect");
            socket.set_nodelay(true).expect("nodelay");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            socket.write_all(request).expect("send");
            socket.read_exact(&mut first).expect("a response");
            assert!(first.starts_with(b"HTTP/1.1 200 "), "not a 200");
            socket.set_nonblocking(true).expect("nonblocking");
            epoll.add(&socket, index as u64, Interest::Edges).expect("watch");
            connections.push(Connection { socket, missing: 0 });
        }
        Client {
            epoll,
            events: Events::with_capacity(512),
            connections,
            batch: request.repeat(load.depth),
            batch_response_bytes: response_bytes * load.depth,
            depth: load.depth,
            buffer: vec![0; 256 * 1024],
        }
    }

    /// Starts one batch on every connection.
    pub fn start(&mut self) {
        for index in 0..self.connections.len() {
            self.send_batch(index);
        }
    }

    fn send_batch(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let sent = send(connection.socket.as_fd(), &self.batch);
        assert_eq!(sent.ok(), Some(self.batch.len()), "the socket takes a whole batch");
        connection.missing = self.batch_response_bytes;
    }

    /// Keeps every connection busy for `time`, and says how many responses came.
    pub fn run(&mut self, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let mut responses = 0;
        while Instant::now() < end {
            let count = self.epoll.wait(&mut self.events, Some(100)).expect("wait");
            for at in 0..count {
                let event = self.events.at(at);
                if event.readable && self.receive(event.token as usize) {
                    responses += self.depth as u64;
                    self.send_batch(event.token as usize);
                }
            }
        }
        responses
    }

    /// Whether the batch of this connection is answered.
    fn receive(&mut self, index: usize) -> bool {
        let connection = &mut self.connections[index];
        match recv(connection.socket.as_fd(), &mut self.buffer) {
            Ok(0) => panic!("the server closed a connection under load"),
            Ok(count) => {
                assert!(count <= connection.missing, "the server sent more than was asked for");
                connection.missing -= count;
                connection.missing == 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("a connection under load failed: {error}"),
        }
    }
}
