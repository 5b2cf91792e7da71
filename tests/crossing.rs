//! Requests that cross the close of an idle connection: what was on the wire before the end of stream is answered.
//!
//! There is no way to rule the loss out: between the server's last read and its shutdown a request may arrive, which
//! gets an end of stream in place of an answer. Of those that were sent before their client could know of the close, at
//! most one in a thousand may.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use harness::{
    Accept, DEADLINE, GREETING, Mode, Server, Setup, Site, Workers, eventually, is_stopped,
    let_time_pass, send_signal,
};
use nix::errno::Errno;
use nix::sys::signal::{SIGCONT, SIGHUP, SIGSTOP, SIGTTOU, SIGUSR2};
use nix::sys::socket::{MsgFlags, recv};

const CONNECTIONS: usize = 4_000;
/// How long an idle connection stays open in a drain.
const GRACE: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const RING: Mode = Mode::new(Workers::Threads, Accept::Reuseport);
const EPOLL: Mode = Mode::on_epoll(Workers::Processes, Accept::Reuseport);

/// What became of the requests that were sent before their client was told of the end.
#[derive(Debug, Default)]
struct Outcome {
    answered: usize,
    lost: usize,
    reset: usize,
    /// Connections whose end came first: nothing was sent on them.
    told: usize,
}

impl Outcome {
    fn assert_good(&self) {
        println!("{self:?}");
        let sent = self.answered + self.lost + self.reset;
        assert!(sent >= CONNECTIONS / 10, "too few to tell: {self:?}");
        assert_eq!(self.reset, 0, "{self:?}");
        assert!(self.lost * 1_000 <= sent, "{self:?}");
    }
}

/// A keep-alive connection, and when it was last answered.
struct Idle {
    stream: TcpStream,
    since: Instant,
}

impl Idle {
    fn connect(address: SocketAddr) -> Idle {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(DEADLINE)).expect("set a timeout");
        Idle { stream, since: Instant::now() }
    }

    fn send(&mut self) {
        // Where the server has closed by now, the read tells.
        let _ = self.stream.write_all(GET);
    }

    /// Whether the answer came; otherwise whether the connection was reset.
    fn receive(&mut self) -> Result<(), bool> {
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(false),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(true),
                Err(error) => panic!("neither an answer nor an end: {error}"),
            }
            // The last line of either body.
            if bytes.ends_with(b"generation\n") || bytes.ends_with(GREETING.as_bytes()) {
                self.since = Instant::now();
                return Ok(());
            }
        }
    }

    /// Whether the server's end of stream has arrived.
    fn was_told(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
    }
}

/// Connections that were answered once, and are idle. None is left unused for long before.
fn idle_connections(address: SocketAddr, count: usize) -> Vec<Idle> {
    let mut idle = Vec::with_capacity(count);
    while idle.len() < count {
        let mut batch: Vec<Idle> = (0..50).map(|_| Idle::connect(address)).collect();
        batch.iter_mut().for_each(Idle::send);
        batch.iter_mut().for_each(|idle| idle.receive().expect("an answer"));
        idle.append(&mut batch);
    }
    idle
}

/// Sends one request on each connection about when the server closes it: on every second one within some milliseconds
/// of `closes(since)`, on the others anywhere in the two seconds after it.
fn cross(idle: Vec<Idle>, closes: impl Fn(Instant) -> Instant) -> Outcome {
    let count = idle.len();
    let before = Duration::from_millis(20);
    let mut plan: Vec<(Instant, Idle)> = idle
        .into_iter()
        .enumerate()
        .map(|(index, idle)| {
            let spread = if index % 2 == 0 { 80 } else { 2_000 };
            // 617 has no divisor in common with the count: neighbours are far apart.
            let part = (index * 617 % count) as u32;
            let after = Duration::from_millis(spread) * part / count as u32;
            (closes(idle.since) - before + after, idle)
        })
        .collect();
    plan.sort_by_key(|(at, _)| *at);
    let mut outcome = Outcome::default();
    let mut sent = Vec::new();
    for (at, mut idle) in plan {
        let_time_pass(at.saturating_duration_since(Instant::now()));
        if idle.was_told() {
            outcome.told += 1;
        } else {
            idle.send();
            sent.push(idle);
        }
    }
    for mut idle in sent {
        match idle.receive() {
            Ok(()) => outcome.answered += 1,
            Err(true) => outcome.reset += 1,
            Err(false) => outcome.lost += 1,
        }
    }
    outcome
}

