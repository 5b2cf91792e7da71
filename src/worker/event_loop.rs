//! The event loop of one lane: events to connections, deadlines, accepting, drain.

use std::any::Any;
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::connection::{Connection, DRAIN_GRACE_MS, Next};
use super::context::Context;
use super::control::{Command, Control, News, Received};
use super::driver::epoll::{Accepted, Driver, accept};
use super::fault::EscapingPanic;
use super::slab::{Key, Slab};
use super::timers::Timers;
use crate::observe::panics;
use crate::sys::epoll::Ready;
use crate::sys::socket::Listener;

/// The read buffer of a lane, in bytes.
const INPUT_BYTES: usize = 64 * 1024;
/// Connections accepted from one listener in one turn, before others have theirs.
const ACCEPTS_PER_TURN: usize = 64;
/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_PAUSE_MS: u64 = 100;
/// An output buffer that grew beyond this is given back after the turn.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// Tokens from here on are not connections.
const TOKEN_CONTROL: u64 = u64::MAX;
const TOKEN_LISTENERS: u64 = u64::MAX - 1024;
/// Most listeners of a lane.
pub const LISTENERS_MAX: usize = 1000;

/// The loop of one lane, for the life of one worker.
pub struct EventLoop<'s> {
    lane: usize,
    driver: Driver,
    control: &'s Control,
    listeners: Vec<(u64, Arc<Listener>)>,
    accepting: Accepting,
    connections_max: usize,
    connections: Slab<Connection<'s>>,
    timers: Timers,
    /// Connections with more to read than one turn allows.
    again: Vec<Key>,
    input: Box<[u8]>,
    context: Context<'s>,
}

/// Whether the listeners are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// The lane has as many connections as it may have.
    Full,
    /// Descriptors or memory ran out; tried again at this time.
    Exhausted {
        until_ms: u64,
    },
    /// Tried again, with no success yet.
    Retrying,
}

