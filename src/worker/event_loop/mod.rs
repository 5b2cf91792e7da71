//! The event loop of one lane: events to connections, deadlines, accepting, drain.

mod idle_queue;
mod slab;
pub mod timers;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};

use crate::config::{Accept, Config};
use crate::control::{
    Command, Control, DrainKind, Missed, Order, Received, WorkerEvent, WorkerNumber,
};
use crate::observe::panics;
use crate::sys::epoll::Ready;
use crate::sys::memory;
use crate::sys::ring::Unsent;
use crate::sys::ring::buffers::Buffer;
use crate::sys::socket::Listener;
use crate::worker::accepting::channels::{Exchange, Intake, Packets};
use crate::worker::accepting::sources::{ACCEPTS_PER_TURN, Rest, Source, Sources};
use crate::worker::connection::{Connection, DRAIN_GRACE_MS, Next};
use crate::worker::context::Context;
use crate::worker::driver::token::{Key, Token};
use crate::worker::driver::{Driver, Event, Input};
use crate::worker::fault::EscapingPanic;
use idle_queue::{IdleQueue, Pace};
use slab::Slab;
use timers::Timers;

/// How many turns the loop makes, at least, in the time after which the supervisor takes it for hung.
const TURNS_PER_WATCHDOG: u64 = 4;
/// After so long a little room is worth telling, too.
const ROOM_MS: u64 = 20;
/// An output buffer that grew beyond this is given back after the turn.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;
/// Less than this isn't worth the search for memory to give back.
const RETURNED_BYTES_MIN: usize = 16 * 1024 * 1024;

