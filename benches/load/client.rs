//! The load: one thread that keeps a fixed number of requests outstanding on every connection.
//!
//! Closed loop: a connection's next batch leaves when the last byte of the previous one has arrived. Every
//! response must be a `200` of exactly the expected size; anything else ends the measurement with an error.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::ring::{Arrival, HEAD_BYTES, Ring};
use super::{Drive, Outcome};

/// What wrk sends, less the port: a subject's port must not change the size of a request.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The same, on a connection that is to end with the response.
pub(super) const CLOSE_REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
pub(super) const STATUS_OK: &[u8; HEAD_BYTES] = b"HTTP/1.1 200";
/// No response for this long means that the subject is broken, not slow.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A server that means to close a connection does it sooner than this.
const CLOSE_MAX: Duration = Duration::from_millis(200);
/// The client sleeps until this share of its connections has an answer. One wake-up for each response would
/// cost both sides more than the response does, and the rest keeps the server busy meanwhile.
const WAKE_SHARE: usize = 4;

/// How a subject is loaded.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Connections held open.
    pub(crate) connections: usize,
    /// Requests outstanding on each of them, sent at once.
    pub(crate) pipeline: usize,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pipeline {
            1 => f.pad(&super::report::thousands(self.connections as f64)),
            deep => f.pad(&format!("{} ×{deep}", self.connections)),
        }
    }
}

/// The client at work on one subject.
pub(crate) struct Client {
    ring: Ring,
    load: Load,
    response_bytes: usize,
    /// For each connection, the bytes still to come of the current batch.
    awaited_bytes: Vec<usize>,
    responses: u64,
}

impl Client {
    /// Connects, and queues the first batch on every connection.
    pub(crate) fn connect(address: SocketAddr, response_bytes: usize, load: Load) -> Outcome<Self> {
        let sockets = (0..load.connections)
            .map(|_| TcpStream::connect_timeout(&address, SILENCE_MAX))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("connecting to {address}: {e}"))?;
        for socket in &sockets {
            socket.set_nodelay(true)?;
        }
        let batch_bytes = response_bytes * load.pipeline;
        let ring = Ring::new(
            sockets,
            REQUEST.repeat(load.pipeline).into(),
            load.connections * load.pipeline,
            batch_bytes.next_multiple_of(64),
        )
        .map_err(|e| format!("setting up io_uring (Linux 6.0 or later, not filtered): {e}"))?;
        let mut client = Client {
            ring,
            load,
            response_bytes,
            awaited_bytes: vec![batch_bytes; load.connections],
            responses: 0,
        };
        for connection in 0..load.connections {
            client.ring.send(connection)?;
        }
        Ok(client)
    }

    /// Waits for arrivals; returns the connections whose batch is complete.
    fn collect(&mut self, arrivals: usize) -> Outcome<Vec<usize>> {
        self.ring.wait(arrivals, SILENCE_MAX)?;
        let mut complete = Vec::with_capacity(self.load.connections);
        let mut arrived = false;
        while let Some(arrival) = self.ring.next_arrival()? {
            arrived = true;
            if self.account(&arrival)? {
                complete.push(arrival.connection);
            }
        }
        if !arrived {
            return Err(format!("no response within {SILENCE_MAX:?}").into());
        }
        Ok(complete)
    }

    /// Checks what arrived and whether it completes the connection's batch.
    fn account(&mut self, arrival: &Arrival) -> Outcome<bool> {
        if arrival.bytes == 0 {
            return Err("the server closed a connection that it should keep".into());
        }
        let awaited = &mut self.awaited_bytes[arrival.connection];
        let at_boundary = awaited.is_multiple_of(self.response_bytes);
        if at_boundary && arrival.bytes >= HEAD_BYTES && arrival.head != *STATUS_OK {
            let head = String::from_utf8_lossy(&arrival.head).into_owned();
            return Err(format!("expected a 200, got {head:?}…").into());
        }
        *awaited = awaited
            .checked_sub(arrival.bytes)
            .ok_or("more bytes arrived than the responses have")?;
        if *awaited == 0 {
            self.responses += self.load.pipeline as u64;
        }
        Ok(*awaited == 0)
    }
}

