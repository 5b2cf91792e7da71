//! Open loop: a request leaves when its time has come, whatever became of those before it, and its latency counts
//! from that time. A closed loop asks less of a server that stalls, and so never sees how long others would have
//! waited (Gil Tene's "coordinated omission").
//!
//! One thread that never sleeps, on a CPU of its own: a timer that fires late would be measured as the server's.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;

use super::Outcome;
use super::client::{CLOSE_REQUEST, REQUEST, SILENCE_MAX};

/// Latencies that are told apart: from a microsecond to a minute, at three digits.
const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;
const EVENTS: usize = 512;

/// What leaves when.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Connections kept open; 0: each request has its own.
    pub(crate) connections: usize,
    /// Requests sent at once.
    pub(crate) pipeline: usize,
    /// Requests a second, of all connections together.
    pub(crate) per_second: u32,
}

/// The client at work on one subject.
pub(crate) struct OpenLoop {
    address: SocketAddr,
    response_bytes: usize,
    pace: Pace,
    epoll: Epoll,
    /// By number, which is their token too.
    connections: HashMap<u64, Connection>,
    next_number: u64,
    /// The connections that ask next, in order.
    turn: VecDeque<u64>,
    buffer: Vec<u8>,
    latencies_ns: Histogram<u64>,
    failures: Failures,
}

/// What went wrong, and for whom.
#[derive(Clone, Copy, Default)]
pub(crate) struct Failures {
    /// Requests that were never answered.
    pub(crate) requests: u64,
    /// Connections that broke or were refused.
    pub(crate) connections: u64,
}

struct Connection {
    socket: TcpStream,
    /// When each of its outstanding requests was to leave, oldest first.
    outstanding: VecDeque<Instant>,
    /// Bytes of the oldest one's response so far.
    received: usize,
    /// The latest request that was answered, by when it was to leave.
    answered: Option<Instant>,
}

impl OpenLoop {
    /// Connects, and asks for nothing yet.
    pub(crate) fn connect(
        address: SocketAddr,
        response_bytes: usize,
        pace: Pace,
    ) -> Outcome<OpenLoop> {
        let mut client = OpenLoop {
            address,
            response_bytes,
            pace,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: HashMap::new(),
            next_number: 0,
            turn: VecDeque::new(),
            buffer: vec![0; 64 * 1024],
            latencies_ns: histogram()?,
            failures: Failures::default(),
        };
        for _ in 0..pace.connections {
            let number = client.open()?;
            client.turn.push_back(number);
        }
        Ok(client)
    }

    fn open(&mut self) -> Outcome<u64> {
        let socket = TcpStream::connect_timeout(&self.address, SILENCE_MAX)
            .map_err(|e| format!("connecting to {}: {e}", self.address))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // Without a TIME_WAIT on either side: see `churn`.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let number = self.next_number;
        self.next_number += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, number);
        self.epoll.add(socket.as_fd(), event)?;
        let connection =
            Connection { socket, outstanding: VecDeque::new(), received: 0, answered: None };
        self.connections.insert(number, connection);
        Ok(number)
    }

    /// Asks at its pace for `duration`, then waits for what is outstanding. A failure is an error.
    pub(crate) fn run_for(&mut self, duration: Duration) -> Outcome<()> {
        let start = Instant::now();
        self.run_until(|_| start.elapsed() >= duration)?;
        let deadline = Instant::now() + SILENCE_MAX;
        while self.connections.values().any(|connection| !connection.outstanding.is_empty()) {
            if Instant::now() > deadline {
                return Err(format!("no response within {SILENCE_MAX:?}").into());
            }
            self.collect()?;
        }
        match self.failures {
            Failures { requests: 0, connections: 0 } => Ok(()),
            Failures { requests, connections } => {
                Err(format!("{connections} connections broke, {requests} requests failed").into())
            }
        }
    }

    /// Asks at its pace until `is_over`. A client that loses its connection opens another one.
    pub(crate) fn run_until(&mut self, is_over: impl Fn(&OpenLoop) -> bool) -> Outcome<()> {
        let batch = self.pace.pipeline.max(1);
        let interval = Duration::from_secs(1) * batch as u32 / self.pace.per_second;
        let mut due = Instant::now();
        while !is_over(self) {
            while due <= Instant::now() {
                self.ask(due, batch)?;
                due += interval;
            }
            self.collect()?;
        }
        Ok(())
    }

    fn ask(&mut self, due: Instant, batch: usize) -> Outcome<()> {
        let is_own = self.pace.connections == 0;
        let number = if is_own {
            self.open()?
        } else {
            self.turn.rotate_left(1);
            *self.turn.front().ok_or("no connection to ask on")?
        };
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(()); // Its place is about to be taken.
        };
        connection.outstanding.extend(std::iter::repeat_n(due, batch));
        let request = if is_own { CLOSE_REQUEST.to_vec() } else { REQUEST.repeat(batch) };
        match connection.socket.write(&request) {
            Ok(bytes) if bytes == request.len() => Ok(()),
            Ok(_) => Err("a socket did not take a whole request".into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err("the server does not read".into())
            }
            Err(_) => self.lose(number),
        }
    }

    /// Takes what has arrived.
    fn collect(&mut self) -> Outcome<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..count] {
            self.receive(event.data())?;
        }
        Ok(())
    }

    fn receive(&mut self, number: u64) -> Outcome<()> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        let bytes = match connection.socket.read(&mut self.buffer) {
            Ok(0) => 0,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        if bytes == 0 {
            return self.lose(number);
        }
        let now = Instant::now();
        connection.received += bytes;
        while connection.received >= self.response_bytes {
            connection.received -= self.response_bytes;
            let due = connection.outstanding.pop_front().ok_or("a response to no request")?;
            connection.answered = Some(due);
            let latency = now.saturating_duration_since(due).as_nanos() as u64;
            self.latencies_ns.saturating_record(latency);
        }
        if self.pace.connections == 0 && connection.outstanding.is_empty() {
            self.connections.remove(&number);
        }
        Ok(())
    }

    /// A connection broke: what it waited for failed, and another one takes its place.
    fn lose(&mut self, number: u64) -> Outcome<()> {
        let Some(connection) = self.connections.remove(&number) else {
            return Ok(());
        };
        self.failures.connections += 1;
        self.failures.requests += connection.outstanding.len() as u64;
        if self.pace.connections == 0 {
            return Ok(());
        }
        let start = Instant::now();
        let another = loop {
            match self.open() {
                Ok(another) => break another,
                // No socket listens for a moment.
                Err(_) if start.elapsed() < SILENCE_MAX => {}
                Err(error) => return Err(error),
            }
        };
        self.turn.iter_mut().filter(|of| **of == number).for_each(|of| *of = another);
        Ok(())
    }

    /// Whether every connection has been answered a request that left after `since`.
    pub(crate) fn all_answered_since(&self, since: Instant) -> bool {
        let is_answered =
            |connection: &Connection| connection.answered.is_some_and(|due| due >= since);
        self.connections.len() == self.pace.connections
            && self.connections.values().all(is_answered)
    }

    pub(crate) fn failures(&self) -> Failures {
        self.failures
    }

    /// Forgets what was recorded, as of a warm-up.
    pub(crate) fn forget(&mut self) {
        self.latencies_ns.reset();
    }

    /// The latencies so far.
    pub(crate) fn latencies(&self) -> Latencies {
        let at = |quantile| self.latencies_ns.value_at_quantile(quantile) as f64 / 1e3;
        Latencies { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999) }
    }
}

/// Latencies, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Latencies {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)?)
}
