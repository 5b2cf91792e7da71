//! The event loop of one lane: events to connections, deadlines, accepting, drain.

use std::any::Any;
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};

use super::connection::{Connection, DRAIN_GRACE_MS, Next};
use super::context::Context;
use super::control::{Command, Control, News, Order, Received};
use super::driver::epoll::{Accepted, Driver, accept};
use super::fault::EscapingPanic;
use super::slab::{Key, Slab};
use super::timers::Timers;
use crate::config::Config;
use crate::observe::panics;
use crate::sys::epoll::Ready;
use crate::sys::socket::Listener;

/// The read buffer of a lane, in bytes.
const INPUT_BYTES: usize = 64 * 1024;
/// Connections accepted from one listener in one turn, before others have theirs.
const ACCEPTS_PER_TURN: usize = 64;
/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_PAUSE_MS: u64 = 100;
/// How many turns the loop makes, at least, in the time after which the supervisor takes it for hung.
const TURNS_PER_WATCHDOG: u64 = 4;
/// An output buffer that grew beyond this is given back after the turn.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// Tokens from here on are not connections.
const TOKEN_CONTROL: u64 = u64::MAX;
const TOKEN_LISTENERS: u64 = u64::MAX - (1 << 20);

/// The loop of one lane, for the life of one worker.
pub struct EventLoop<'s> {
    worker: u64,
    driver: Driver,
    control: &'s Control,
    listeners: Vec<Watched>,
    next_listener: u64,
    accepting: Accepting,
    /// Whether the supervisor was told that the lane is full.
    told_full: bool,
    /// Descriptors or memory ran out, and since then the accept queue was never emptied.
    exhausted: bool,
    connections_max: usize,
    connections: Slab<Connection<'s>>,
    timers: Timers,
    /// Connections with more to read than one turn allows.
    again: Vec<Key>,
    input: Box<[u8]>,
    context: Context<'s>,
    /// Whether the supervisor was told that this worker, which drains, accepts no more.
    has_left: bool,
    /// When a drain closes what is left.
    drain_until_ms: Option<u64>,
    /// The longest wait, so that the supervisor sees a turn often enough.
    patience_max_ms: Option<u64>,
}

/// A listener that this worker accepts from.
struct Watched {
    token: u64,
    /// Whose it is: this worker's own lane's, or an adopted one's.
    lane: usize,
    listener: Listener,
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
}

impl<'s> EventLoop<'s> {
    /// A loop that watches `control`, and accepts from nobody yet.
    pub fn new(
        worker: u64,
        config: &Config,
        control: &'s Control,
        context: Context<'s>,
    ) -> io::Result<EventLoop<'s>> {
        let driver = Driver::new()?;
        driver.watch(control, TOKEN_CONTROL)?;
        let watchdog_ms = config.supervisor.watchdog.as_millis() as u64;
        Ok(EventLoop {
            worker,
            driver,
            control,
            listeners: Vec::new(),
            next_listener: 0,
            accepting: Accepting::Yes,
            told_full: false,
            exhausted: false,
            connections_max: config.workers.max_connections as usize,
            connections: Slab::default(),
            timers: Timers::default(),
            again: Vec::new(),
            input: vec![0; INPUT_BYTES].into(),
            context,
            has_left: false,
            drain_until_ms: None,
            patience_max_ms: (watchdog_ms > 0).then(|| (watchdog_ms / TURNS_PER_WATCHDOG).max(1)),
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
            self.tell_room();
            self.accept_again()?;
            if self.has_rest() {
                self.accept_the_rest()?;
            }
            if self.context.draining && self.listeners.is_empty() && !self.has_left {
                self.has_left = true;
                self.control.report(self.worker, News::Left);
            }
            self.context.output.shrink_to(OUTPUT_BYTES_KEPT);
            if self.drain_until_ms.is_some_and(|until_ms| until_ms <= self.context.now_ms) {
                self.cut();
                return Ok(());
            }
        }
        Ok(())
    }