/// The loop of one lane, for the life of one worker.
pub struct EventLoop<'s> {
    worker: WorkerNumber,
    driver: Driver,
    control: &'s Control,
    sources: Sources<'s>,
    accept: Accept,
    /// The way from the acceptor, if it is a thread of this process.
    exchange: Option<&'s Exchange>,
    /// Whether the supervisor was told that the lane is full, and since when that is not so any more.
    told_full: bool,
    room_since_ms: Option<u64>,
    connections_max: usize,
    connections: Slab<Connection<'s>>,
    timers: Timers,
    /// Idle connections whose deadline has passed.
    idle: IdleQueue,
    /// Connections with more to read than one turn allows.
    again: VecDeque<Key>,
    /// Connections with more to throw away than one turn allows.
    discards: VecDeque<Key>,
    context: Context<'s>,
    /// The most that was held for connections since memory was given back.
    held_peak: usize,
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
        worker: WorkerNumber,
        config: &Config,
        mut driver: Driver,
        control: &'s Control,
        context: Context<'s>,
        exchange: Option<&'s Exchange>,
    ) -> io::Result<EventLoop<'s>> {
        driver.watch(control, Token::Control)?;
        let mut sources = Sources::new(worker, control);
        if config.workers.accept == Accept::Shared && matches!(driver, Driver::IoUring(_)) {
            sources = sources.rechecking();
        }
        let watchdog_ms = config.supervisor.watchdog.as_millis() as u64;
        Ok(EventLoop {
            worker,
            driver,
            control,
            sources,
            accept: config.workers.accept,
            exchange,
            told_full: false,
            room_since_ms: None,
            connections_max: config.workers.max_connections as usize,
            connections: Slab::default(),
            timers: Timers::default(),
            idle: IdleQueue::default(),
            again: VecDeque::new(),
            discards: VecDeque::new(),
            context,
            held_peak: 0,
            has_left: false,
            drain_until_ms: None,
            patience_max_ms: (watchdog_ms > 0).then(|| (watchdog_ms / TURNS_PER_WATCHDOG).max(1)),
        })
    }

    /// Turns until a drain is over.
    pub fn run(&mut self) -> io::Result<()> {
        while !(self.context.draining.is_some()
            && self.sources.is_empty()
            && self.connections.is_empty())
        {
            let count = self.driver.wait(self.patience_ms(), |token| self.sources.fd_of(token))?;
            self.context.begin_turn();
            self.keep_unsent();
            for _ in 0..count {
                let Some(event) = self.driver.next_event() else { break };
                self.dispatch(event)?;
            }
            self.read_again();
            self.expire();
            self.tell_room();
            self.sources.tell_missed(self.context.now_ms);
            let has_room = self.connections.len() < self.connections_max;
            self.sources.resume(has_room, self.context.now_ms, &mut self.driver)?;
            if self.sources.has_rest(self.context.now_ms) {
                self.accept_waiting(None)?;
            } else if self.sources.is_recheck_due(self.context.now_ms) {
                let before = self.context.counters.accepted();
                self.accept_waiting(None)?;
                let found = self.context.counters.accepted() > before;
                self.sources.rechecked(found, self.context.now_ms);
            }
            if self.context.draining.is_some() && self.sources.is_empty() && !self.has_left {
                self.has_left = true;
                self.control.report(self.worker, WorkerEvent::StoppedAccepting);
            }
            self.context.output.shrink_to(OUTPUT_BYTES_KEPT);
            self.give_memory_back();
            if self.drain_until_ms.is_some_and(|until_ms| until_ms <= self.context.now_ms) {
                self.cut();
                return Ok(());
            }
        }
        Ok(())
    }

    /// How long the next wait may take, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        if !self.again.is_empty()
            || !self.discards.is_empty()
            || self.sources.has_rest(self.context.now_ms)
        {
            return Some(0);
        }
        let sources = self.sources.due_ms(self.context.now_ms);
        let room = self.room_since_ms.map(|since_ms| since_ms + ROOM_MS);
        let due = self.timers.next_ms().into_iter().chain(sources).chain(room);
        let due = due.chain(self.drain_until_ms).chain(self.idle.due_ms());
        let due = due.map(|due_ms| due_ms.saturating_sub(self.context.now_ms));
        due.chain(self.patience_max_ms).min()
    }

    fn dispatch(&mut self, event: Event) -> io::Result<()> {
        let token = event.token();
        let Event { ready, buffer } = event;
        match token {
            Token::Control => self.hear(),
            Token::Source(number) => self.accept_from(number),
            Token::Client(key) => {
                self.work(key, buffer.as_ref(), |connection, input, lane| {
                    connection.on_ready(ready, input, lane)
                });
                self.driver.give_back(buffer);
                Ok(())
            }
        }
    }

    /// Lets `step` work on a connection, which may find its bytes in `buffer`, and does what comes of it. A panic
    /// costs that connection alone.
    fn work(
        &mut self,
        key: Key,
        buffer: Option<&Buffer>,
        step: impl FnOnce(&mut Connection<'s>, &mut Input<'_>, &mut Context<'s>) -> Next,
    ) {
        let token = key.to_token();
        self.driver.settle(token);
        self.keep_unsent();
        let Some(connection) = self.connections.find(key) else {
            return; // It was closed earlier in this turn.
        };
        let (mut input, context) = (self.driver.input(token, buffer), &mut self.context);
        let held = connection.held_bytes();
        context.held_elsewhere = context.held_bytes - held;
        let attempt =
            panic::catch_unwind(AssertUnwindSafe(|| step(connection, &mut input, context)));
        let mut next = attempt.unwrap_or_else(|payload| {
            self.control.report(self.worker, panicked(payload));
            let again = || connection.on_panic(&mut input, context);
            panic::catch_unwind(AssertUnwindSafe(again)).unwrap_or(Next::Close)
        });
        next = connection.end_turn(next, &mut self.driver, token, context);
        context.held_bytes = context.held_elsewhere + connection.held_bytes();
        if let (false, Next::Again(_) | Next::Discard(_)) = (connection.is_queued(), &next) {
            connection.set_queued(true);
            let reads = matches!(next, Next::Again(_));
            if reads { self.again.push_back(key) } else { self.discards.push_back(key) }
        }
        self.driver.adjust(connection.socket(), token, connection.interest());
        self.follow(key, next);
    }

    /// Gives back to connections what they had sent and the socket had no room for.
    fn keep_unsent(&mut self) {
        while let Some(Unsent { token, rest }) = self.driver.next_unsent() {
            let Token::Client(key) = Token::from_bits(token) else { continue };
            match (self.connections.find(key), rest) {
                (Some(connection), Some(rest)) => {
                    let context = &mut self.context;
                    context.held_elsewhere = context.held_bytes - connection.held_bytes();
                    let next = connection.keep_unsent(&rest, context);
                    context.held_bytes = context.held_elsewhere + connection.held_bytes();
                    self.driver.adjust(connection.socket(), token, connection.interest());
                    self.follow(key, next);
                }
                (Some(_), None) => self.close(key),
                (None, _) => {}
            }
        }
    }

    /// Does what a step on a connection came to.
    fn follow(&mut self, key: Key, next: Next) {
        match next {
            Next::Wait => {}
            Next::WaitUntil(deadline_ms) => self.timers.arm(key.index, deadline_ms),
            Next::Again(deadline_ms) | Next::Discard(deadline_ms) => {
                self.timers.arm(key.index, deadline_ms);
            }
            Next::Close => self.close(key),
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.driver.release(key.to_token());
            self.context.held_bytes -= connection.held_bytes();
            self.timers.disarm(key.index);
            self.context.counters.set_open(self.connections.len());
        }
    }

    /// Gives memory back to the kernel when most of what was held for connections is gone.
    fn give_memory_back(&mut self) {
        let held = self.context.held_bytes;
        self.held_peak = self.held_peak.max(held);
        if self.held_peak >= RETURNED_BYTES_MIN && held < self.held_peak / 8 {
            memory::return_free();
            self.held_peak = held;
        }
    }

    /// Gives the connections that had more to read than a turn allows their next turn.
    fn read_again(&mut self) {
        // One that is put back while the others have their turn is behind them, and waits for the next.
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else { break };
            self.read_queued(key);
        }
        for _ in 0..self.discards.len() {
            if self.context.discards_left == 0 {
                break;
            }
            let Some(key) = self.discards.pop_front() else { break };
            self.read_queued(key);
        }
    }

    fn read_queued(&mut self, key: Key) {
        if let Some(connection) = self.connections.find(key) {
            connection.set_queued(false);
        }
        // The event that told of an end may have come, and gone, meanwhile: only a read tells.
        let ready = Ready { readable: true, read_closed: true, ..Ready::quiet(key.to_token()) };
        self.work(key, None, |connection, input, lane| connection.on_ready(ready, input, lane));
    }

    /// Works on the deadlines that have passed. Idle connections leave a few at a time.
    fn expire(&mut self) {
        let now_ms = self.context.now_ms;
        while let Some(index) = self.timers.expire(now_ms) {
            let Some(key) = self.connections.key_at(index) else { continue };
            match self.connections.find(key).is_some_and(|connection| connection.is_idle()) {
                true => self.idle.push(key),
                false => self.work(key, None, Connection::on_deadline),
            }
        }
        let is_stop = self.context.draining == Some(DrainKind::Stop);
        let pace = if is_stop { Pace::BRISK } else { Pace::CALM };
        loop {
            // One that was used meanwhile has another deadline.
            let (connections, timers) = (&mut self.connections, &self.timers);
            let is_idle = |key: Key| {
                connections.find(key).is_some() && timers.deadline_ms(key.index).is_none()
            };
            let Some(key) = self.idle.next(now_ms, pace, is_idle) else { break };
            self.work(key, None, Connection::on_deadline);
        }
    }

    /// Accepts a batch from one source.
    fn accept_from(&mut self, source: u32) -> io::Result<()> {
        for count in 0.. {
            // Whoever came in one packet with others is served with them, for nobody else can.
            if !self.sources.has_begun_batch(source) {
                if self.connections.len() >= self.connections_max {
                    return self.sources.rest(Rest::Full, &mut self.driver);
                }
                if count >= ACCEPTS_PER_TURN {
                    break;
                }
            }
            match self.sources.next(source, self.context.now_ms, &mut self.driver)? {
                Some(socket) => self.adopt(socket),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes in an accepted connection.
    fn adopt(&mut self, socket: OwnedFd) {
        let connection = Connection::new(socket);
        let timeout_ms = connection.idle_timeout_ms(&self.context);
        let key = self.connections.insert(connection);
        let registered = match self.connections.find(key) {
            Some(connection) => self.driver.register(connection.socket(), key.to_token()),
            None => Ok(()),
        };
        self.context.counters.set_open(self.connections.len());
        // Also one that is closed at once: the acceptor would take it for one that is on its way here.
        self.context.counters.count_accepted();
        match registered {
            Ok(()) => self.timers.arm(key.index, self.context.now_ms + timeout_ms),
            // The kernel has no memory to watch it with.
            Err(_) => self.close(key),
        }
    }

    /// Tells the supervisor when the lane has become full, so that others take what comes, and when it has room
    /// again: much, or for a while. A single place would be told of with every connection.
    fn tell_room(&mut self) {
        let (now_ms, open, max) =
            (self.context.now_ms, self.connections.len(), self.connections_max);
        self.room_since_ms =
            (self.told_full && open < max).then(|| self.room_since_ms.unwrap_or(now_ms));
        let is_full = match self.room_since_ms {
            None => self.told_full || self.sources.is_full(),
            Some(since_ms) => open > max - max.div_ceil(8) && now_ms < since_ms + ROOM_MS,
        };
        if is_full != self.told_full {
            match self.control.try_report(self.worker, WorkerEvent::Full(is_full)) {
                true => self.told_full = is_full,
                false => self.room_since_ms = self.room_since_ms.map(|_| now_ms),
            }
        }
    }

    /// Takes what waits in the accept queues of a lane, or of all: a batch from each. In a drain it lets go of those
    /// that are empty.
    fn accept_waiting(&mut self, lane: Option<usize>) -> io::Result<()> {
        self.sources.numbers(lane).into_iter().try_for_each(|source| self.accept_from(source))
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Exhausted | Received::Message(Command::Start(_), _) => {
                Ok(())
            }
            Received::Message(Command::To(_, order), files) => self.obey(order, files),
            Received::Message(Command::Drain(kind), _) => {
                self.drain_with_process(kind);
                Ok(())
            }
            Received::Message(Command::Seal, _) => {
                self.sources.drain(self.context.now_ms);
                Ok(())
            }
            Received::End => {
                // An end stays readable: it would be told of in every turn.
                self.driver.forget(self.control.as_fd(), Token::Control)?;
                if self.context.draining.is_none() {
                    self.control.report(self.worker, WorkerEvent::ToldToEnd);
                }
                self.drain_with_process(DrainKind::Stop);
                Ok(())
            }
        }
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Take { lane, files: count } if files.len() < count => {
                self.sources.miss(lane, Missed::Sockets, self.context.now_ms);
                Ok(())
            }
            Order::Take { lane, .. } => self.take(lane, files),
            Order::Release(lane) => {
                self.sources.forget_missed(lane, Missed::Sockets);
                for source in self.sources.numbers(Some(lane)) {
                    while self.sources.has_begun_batch(source) {
                        self.accept_from(source)?;
                    }
                    if self.accept == Accept::Shared {
                        self.sources.unwatch(source, &mut self.driver)?;
                        self.accept_from(source)?; // Nobody else was told of who came just before.
                    }
                    self.sources.forget(source, &mut self.driver)?;
                }
                Ok(())
            }
            Order::PollAgain(lane) => self.accept_waiting(Some(lane)),
            Order::Drain { timeout_ms } => {
                self.drain_until_ms = Some(self.context.now_ms + timeout_ms);
                self.drain(DrainKind::Replaced, self.context.now_ms);
                Ok(())
            }
            Order::Attach { .. } | Order::Detach(_) => Ok(()),
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
        sources
            .into_iter()
            .try_for_each(|source| self.sources.watch(lane, source, &mut self.driver))
    }

    /// Drains because the whole process does. Who is handed connections goes on taking them until he is told that those
    /// were all, or until the way from the acceptor, who hands out what it has, ends.
    fn drain_with_process(&mut self, kind: DrainKind) {
        let is_handed = self.accept == Accept::Handoff;
        self.drain(kind, if is_handed { u64::MAX } else { self.context.now_ms });
    }

    /// Takes what waits in the accept queues, from `lets_go_ms` on nothing new. Connections with nothing in flight get
    /// a short grace, for a request that may be on its way to them; in a drain that doesn't stop the server, those that
    /// were never used have `timeouts.header` from their accept. No deadline moves away by this.
    fn drain(&mut self, kind: DrainKind, lets_go_ms: u64) {
        self.sources.drain(lets_go_ms);
        let before = self.context.draining;
        if before.is_some_and(|before| before >= kind) {
            return;
        }
        self.context.draining = Some(kind);
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            if kind == DrainKind::Stop
                && let Some(connection) = self.connections.find(key)
                && let Some(until_ms) = connection.linger_briefly(self.context.now_ms)
                && let Some(deadline_ms) = self.timers.deadline_ms(key.index)
            {
                self.timers.arm(key.index, until_ms.min(deadline_ms));
            }
            let idle = self.connections.find(key).filter(|connection| connection.is_idle());
            // One without a deadline is about to leave.
            let deadline_ms = self.timers.deadline_ms(key.index);
            let (Some(connection), Some(deadline_ms)) = (idle, deadline_ms) else { continue };
            let mut until_ms = self.context.now_ms + DRAIN_GRACE_MS;
            if kind == DrainKind::Replaced && connection.is_fresh() {
                let timeouts = &self.context.timeouts;
                let accepted_ms = deadline_ms.saturating_sub(timeouts.keep_alive_ms);
                until_ms = until_ms.max(accepted_ms + timeouts.header_ms);
            }
            self.timers.arm(key.index, until_ms.min(deadline_ms));
        }
    }

    /// Closes what a drain has left when its time is over.
    fn cut(&mut self) {
        self.control.report(self.worker, WorkerEvent::DrainDeadline(self.connections.len()));
        let keys: Vec<Key> = self.connections.keys().collect();
        keys.into_iter().for_each(|key| self.close(key));
    }
}

