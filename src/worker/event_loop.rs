//! The event loop of one lane: events to connections, deadlines, accepting, drain.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};

use super::connection::{Connection, DRAIN_GRACE_MS, Next};
use super::context::Context;
use super::control::{Command, Control, News, Order, Received};
use super::driver::epoll::Driver;
use super::fault::EscapingPanic;
use super::handoff::{Exchange, Intake, Packets};
use super::slab::{Key, Slab};
use super::sources::{ACCEPTS_PER_TURN, Rest, Source, Sources, TOKEN_CONTROL, TOKEN_SOURCES};
use super::timers::Timers;
use crate::config::{Accept, Config};
use crate::observe::panics;
use crate::sys::epoll::Ready;
use crate::sys::socket::Listener;

/// The read buffer of a lane, in bytes.
const INPUT_BYTES: usize = 64 * 1024;
/// How many turns the loop makes, at least, in the time after which the supervisor takes it for hung.
const TURNS_PER_WATCHDOG: u64 = 4;
/// An output buffer that grew beyond this is given back after the turn.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// The loop of one lane, for the life of one worker.
pub struct EventLoop<'s> {
    worker: u64,
    driver: Driver,
    control: &'s Control,
    sources: Sources<'s>,
    accept: Accept,
    /// The way from the acceptor, if it is a thread of this process.
    exchange: Option<&'s Exchange>,
    /// Whether the supervisor was told that the lane is full.
    told_full: bool,
    connections_max: usize,
    connections: Slab<Connection<'s>>,
    timers: Timers,
    /// Connections with more to read than one turn allows.
    again: VecDeque<Key>,
    input: Box<[u8]>,
    context: Context<'s>,
    /// Whether the supervisor was told that this worker, which drains, accepts no more.
    has_left: bool,
    /// When a drain closes what is left.
    drain_until_ms: Option<u64>,
    /// The longest wait, so that the supervisor sees a turn often enough.
    patience_max_ms: Option<u64>,
}