    /// How long the next wait may take, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        if !self.again.is_empty() || self.has_rest() {
            return Some(0);
        }
        let accepting = match self.accepting {
            Accepting::Exhausted { until_ms } => Some(until_ms),
            _ => None,
        };
        let due = self.timers.next_ms().into_iter().chain(accepting).chain(self.drain_until_ms);
        let due = due.map(|due_ms| due_ms.saturating_sub(self.context.now_ms));
        due.chain(self.patience_max_ms).min()
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
            self.control.report(self.worker, panicked(payload));
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
        for _ in 0..ACCEPTS_PER_TURN {
            let found = self.listeners.iter().find(|watched| watched.token == token);
            let Some(Watched { listener, .. }) = found else {
                return Ok(());
            };
            if self.connections.len() >= self.connections_max {
                return self.pause_accepting(Accepting::Full);
            }
            match accept(listener) {
                Accepted::Connection(socket) => {
                    self.adopt(socket);
                }
                Accepted::Transient => {}
                Accepted::Nobody if self.context.draining => return self.forget(token),
                Accepted::Closed => return self.forget(token),
                Accepted::Nobody => {
                    // Everybody who waited was accepted: now it is over.
                    if std::mem::take(&mut self.exhausted) {
                        self.control.report(self.worker, News::AcceptResumed);
                    }
                    return Ok(());
                }
                // The kernel asks for a descriptor before it looks whether anybody waits.
                Accepted::Exhausted(_) if self.context.draining && is_empty(listener) => {
                    return self.forget(token);
                }
                Accepted::Exhausted(error) => {
                    if !std::mem::replace(&mut self.exhausted, true) {
                        self.control.report(self.worker, News::AcceptPaused(error.to_string()));
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
        if std::mem::replace(&mut self.accepting, reason) != Accepting::Yes {
            return Ok(());
        }
        self.listeners.iter().try_for_each(|watched| self.driver.forget(watched.listener.as_fd()))
    }

    /// Tells the supervisor when the lane has become full, so that others take what comes, and when it has room
    /// again: some room, not a single place, which would be told of with every connection.
    fn tell_room(&mut self) {
        let is_full = match self.told_full {
            false => self.accepting == Accepting::Full,
            true => {
                self.connections.len() > self.connections_max - self.connections_max.div_ceil(8)
            }
        };
        if is_full != self.told_full && self.control.try_report(self.worker, News::Full(is_full)) {
            self.told_full = is_full;
        }
    }

    /// Watches the listeners again when there is room, or when it is time to try.
    fn accept_again(&mut self) -> io::Result<()> {
        self.accepting = match self.accepting {
            Accepting::Full if self.connections.len() < self.connections_max => Accepting::Yes,
            Accepting::Exhausted { until_ms } if until_ms <= self.context.now_ms => Accepting::Yes,
            _ => return Ok(()),
        };
        let watch = |of: &Watched| self.driver.watch_listener(&of.listener, of.token);
        self.listeners.iter().try_for_each(watch)
    }

    /// Whether a drain has listeners to look into: no event would tell that one is empty.
    fn has_rest(&self) -> bool {
        self.context.draining && self.accepting == Accepting::Yes && !self.listeners.is_empty()
    }

    /// Takes what waits in the accept queues, a batch from each, and lets go of those that are empty.
    fn accept_the_rest(&mut self) -> io::Result<()> {
        let tokens: Vec<u64> = self.listeners.iter().map(|watched| watched.token).collect();
        tokens.into_iter().try_for_each(|token| self.accept_from(token))
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Message(Command::Start(_), _) => Ok(()),
            Received::Message(Command::To(_, Order::Take(lane)), files) => {
                files.into_iter().try_for_each(|file| self.watch(lane, Listener::from(file)))
            }
            Received::Message(Command::To(_, Order::Leave(lane)), _) => {
                let of_lane = self.listeners.iter().filter(|watched| watched.lane == lane);
                let tokens: Vec<u64> = of_lane.map(|watched| watched.token).collect();
                tokens.into_iter().try_for_each(|token| self.forget(token))
            }
            Received::Message(Command::To(_, Order::Drain(timeout_ms)), _) => {
                self.drain_until_ms = Some(self.context.now_ms + timeout_ms);
                self.drain();
                Ok(())
            }
            Received::Message(Command::Drain, _) => {
                self.drain();
                Ok(())
            }
            Received::End => {
                // An end stays readable: it would be told of in every turn.
                self.driver.forget(self.control.as_fd())?;
                if !self.context.draining {
                    self.control.report(self.worker, News::Leaving);
                    self.drain();
                }
                Ok(())
            }
        }
    }

    /// Accepts from one more listener.
    fn watch(&mut self, lane: usize, listener: Listener) -> io::Result<()> {
        if self.context.draining {
            return Ok(());
        }
        let token = TOKEN_LISTENERS + self.next_listener;
        self.next_listener = (self.next_listener + 1) % (TOKEN_CONTROL - TOKEN_LISTENERS);
        if self.accepting == Accepting::Yes {
            self.driver.watch_listener(&listener, token)?;
        }
        self.listeners.push(Watched { token, lane, listener });
        Ok(())
    }

    /// Takes what waits in the accept queues, and then nothing new. Connections with nothing in flight get
    /// a short grace, for a request that may be on its way to them.
    fn drain(&mut self) {
        self.context.draining = true;
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            if self.connections.find(key).is_some_and(|connection| connection.is_idle()) {
                self.timers.arm(key.index, self.context.now_ms + DRAIN_GRACE_MS);
            }
        }
    }

    /// Closes what a drain has left when its time is over.
    fn cut(&mut self) {
        self.control.report(self.worker, News::Cut(self.connections.len()));
        let keys: Vec<Key> = self.connections.keys().collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// Closes one listener for this worker. Others have copies, so that closing ours is not enough to stop
    /// watching it.
    fn forget(&mut self, token: u64) -> io::Result<()> {
        let Some(at) = self.listeners.iter().position(|watched| watched.token == token) else {
            return Ok(());
        };
        let watched = self.listeners.swap_remove(at);
        if self.accepting == Accepting::Yes {
            self.driver.forget(watched.listener.as_fd())?;
        }
        Ok(())
    }
}

/// Whether nobody waits in the accept queue.
fn is_empty(listener: &Listener) -> bool {
    listener.accept_queue().is_ok_and(|queue| queue.waiting == 0)
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