/// What to report of a panic, unless it was meant to escape.
fn panicked(payload: Box<dyn Any + Send>) -> WorkerEvent {
    if payload.is::<EscapingPanic>() {
        panic::resume_unwind(payload);
    }
    // A payload may itself panic when it is dropped, which nobody here could catch.
    std::mem::forget(payload);
    WorkerEvent::RequestPanicked(panics::take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};
    use crate::observe::ledger::Ledger;
    use crate::sys::socket::packet_pair;
    use crate::worker::driver::epoll;
    use crate::worker::{self, Generation};
    use std::fs::File;
    use std::sync::Arc;

    #[test]
    fn a_connection_that_can_not_be_watched_counts_as_taken_and_not_as_open() {
        let config = config::load(&Options::default()).expect("the defaults").config;
        let ledger = Arc::new(Ledger::new(1).expect("a ledger"));
        let generation = Generation::new(1, config, Arc::new([]), Arc::clone(&ledger));
        let config = &generation.config;
        let limits = worker::limits(config);
        let (ours, _theirs) = packet_pair().expect("a pair");
        let control = Control::new(ours);
        let driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
        let context = Context::new(&generation.site, &limits, config, &ledger, 0);
        let mut event_loop =
            EventLoop::new(WorkerNumber(1), config, driver, &control, context, None)
                .expect("a loop");
        // epoll refuses what has no readiness to tell of.
        event_loop.adopt(File::open("/dev/null").expect("a file").into());
        let counters = ledger.block(0);
        assert_eq!((counters.accepted(), counters.open()), (1, 0));
    }
}