impl<'s> EventLoop<'s> {
    /// A loop that watches `control`, and accepts from nobody yet.
    pub fn new(
        worker: u64,
        config: &Config,
        control: &'s Control,
        context: Context<'s>,
        exchange: Option<&'s Exchange>,
    ) -> io::Result<EventLoop<'s>> {
        let driver = Driver::new()?;
        driver.watch(control, TOKEN_CONTROL)?;
        let watchdog_ms = config.supervisor.watchdog.as_millis() as u64;
        Ok(EventLoop {
            worker,
            driver,
            control,
            sources: Sources::new(worker, control),
            accept: config.workers.accept,
            exchange,
            told_full: false,
            connections_max: config.workers.max_connections as usize,
            connections: Slab::default(),
            timers: Timers::default(),
            again: VecDeque::new(),
            input: vec![0; INPUT_BYTES].into(),
            context,
            has_left: false,
            drain_until_ms: None,
            patience_max_ms: (watchdog_ms > 0).then(|| (watchdog_ms / TURNS_PER_WATCHDOG).max(1)),
        })
    }

    /// Turns until a drain is over.
    pub fn run(&mut self) -> io::Result<()> {
        while !(self.context.draining && self.sources.is_empty() && self.connections.is_empty()) {
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
            let has_room = self.connections.len() < self.connections_max;
            self.sources.resume(has_room, self.context.now_ms, &self.driver)?;
            if self.sources.has_rest(self.context.now_ms) {
                self.accept_the_rest()?;
            }
            if self.context.draining && self.sources.is_empty() && !self.has_left {
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
        if !self.again.is_empty() || self.sources.has_rest(self.context.now_ms) {
            return Some(0);
        }
        let sources = self.sources.due_ms(self.context.now_ms);
        let due = self.timers.next_ms().into_iter().chain(sources).chain(self.drain_until_ms);
        let due = due.map(|due_ms| due_ms.saturating_sub(self.context.now_ms));
        due.chain(self.patience_max_ms).min()
    }

    fn dispatch(&mut self, ready: Ready) -> io::Result<()> {
        match ready.token {
            TOKEN_CONTROL => self.hear(),
            TOKEN_SOURCES.. => self.accept_from(ready.token),
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
                self.again.push_back(key);
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
        // Who is put back while the others have their turn is behind them, and waits for the next.
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else { return };
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

    /// Accepts a batch from one source.
    fn accept_from(&mut self, token: u64) -> io::Result<()> {
        for count in 0.. {
            // Whoever came in one packet with others is served with them, for nobody else can.
            if !self.sources.has_begun_batch(token) {
                if self.connections.len() >= self.connections_max {
                    return self.sources.rest(Rest::Full, &self.driver);
                }
                if count >= ACCEPTS_PER_TURN {
                    break;
                }
            }
            match self.sources.next(token, self.context.now_ms, &self.driver)? {
                Some(socket) => self.adopt(socket),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes in an accepted connection.
    fn adopt(&mut self, socket: OwnedFd) {
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
        self.context.counters.set_open(self.connections.len());
        self.context.counters.count_accepted();
    }

    /// Tells the supervisor when the lane has become full, so that others take what comes, and when it has room
    /// again: some room, not a single place, which would be told of with every connection.
    fn tell_room(&mut self) {
        let is_full = match self.told_full {
            false => self.sources.is_full(),
            true => {
                self.connections.len() > self.connections_max - self.connections_max.div_ceil(8)
            }
        };
        if is_full != self.told_full && self.control.try_report(self.worker, News::Full(is_full)) {
            self.told_full = is_full;
        }
    }

    /// Takes what waits in the accept queues, a batch from each, and lets go of those that are empty.
    fn accept_the_rest(&mut self) -> io::Result<()> {
        self.sources.tokens(None).into_iter().try_for_each(|token| self.accept_from(token))
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Message(Command::Start(_), _) => Ok(()),
            Received::Message(Command::To(_, order), files) => self.obey(order, files),
            Received::Message(Command::Drain, _) => {
                // Who is handed connections is told when those were all.
                let is_handed = self.accept == Accept::Handoff;
                self.drain(if is_handed { u64::MAX } else { self.context.now_ms });
                Ok(())
            }
            Received::Message(Command::Seal, _) => {
                self.sources.drain(self.context.now_ms);
                Ok(())
            }
            Received::End => {
                // An end stays readable: it would be told of in every turn.
                self.driver.forget(self.control.as_fd())?;
                if !self.context.draining {
                    self.control.report(self.worker, News::Leaving);
                    // Perhaps nobody will say when the acceptor has handed out what it has.
                    let is_handed = self.accept == Accept::Handoff;
                    let grace_ms = if is_handed { DRAIN_GRACE_MS } else { 0 };
                    self.drain(self.context.now_ms + grace_ms);
                }
                Ok(())
            }
        }
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Take(lane) => self.take(lane, files),
            Order::Leave(lane) => {
                for token in self.sources.tokens(Some(lane)) {
                    while self.sources.has_begun_batch(token) {
                        self.accept_from(token)?;
                    }
                    self.sources.forget(token, &self.driver)?;
                }
                Ok(())
            }
            Order::Drain(timeout_ms) => {
                self.drain_until_ms = Some(self.context.now_ms + timeout_ms);
                self.drain(self.context.now_ms);
                Ok(())
            }
            Order::Feed { .. } | Order::Spare(_) => Ok(()),
        }
    }

    /// Accepts from what a lane has.
    fn take(&mut self, lane: usize, files: Vec<OwnedFd>) -> io::Result<()> {
        let source = |file| match self.accept {
            Accept::Handoff => Source::Intake(Intake::Process(Packets::from(file))),
            Accept::Reuseport | Accept::Shared => Source::Listener(Listener::from(file)),
        };
        let mut sources: Vec<Source> = files.into_iter().map(source).collect();
        if let (Accept::Handoff, Some(exchange)) = (self.accept, self.exchange) {
            sources.push(Source::Intake(exchange.intake(lane)?));
        }
        sources.into_iter().try_for_each(|source| self.sources.watch(lane, source, &self.driver))
    }

    /// Takes what waits in the accept queues, from `lets_go_ms` on nothing new. Connections with nothing in flight get
    /// a short grace, for a request that may be on its way to them.
    fn drain(&mut self, lets_go_ms: u64) {
        self.context.draining = true;
        self.sources.drain(lets_go_ms);
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
