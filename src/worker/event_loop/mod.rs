//! The event loop of one lane: what wakes it, and what it does then in each turn. It works on connections and their
//! deadlines here; it accepts in `accept`, hears the supervisor in `orders`, and leaves in `drain`.

mod accept;
mod drain;
mod idle_queue;
mod orders;
mod slab;
pub mod timers;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::config::{Accept, Config};
use crate::control::{Control, DrainKind, WorkerEvent, WorkerNumber};
use crate::observe::ledger::labels::RejectedFor;
use crate::observe::panics;
use crate::sys::epoll::Ready;
use crate::sys::memory;
use crate::sys::ring::Unsent;
use crate::sys::ring::buffers::Buffer;
use crate::worker::accepting::channels::Channels;
use crate::worker::accepting::sources::Sources;
use crate::worker::connection::{Connection, Next};
use crate::worker::context::Context;
use crate::worker::context::clients::Client;
use crate::worker::context::inquiries::Inquiries;
use crate::worker::context::jobs::{Wakeups, Woken};
use crate::worker::driver::token::{Key, Token};
use crate::worker::driver::{Driver, Event, Input};
use crate::worker::fault::EscapingPanic;
use crate::worker::patience_max_ms;
use idle_queue::{IdleQueue, Pace};
use slab::Slab;
use timers::Timers;

/// An output buffer that grew beyond this is given back after the turn.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;
/// Less than this isn't worth the search for memory to give back.
const RETURNED_BYTES_MIN: usize = 16 * 1024 * 1024;

/// The loop of one lane, for the life of one worker.
pub struct EventLoop<'s> {
    worker: WorkerNumber,
    driver: Driver,
    control: &'s Control,
    wakeups: Arc<Wakeups>,
    sources: Sources<'s>,
    accept: Accept,
    /// The channels from the acceptor, if that is a thread of this process.
    channels: Option<&'s Channels>,
    /// Whether the last report to the supervisor is that the lane is full, and since when that is not so any more.
    is_full_reported: bool,
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
    /// The longest wait, so that the supervisor sees a turn often enough.
    patience_max_ms: Option<u64>,
    /// What it asks the supervisor, if it is one that asks.
    inquiries: Option<Arc<Inquiries>>,
    /// Whether a place is kept for another connection.
    makes_room: bool,
}