impl<'s> EventLoop<'s> {
    /// A loop that watches `listeners` and `control`, and has accepted nothing.
    pub fn new(
        lane: usize,
        listeners: &[Arc<Listener>],
        connections_max: usize,
        control: &'s Control,
        context: Context<'s>,
    ) -> io::Result<EventLoop<'s>> {
        let driver = Driver::new()?;
        driver.watch(control, TOKEN_CONTROL)?;
        let listeners: Vec<_> = (TOKEN_LISTENERS..).zip(listeners.iter().cloned()).collect();
        for (token, listener) in &listeners {
            driver.watch(&**listener, *token)?;
        }
        Ok(EventLoop {
            lane,
            driver,
            control,
            listeners,
            accepting: Accepting::Yes,
            connections_max,
            connections: Slab::default(),
            timers: Timers::default(),
            again: Vec::new(),
            input: vec![0; INPUT_BYTES].into(),
            context,
        })
    }

    /// Turns until a drain is over.
    pub fn run(&mut self) -> io::Result<()> {
        while !(self.context.draining && self.listeners.is_empty() && self.connections.is_empty()) {
            let count = self.driver.wait(self.patience_ms())?;
            self.context.begin_turn();
            for index in 0..count {
                let ready = self.driver.event(index);
                self.dispatch(ready)?;
            }
            self.read_again();
            while let Some(index) = self.timers.expire(self.context.now_ms) {
                if let Some(key) = self.connections.key_at(index) {
                    self.work(key, |connection, input, lane| connection.on_deadline(input, lane));
                }
            }
            self.accept_again()?;
            self.context.output.shrink_to(OUTPUT_BYTES_KEPT);
        }
        Ok(())
    }

    /// How long the next wait may take, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        if !self.again.is_empty() {
            return Some(0);
        }
        let accepting = match self.accepting {
            Accepting::Exhausted { until_ms } => Some(until_ms),
            _ => None,
        };
        let first = self.timers.next_ms().into_iter().chain(accepting).min()?;
        Some(first.saturating_sub(self.context.now_ms))
    }

    fn dispatch(&mut self, ready: Ready) -> io::Result<()> {
        match ready.token {
            TOKEN_CONTROL => self.hear(),
            TOKEN_LISTENERS.. => self.accept_from(ready.token),
            token => {
                let key = Key::from_token(token);
                self.work(key, |connection, input, lane| connection.on_ready(ready, input, lane));
                Ok(())
            }
        }
    }

    /// Lets `step` work on a connection and does what comes of it. A panic costs that connection alone.
    fn work(
        &mut self,
        key: Key,
        step: impl FnOnce(&mut Connection<'s>, &mut [u8], &mut Context<'s>) -> Next,
    ) {
        let Some(connection) = self.connections.find(key) else {
            return; // It was closed earlier in this turn.
        };
        let (input, context) = (&mut *self.input, &mut self.context);
        let held = connection.body_bytes();
        let attempt = panic::catch_unwind(AssertUnwindSafe(|| step(connection, input, context)));
        let next = attempt.unwrap_or_else(|payload| {
            self.control.report(self.lane, panicked(payload));
            let again = || connection.on_panic(input, context);
            panic::catch_unwind(AssertUnwindSafe(again)).unwrap_or(Next::Close)
        });
        context.body_bytes = context.body_bytes + connection.body_bytes() - held;
        match next {
            Next::Wait => {}
            Next::WaitUntil(deadline_ms) => self.timers.arm(key.index, deadline_ms),
            Next::Again(deadline_ms) => {
                self.timers.arm(key.index, deadline_ms);
                self.again.push(key);
            }
            Next::Close => self.close(key),
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.context.body_bytes -= connection.body_bytes();
            self.timers.disarm(key.index);
            self.context.counters.set_open(self.connections.len());
        }
    }

    /// Gives the connections that had more to read than a turn allows their next turn.
    fn read_again(&mut self) {
        for key in std::mem::take(&mut self.again) {
            let ready = Ready {
                token: key.to_token(),
                readable: true,
                writable: false,
                read_closed: false,
                broken: false,
            };
            self.work(key, |connection, input, lane| connection.on_ready(ready, input, lane));
        }
    }

    /// Accepts a batch from one listener.
    fn accept_from(&mut self, token: u64) -> io::Result<()> {
        let found = self.listeners.iter().find(|(of, _)| *of == token);
        let Some(listener) = found.map(|(_, listener)| listener.clone()) else {
            return Ok(());
        };
        for _ in 0..ACCEPTS_PER_TURN {
            if self.connections.len() >= self.connections_max {
                return self.pause_accepting(Accepting::Full);
            }
            match accept(&listener) {
                Accepted::Connection(socket) => {
                    if self.accepting == Accepting::Retrying {
                        self.accepting = Accepting::Yes;
                        self.control.report(self.lane, News::AcceptResumed);
                    }
                    self.adopt(socket);
                }
                Accepted::Transient => {}
                Accepted::Nobody if self.context.draining => return self.leave(token),
                Accepted::Nobody => return Ok(()),
                Accepted::Exhausted(error) => {
                    if self.accepting == Accepting::Yes {
                        self.control.report(self.lane, News::AcceptPaused(error.to_string()));
                    }
                    let until_ms = self.context.now_ms + ACCEPT_PAUSE_MS;
                    return self.pause_accepting(Accepting::Exhausted { until_ms });
                }
            }
        }
        Ok(())
    }

    /// Takes in an accepted connection.
    fn adopt(&mut self, socket: std::os::fd::OwnedFd) {
        let key = self.connections.insert(Connection::new(socket));
        let registered = match self.connections.find(key) {
            Some(connection) => self.driver.register(connection.socket(), key.to_token()),
            None => Ok(()),
        };
        if registered.is_err() {
            // The kernel has no memory to watch it with.
            return self.close(key);
        }
        let timeouts = &self.context.timeouts;
        let timeout_ms =
            if self.context.draining { DRAIN_GRACE_MS } else { timeouts.keep_alive_ms };
        self.timers.arm(key.index, self.context.now_ms + timeout_ms);
        self.context.counters.count_accepted();
        self.context.counters.set_open(self.connections.len());
    }

    fn pause_accepting(&mut self, reason: Accepting) -> io::Result<()> {
        self.accepting = reason;
        for (token, listener) in &self.listeners {
            self.driver.pause(listener.as_fd(), *token)?;
        }
        Ok(())
    }

    /// Watches the listeners again when there is room, or when it is time to try.
    fn accept_again(&mut self) -> io::Result<()> {
        self.accepting = match self.accepting {
            Accepting::Full if self.connections.len() < self.connections_max => Accepting::Yes,
            Accepting::Exhausted { until_ms } if until_ms <= self.context.now_ms => {
                Accepting::Retrying
            }
            _ => return Ok(()),
        };
        for (token, listener) in &self.listeners {
            self.driver.resume(listener.as_fd(), *token)?;
        }
        Ok(())
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Message(Command::Start(_)) => Ok(()),
            Received::Message(Command::Drain) => self.drain(),
            Received::End => {
                // An end stays readable: it would be told of in every turn.
                self.driver.forget(self.control.as_fd())?;
                self.drain()
            }
        }
    }

    /// Takes what waits in the accept queues, and then nothing new. Connections with nothing in flight get
    /// a short grace, for a request that may be on its way to them.
    fn drain(&mut self) -> io::Result<()> {
        if self.context.draining {
            return Ok(());
        }
        self.context.draining = true;
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            if self.connections.find(key).is_some_and(|connection| connection.is_idle()) {
                self.timers.arm(key.index, self.context.now_ms + DRAIN_GRACE_MS);
            }
        }
        let tokens: Vec<u64> = self.listeners.iter().map(|(token, _)| *token).collect();
        tokens.into_iter().try_for_each(|token| self.accept_from(token))
    }

    /// Closes one listener for this worker.
    fn leave(&mut self, token: u64) -> io::Result<()> {
        if let Some(at) = self.listeners.iter().position(|(of, _)| *of == token) {
            let (_, listener) = self.listeners.swap_remove(at);
            self.driver.forget(listener.as_fd())?;
        }
        Ok(())
    }
}

/// What to report of a panic, unless it was meant to escape.
fn panicked(payload: Box<dyn Any + Send>) -> News {
    if payload.is::<EscapingPanic>() {
        panic::resume_unwind(payload);
    }
    // A payload may itself panic when it is dropped, which nobody here could catch.
    std::mem::forget(payload);
    News::RequestPanicked(panics::take())
}
