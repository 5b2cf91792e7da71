//! The acceptor: takes every connection, and hands it to the lane with the fewest (`workers.accept = "handoff"`).
//!
//! It never reads from a connection. How many a lane has it reads in the ledger, where the lane counts them, and
//! adds what it has handed over and the lane has not taken yet. A lane that is full, or whose worker isn't ready,
//! is passed over; while all are, connections wait in the kernel's queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::channels::{BATCH_MAX, Exchange, Outlet};
use super::sources::{ACCEPTS_PER_TURN, Rest, Source, Sources};
use crate::config::Config;
use crate::control::{Command, Control, Missed, Order, Received, WorkerEvent, WorkerNumber};
use crate::observe::ledger::{Counters, Ledger};
use crate::sys::cpu;
use crate::sys::socket::Listener;
use crate::worker::driver::token::Token;
use crate::worker::driver::{Driver, epoll};
use crate::worker::patience_max_ms;

/// How soon an acceptor whose lanes were all full looks at them again.
const AGAIN_MS: u64 = 10;

/// The loop of an acceptor, for the life of one worker.
pub(in crate::worker) struct Acceptor<'s> {
    driver: Driver,
    control: &'s Control,
    ledger: &'s Ledger,
    counters: Counters<'s>,
    /// The ways to the lanes, if they are threads of this process.
    exchange: Option<&'s Exchange>,
    sources: Sources<'s>,
    lanes: Vec<Option<Fed>>,
    /// The last lane that got one: of lanes with equally few, the next one's turn is first.
    last: usize,
    connections_max: u64,
    /// Accepted, and not handed to anybody yet.
    unsent: VecDeque<OwnedFd>,
    /// Since when it drains, if it does.
    draining_since_ms: Option<u64>,
    patience_max_ms: Option<u64>,
}

/// A lane that is handed connections.
struct Fed {
    outlet: Outlet,
    /// The ledger's block of its worker.
    block: usize,
    /// Handed over since it is fed, and how many its worker had taken before.
    handed: u64,
    taken_before: u64,
    /// As of this turn.
    load: u64,
    /// It took not all that it was handed in this turn.
    is_stuck: bool,
    batch: VecDeque<OwnedFd>,
}