/// Starts a site with idle connections to it, has `change` begin, waits until its drain `has_started`, and crosses.
fn cross_a_change(mode: Mode, more: &str, change: impl FnOnce(&Server), has_started: &str) {
    let mut site = Site::new(mode);
    site.more = more.into();
    let server = site.start();
    let idle = idle_connections(site.listen[0], CONNECTIONS);
    change(&server);
    server.journal.wait_for(has_started);
    let start = Instant::now();
    cross(idle, |_| start + GRACE).assert_good();
}

fn cross_a_reload(mode: Mode) {
    cross_a_change(mode, "", |server| server.signal(SIGHUP), "drain started");
}

fn cross_a_resize(mode: Mode) {
    cross_a_change(mode, "", |server| server.signal(SIGTTOU), "resized");
}

fn cross_an_upgrade(mode: Mode) {
    cross_a_change(mode, "", |server| server.signal(SIGUSR2), "upgrade done");
}

fn cross_keep_alive(mode: Mode) {
    let mut site = Site::new(mode);
    site.more = format!("timeouts.keep_alive = \"{}s\"\n", KEEP_ALIVE.as_secs());
    let _server = site.start();
    // Those opened first may have been closed before the last were answered; these are enough.
    let mut idle = idle_connections(site.listen[0], CONNECTIONS);
    idle.retain(|idle| !idle.was_told());
    assert!(idle.len() >= CONNECTIONS / 4, "{}", idle.len());
    cross(idle, |since| since + KEEP_ALIVE).assert_good();
}

/// Every request has come before its connection's deadline, and none has been read when all deadlines have passed.
fn come_before_the_deadline(mode: Mode) {
    let setup = Setup::new(mode).lanes(1).set("supervisor.watchdog", "60s");
    let server = setup.set("timeouts.keep_alive", "2s").start();
    let worker = server.worker_pid(0);
    let mut idle = idle_connections(server.address(), 400);
    // Where that took so long that the first are about to be closed, they are no part of this.
    idle.retain(|idle| idle.since.elapsed() < Duration::from_secs(1));
    assert!(!idle.is_empty());
    send_signal(worker, SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    idle.retain(|idle| !idle.was_told());
    idle.iter_mut().for_each(Idle::send);
    let_time_pass(Duration::from_millis(2_100));
    send_signal(worker, SIGCONT);
    let answers = idle.iter_mut().map(Idle::receive);
    let failed = answers.filter(Result::is_err).count();
    assert_eq!(failed, 0, "of {}", idle.len());
}

macro_rules! on_both_drivers {
    ($($name:ident: $case:ident),+ $(,)?) => {
        mod io_uring { $(#[test] fn $name() { super::$case(super::RING) })+ }
        mod epoll { $(#[test] fn $name() { super::$case(super::EPOLL) })+ }
    };
}

on_both_drivers!(
    requests_that_cross_the_closes_of_a_reload_are_answered: cross_a_reload,
    requests_that_cross_the_closes_of_a_resize_are_answered: cross_a_resize,
    requests_that_cross_the_closes_of_an_upgrade_are_answered: cross_an_upgrade,
    requests_that_cross_keep_alive_are_answered: cross_keep_alive,
    requests_that_came_before_a_deadline_are_answered_after_it: come_before_the_deadline,
);