impl<'s> EventLoop<'s> {
    /// A loop that watches `control`, and has nothing to accept from yet.
    pub fn new(
        worker: WorkerNumber,
        config: &Config,
        mut driver: Driver,
        control: &'s Control,
        mut context: Context<'s>,
        channels: Option<&'s Channels>,
    ) -> io::Result<EventLoop<'s>> {
        driver.watch(control, Token::Control)?;
        let wakeups = Wakeups::new()?;
        driver.watch(&*wakeups, Token::Jobs)?;
        context.jobs.wakeups = Some(Arc::clone(&wakeups));
        let mut sources = Sources::new(worker, control);
        if matches!(driver, Driver::IoUring(_)) {
            sources = sources.rechecking();
        }
        Ok(EventLoop {
            worker,
            driver,
            control,
            wakeups,
            sources,
            accept: config.workers.accept,
            channels,
            is_full_reported: false,
            room_since_ms: None,
            connections_max: config.workers.max_connections as usize,
            connections: Slab::default(),
            timers: Timers::default(),
            idle: IdleQueue::default(),
            again: VecDeque::new(),
            discards: VecDeque::new(),
            context,
            held_peak: 0,
            patience_max_ms: patience_max_ms(config),
            inquiries: None,
            makes_room: false,
        })
    }

    /// Has it ask the supervisor what these are for.
    pub fn inquire(&mut self, inquiries: Arc<Inquiries>) {
        self.inquiries = Some(inquiries);
    }

    /// Has it close the connection that is idle longest when it has as many as it may, and never one that is answered: so
    /// those who come for a moment are not kept out by those who stay.
    pub fn make_room(&mut self) {
        self.makes_room = true;
    }

    /// Turns until a drain is over.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_drained() {
            self.turn()?;
            if self.is_drain_cut() {
                break;
            }
        }
        self.context.count_ended();
        self.context.count_cpu_time();
        Ok(())
    }

    /// Waits, and works on what has woken it.
    fn turn(&mut self) -> io::Result<()> {
        let count = self.driver.wait(self.patience_ms(), |token| match token {
            Token::Jobs => Some(self.wakeups.as_fd()),
            token => self.sources.fd_of(token),
        })?;
        self.context.begin_turn();
        self.keep_unsent();
        for _ in 0..count {
            let Some(event) = self.driver.next_event() else { break };
            self.dispatch(event)?;
        }
        self.read_again();
        self.expire();
        self.report_room();
        self.accept_without_event()?;
        self.sources.report_shortage(self.context.now_ms);
        self.finish_emptying();
        if let Some(inquiries) = &self.inquiries {
            inquiries.ask(self.context.now_ms);
        }
        self.context.output.shrink_to(OUTPUT_BYTES_KEPT);
        self.give_memory_back();
        self.context.end_turn();
        Ok(())
    }

    /// How long the next wait may take, in milliseconds.
    fn patience_ms(&self) -> Option<u64> {
        let (now_ms, is_emptying) = (self.context.now_ms, self.is_emptying());
        let is_accepting = is_emptying && self.sources.are_to_be_emptied(now_ms);
        if !self.again.is_empty() || !self.discards.is_empty() || is_accepting {
            return Some(0);
        }
        let sources = self.sources.due_ms(now_ms, is_emptying);
        let due = self.timers.next_ms().into_iter().chain(sources).chain(self.room_due_ms());
        let cut_ms = self.context.drain.and_then(|drain| drain.until_ms);
        let asks_ms = self.inquiries.as_ref().and_then(|inquiries| inquiries.due_ms());
        let due = due.chain(cut_ms).chain(self.idle.due_ms()).chain(asks_ms);
        let due = due.map(|due_ms| due_ms.saturating_sub(now_ms));
        due.chain(self.patience_max_ms).min()
    }

    fn dispatch(&mut self, event: Event) -> io::Result<()> {
        let token = event.token();
        let Event { ready, buffer } = event;
        match token {
            Token::Control => self.hear(),
            Token::Source(number) => self.accept_from(number),
            Token::Jobs => self.wake(),
            Token::Client(key) => {
                self.work(key, buffer.as_ref(), |connection, input, lane| {
                    connection.on_ready(ready, input, lane)
                });
                self.driver.give_back(buffer);
                Ok(())
            }
        }
    }

    /// Goes on with the connections whose jobs have ended.
    fn wake(&mut self) -> io::Result<()> {
        for Woken { key, job } in self.wakeups.take()? {
            self.work(key, None, |connection, input, lane| connection.on_woken(job, input, lane));
        }
        Ok(())
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
        context.jobs.at_work = key;
        context.forget_last_ticket();
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
        if let Some(mut connection) = self.connections.remove(key) {
            self.driver.release(key.to_token());
            self.context.held_bytes -= connection.held_bytes();
            connection.abandon(&mut self.context);
            // What answers its request is dropped with it.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(connection))) {
                self.control.report(self.worker, panicked(payload));
            }
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
        // The event of an end may have come meanwhile, and no other follows: a read finds it.
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
        let is_stop = self.context.draining() == Some(DrainKind::Stop);
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

    /// The connection of an accepted socket, and its client, if the lane keeps that. None if only a trusted proxy may
    /// connect, and this is none: it is closed.
    fn admit(&self, socket: OwnedFd) -> Option<(Connection<'s>, Option<Client>)> {
        let Context { are_introduced, clients, .. } = &self.context;
        let connection =
            if *are_introduced { Connection::introduced(socket) } else { Connection::new(socket) };
        let client = clients.as_ref().map(|clients| clients.at_other_end(connection.socket()));
        let may_connect = !are_introduced || client.is_some_and(|client| client.is_trusted);
        may_connect.then_some((connection, client))
    }

    /// Takes in an accepted connection.
    fn adopt(&mut self, socket: OwnedFd) {
        let Some((connection, client)) = self.admit(socket) else {
            self.context.counters.cells().rejected.at(RejectedFor::Untrusted).add(1);
            // The acceptor would take it for one that is on its way here.
            return self.context.counters.count_accepted();
        };
        let timeout_ms = connection.idle_timeout_ms(&self.context);
        let key = self.connections.insert(connection);
        if let (Some(clients), Some(client)) = (&mut self.context.clients, client) {
            clients.keep(key.index, client);
        }
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
            Err(_) => {
                self.context.counters.cells().rejected.at(RejectedFor::Unwatched).add(1);
                self.close(key);
            }
        }
    }
}

/// What to report of a panic, unless it was meant to escape.
fn panicked(payload: Box<dyn Any + Send>) -> WorkerEvent {
    if payload.is::<EscapingPanic>() {
        panic::resume_unwind(payload);
    }
    // A payload may itself panic when it is dropped, which is not caught here.
    std::mem::forget(payload);
    WorkerEvent::RequestPanicked(panics::take())
}

#[cfg(test)]
mod tests;