impl<'s> Acceptor<'s> {
    pub(in crate::worker) fn new(
        worker: WorkerNumber,
        block: usize,
        config: &Config,
        control: &'s Control,
        ledger: &'s Ledger,
        exchange: Option<&'s Exchange>,
    ) -> io::Result<Acceptor<'s>> {
        let mut driver = Driver::Epoll(epoll::Driver::new()?);
        driver.watch(control, Token::Control)?;
        Ok(Acceptor {
            driver,
            control,
            ledger,
            counters: ledger.block(block),
            exchange,
            sources: Sources::new(worker, control),
            lanes: Vec::new(),
            last: 0,
            connections_max: connections_max(config, exchange.is_some())?,
            unsent: VecDeque::new(),
            draining_since_ms: None,
            patience_max_ms: patience_max_ms(config),
        })
    }

    /// Turns until a drain is over: nobody waits in the sockets, and everybody was handed over.
    pub(in crate::worker) fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            let count = self.driver.wait(self.patience_ms(), |token| self.sources.fd_of(token))?;
            let now_ms = self.ledger.now_ms();
            self.counters.begin_turn(now_ms);
            self.weigh();
            for _ in 0..count {
                let Some(event) = self.driver.next_event() else { break };
                match event.token() {
                    Token::Control => self.hear()?,
                    Token::Source(number) => self.accept_from(number, now_ms)?,
                    Token::Client(_) => {} // It has no connections of its own.
                }
            }
            if self.is_emptying(now_ms) {
                for source in self.sources.numbers(None) {
                    self.accept_from(source, now_ms)?;
                }
            }
            self.hand_over();
            self.sources.tell_missed(now_ms);
            let has_room = self.unsent.is_empty() && self.emptiest().is_some();
            self.sources.resume(has_room, now_ms, &mut self.driver)?;
        }
        Ok(())
    }

    /// Whether it drains, and everybody was handed over; or nobody ever can be, because it was told to drain before it
    /// was told of a lane.
    fn is_over(&self) -> bool {
        let has_lanes = self.lanes.iter().any(Option::is_some);
        let is_done = self.sources.is_empty() && self.unsent.is_empty();
        self.draining_since_ms.is_some() && (is_done || !has_lanes)
    }

    /// Whether to accept from its sources without an event, because it drains.
    fn is_emptying(&self, now_ms: u64) -> bool {
        self.draining_since_ms.is_some() && self.sources.are_to_be_emptied(now_ms)
    }

    fn patience_ms(&self) -> Option<u64> {
        let now_ms = self.ledger.now_ms();
        if self.is_emptying(now_ms) && self.unsent.is_empty() {
            return Some(0);
        }
        let is_draining = self.draining_since_ms.is_some();
        let waits = self.sources.is_full() || !self.unsent.is_empty();
        let due =
            self.sources.due_ms(now_ms, is_draining).map(|due_ms| due_ms.saturating_sub(now_ms));
        due.into_iter().chain(waits.then_some(AGAIN_MS)).chain(self.patience_max_ms).min()
    }

    /// Reads how many connections each lane has.
    fn weigh(&mut self) {
        for fed in self.lanes.iter_mut().flatten() {
            let counters = self.ledger.block(fed.block);
            if fed.outlet.is_empty() {
                // None is on its way, whatever became of those that were.
                (fed.handed, fed.taken_before) = (0, counters.accepted());
            }
            // In this order: a connection is open before it counts as taken, so that none is missed.
            let taken = counters.accepted().saturating_sub(fed.taken_before);
            fed.load = counters.open() + fed.handed.saturating_sub(taken);
            fed.is_stuck = false;
        }
    }

    /// The lane with the fewest connections, if one has room.
    fn emptiest(&self) -> Option<usize> {
        let (before, after) =
            self.lanes.split_at_checked(self.last + 1).unwrap_or((&self.lanes, &[]));
        let after = after.iter().zip(self.last + 1..);
        let in_turn = after.chain(before.iter().zip(0..));
        let room = in_turn.filter_map(|(fed, lane)| {
            let fed = fed.as_ref()?;
            (fed.load < self.connections_max && !fed.is_stuck).then_some((fed.load, lane))
        });
        room.min_by_key(|(load, _)| *load).map(|(_, lane)| lane)
    }

    /// Accepts a batch from one listener.
    fn accept_from(&mut self, source: u32, now_ms: u64) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(lane) = self.emptiest() else {
                return self.sources.rest(Rest::Full, &mut self.driver);
            };
            let Some(socket) =
                self.sources.next(source, now_ms, self.draining_since_ms, &mut self.driver)?
            else {
                return Ok(());
            };
            self.assign(lane, socket);
        }
        Ok(())
    }

    fn assign(&mut self, lane: usize, socket: OwnedFd) {
        if let Some(Some(fed)) = self.lanes.get_mut(lane) {
            fed.batch.push_back(socket);
            fed.load += 1;
            self.last = lane;
        }
    }

    /// Hands everybody his batch. What somebody doesn't take goes to the next, or waits.
    fn hand_over(&mut self) {
        loop {
            while let Some(lane) = self.emptiest()
                && let Some(socket) = self.unsent.pop_front()
            {
                self.assign(lane, socket);
            }
            let mut handed = 0;
            for fed in self.lanes.iter_mut().flatten().filter(|fed| !fed.batch.is_empty()) {
                let before = fed.batch.len();
                fed.outlet.hand(&mut fed.batch);
                let sent = before - fed.batch.len();
                fed.handed += sent as u64;
                handed += sent;
                fed.is_stuck = !fed.batch.is_empty();
                self.unsent.append(&mut fed.batch);
            }
            if handed == 0 || self.unsent.is_empty() {
                return;
            }
        }
    }

    /// Hears what the supervisor says. When it is gone, or the process was told to end, that is a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Exhausted | Received::Message(Command::Start(_), _) => {}
            Received::Message(Command::To(_, order), files) => self.obey(order, files)?,
            Received::Message(Command::Seal, _) => {}
            Received::Message(Command::Drain(_), _) => self.drain(),
            Received::End => {
                // An end stays readable: it would be told of in every turn.
                self.driver.forget(self.control.as_fd(), Token::Control)?;
                if self.draining_since_ms.is_none() {
                    self.control.report(self.sources.worker(), WorkerEvent::ToldToEnd);
                    self.drain();
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Take { lane, files: count } if files.len() < count => {
                self.sources.miss(lane, Missed::Sockets, self.ledger.now_ms());
            }
            Order::Take { .. } if self.draining_since_ms.is_some() => {}
            Order::Take { lane, .. } => {
                let sources = files.into_iter().map(|file| Source::Listener(Listener::from(file)));
                for source in sources {
                    self.sources.watch(lane, source, &mut self.driver)?;
                }
            }
            Order::Release(lane) => {
                self.sources.forget_missed(lane, Missed::Sockets);
                for source in self.sources.numbers(Some(lane)) {
                    self.sources.forget(source, &mut self.driver)?;
                }
            }
            Order::Attach { lane, block } => {
                let outlet = match (files.into_iter().next(), self.exchange) {
                    (Some(socket), _) => Outlet::Process(socket),
                    (None, Some(exchange)) => exchange.outlet(lane)?,
                    (None, None) => {
                        self.sources.miss(lane, Missed::Conduit, self.ledger.now_ms());
                        return Ok(());
                    }
                };
                self.feed(lane, block, outlet);
            }
            Order::Detach(lane) => {
                self.sources.forget_missed(lane, Missed::Conduit);
                if let Some(place) = self.lanes.get_mut(lane)
                    && let Some(fed) = place.take()
                {
                    self.unsent.extend(fed.batch);
                }
            }
            Order::Drain { .. } => self.drain(),
            Order::PollAgain(_) => {} // No other worker accepts from its sockets.
        }
        Ok(())
    }

    fn feed(&mut self, lane: usize, block: usize, outlet: Outlet) {
        let counters = self.ledger.block(block);
        let fed = Fed {
            outlet,
            block,
            handed: 0,
            taken_before: counters.accepted(),
            load: counters.open(),
            is_stuck: false,
            batch: VecDeque::with_capacity(BATCH_MAX),
        };
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, || None);
        }
        if let Some(before) = self.lanes[lane].replace(fed) {
            self.unsent.extend(before.batch);
        }
    }

    /// Takes what waits in the sockets, and then nothing new.
    fn drain(&mut self) {
        self.draining_since_ms.get_or_insert(self.ledger.now_ms());
    }
}

/// Files that a lane's process has open besides its connections.
const OTHER_FILES: u64 = 32;

/// How many connections each lane may have. One more than its process may have files would be lost on the way
/// (unix(7)), so there never is: here, where all lanes are threads of one process, accept fails instead.
fn connections_max(config: &Config, is_thread: bool) -> io::Result<u64> {
    let asked = u64::from(config.workers.max_connections);
    if is_thread {
        return Ok(asked);
    }
    Ok(asked.min(cpu::file_limit()?.saturating_sub(OTHER_FILES).max(1)))
}