impl Drive for Client {
    /// Counted by the batch.
    fn responses(&self) -> u64 {
        self.responses
    }

    fn run_for(&mut self, duration: Duration) -> Outcome<()> {
        let deadline = Instant::now() + duration;
        let wake_at = self.load.connections / WAKE_SHARE;
        while Instant::now() < deadline {
            for connection in self.collect(wake_at)? {
                self.awaited_bytes[connection] = self.response_bytes * self.load.pipeline;
                self.ring.send(connection)?;
            }
        }
        Ok(())
    }

    /// The bytes of all connections must add up.
    fn finish(mut self) -> Outcome<()> {
        let deadline = Instant::now() + SILENCE_MAX;
        while self.awaited_bytes.iter().any(|&awaited| awaited > 0) {
            if Instant::now() > deadline {
                return Err("outstanding responses did not arrive".into());
            }
            self.collect(1)?;
        }
        Ok(())
    }
}

/// Requests once on a connection of its own and returns the response, byte for byte.
pub(crate) fn fetch(address: SocketAddr) -> Outcome<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, SILENCE_MAX)
        .map_err(|e| format!("connecting to {address}: {e}"))?;
    request_once(&mut socket, REQUEST)
}

/// As [`fetch`], with `Connection: close`; also tells whether the server did close.
pub(crate) fn fetch_and_close(address: SocketAddr) -> Outcome<(Vec<u8>, bool)> {
    let mut socket = TcpStream::connect_timeout(&address, SILENCE_MAX)
        .map_err(|e| format!("connecting to {address}: {e}"))?;
    let response = request_once(&mut socket, CLOSE_REQUEST)?;
    socket.set_read_timeout(Some(CLOSE_MAX))?;
    match socket.read(&mut [0]) {
        Ok(0) => Ok((response, true)),
        Ok(_) => Err("bytes follow the response".into()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok((response, false)),
        Err(e) => Err(e.into()),
    }
}

/// The body of a whole response.
pub(crate) fn body(response: &[u8]) -> &[u8] {
    memchr::memmem::find(response, b"\r\n\r\n").map_or(&[], |end| &response[end + 4..])
}

/// Opens `count` connections, each idle after one request. They stay open while the result lives.
pub(crate) fn idle(address: SocketAddr, count: usize) -> Outcome<Vec<TcpStream>> {
    (0..count)
        .map(|n| {
            let mut socket = TcpStream::connect_timeout(&address, SILENCE_MAX)
                .map_err(|e| format!("opening idle connection {n}: {e}"))?;
            request_once(&mut socket, REQUEST)?;
            Ok(socket)
        })
        .collect()
}

fn request_once(socket: &mut TcpStream, request: &[u8]) -> Outcome<Vec<u8>> {
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.write_all(request)?;
    let mut response = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let bytes = socket.read(&mut chunk)?;
        if bytes == 0 {
            return Err("the server closed the connection before its response was complete".into());
        }
        response.extend_from_slice(&chunk[..bytes]);
        match response_length(&response)? {
            Some(length) if response.len() == length => return Ok(response),
            Some(length) if response.len() > length => {
                return Err("bytes follow the response".into());
            }
            _ => {}
        }
    }
}

/// The whole length of the response that `bytes` starts, once its head is complete.
fn response_length(bytes: &[u8]) -> Outcome<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(bytes)? else {
        return Ok(None);
    };
    if head.code != Some(200) {
        return Err(format!("GET / was answered with {:?}, not with 200", head.code).into());
    }
    let body_bytes: usize = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .ok_or("the response has no Content-Length")?;
    Ok(Some(head_bytes + body_bytes))
}
