//! The acceptor: takes every connection, and hands it to the lane with the fewest (`workers.accept = "handoff"`).
//!
//! It never reads from a connection. It reads in the ledger how many connections a lane has, where the lane counts
//! them, and adds those that it has handed over and the lane has not taken yet. A lane that is full, or whose worker
//! isn't ready, is passed over; while all are, connections wait in the kernel's queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::channels::{BATCH_MAX, Channels, Outlet};
use super::sources::{ACCEPTS_PER_TURN, Pause, Source, Sources};
use crate::config::Config;
use crate::control::{Command, Control, Missed, Order, Received, WorkerEvent, WorkerNumber};
use crate::observe::ledger::{Counters, Ledger};
use crate::sys::cpu::{self, OTHER_FILES};
use crate::sys::socket::Listener;
use crate::worker::driver::token::Token;
use crate::worker::driver::{Driver, epoll};
use crate::worker::patience_max_ms;

/// How soon an acceptor whose lanes were all full reads again how many connections they have.
const AGAIN_MS: u64 = 10;

/// The loop of an acceptor, for the life of one worker.
pub(in crate::worker) struct Acceptor<'s> {
    driver: Driver,
    control: &'s Control,
    ledger: &'s Ledger,
    counters: Counters<'s>,
    /// The channels to the lanes, if those are threads of this process.
    channels: Option<&'s Channels>,
    sources: Sources<'s>,
    lanes: Vec<Option<AttachedLane>>,
    /// The last lane that was handed a connection: of lanes with equally few, the next one's turn is first.
    last: usize,
    connections_max: u64,
    /// Connections that were accepted, and not handed to a lane yet.
    waiting: VecDeque<OwnedFd>,
    /// Since when it drains, if it does.
    draining_since_ms: Option<u64>,
    patience_max_ms: Option<u64>,
}

/// A lane that is handed connections.
struct AttachedLane {
    outlet: Outlet,
    /// The ledger's block of its worker.
    block: usize,
    /// How many connections were handed over since it was attached, and how many its worker had taken before.
    handed: u64,
    taken_before: u64,
    /// How many connections it has in this turn, with those that are on their way to it.
    load: u64,
    /// There was no room on the way to it for all that it was to be handed in this turn.
    is_stuck: bool,
    /// What it is to be handed in this turn.
    batch: VecDeque<OwnedFd>,
}

impl<'s> Acceptor<'s> {
    pub(in crate::worker) fn new(
        worker: WorkerNumber,
        block: usize,
        config: &Config,
        control: &'s Control,
        ledger: &'s Ledger,
        channels: Option<&'s Channels>,
    ) -> io::Result<Acceptor<'s>> {
        let mut driver = Driver::Epoll(epoll::Driver::new()?);
        driver.watch(control, Token::Control)?;
        Ok(Acceptor {
            driver,
            control,
            ledger,
            counters: ledger.block(block),
            channels,
            sources: Sources::new(worker, control),
            lanes: Vec::new(),
            last: 0,
            connections_max: connections_max(config, channels.is_some())?,
            waiting: VecDeque::new(),
            draining_since_ms: None,
            patience_max_ms: patience_max_ms(config),
        })
    }

    /// Turns until a drain is over: no connection waits in the sockets, and all that were accepted were handed over.
    pub(in crate::worker) fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            let count = self.driver.wait(self.patience_ms(), |token| self.sources.fd_of(token))?;
            let now_ms = self.ledger.now_ms();
            self.counters.begin_turn(now_ms);
            self.count_connections();
            for _ in 0..count {
                let Some(event) = self.driver.next_event() else { break };
                match event.token() {
                    Token::Control => self.hear()?,
                    Token::Source(number) => self.accept_from(number, now_ms)?,
                    Token::Client(_) | Token::Jobs => {} // It has no connections of its own.
                }
            }
            if self.is_emptying(now_ms) || self.sources.is_retry_due() {
                for source in self.sources.numbers(None) {
                    self.accept_from(source, now_ms)?;
                }
            }
            self.hand_over();
            let has_room = self.waiting.is_empty() && self.emptiest().is_some();
            self.sources.resume(has_room, now_ms, &mut self.driver)?;
            self.sources.report_shortage(now_ms);
        }
        Ok(())
    }

    /// Whether it drains, and has handed over all connections; or can't hand over any, because it was told to drain
    /// before a lane was attached.
    fn is_over(&self) -> bool {
        let has_lanes = self.lanes.iter().any(Option::is_some);
        let is_done = self.sources.is_empty() && self.waiting.is_empty();
        self.draining_since_ms.is_some() && (is_done || !has_lanes)
    }

    /// Whether to accept from its sources without an event, because it drains.
    fn is_emptying(&self, now_ms: u64) -> bool {
        self.draining_since_ms.is_some() && self.sources.are_to_be_emptied(now_ms)
    }

    fn patience_ms(&self) -> Option<u64> {
        let now_ms = self.ledger.now_ms();
        if self.is_emptying(now_ms) && self.waiting.is_empty() {
            return Some(0);
        }
        let is_draining = self.draining_since_ms.is_some();
        let waits = self.sources.is_full() || !self.waiting.is_empty();
        let due =
            self.sources.due_ms(now_ms, is_draining).map(|due_ms| due_ms.saturating_sub(now_ms));
        due.into_iter().chain(waits.then_some(AGAIN_MS)).chain(self.patience_max_ms).min()
    }

    /// Reads how many connections each lane has.
    fn count_connections(&mut self) {
        for attached in self.lanes.iter_mut().flatten() {
            let counters = self.ledger.block(attached.block);
            if attached.outlet.is_empty() {
                // All that was handed over has been received: none is on its way.
                (attached.handed, attached.taken_before) = (0, counters.accepted());
            }
            // In this order: a connection is open before it counts as taken, so that none is missed.
            let taken = counters.accepted().saturating_sub(attached.taken_before);
            attached.load = counters.open() + attached.handed.saturating_sub(taken);
            attached.is_stuck = false;
        }
    }

    /// The lane with the fewest connections, if one has room.
    fn emptiest(&self) -> Option<usize> {
        let (before, after) =
            self.lanes.split_at_checked(self.last + 1).unwrap_or((&self.lanes, &[]));
        let after = after.iter().zip(self.last + 1..);
        let in_turn = after.chain(before.iter().zip(0..));
        let room = in_turn.filter_map(|(attached, lane)| {
            let attached = attached.as_ref()?;
            (attached.load < self.connections_max && !attached.is_stuck)
                .then_some((attached.load, lane))
        });
        room.min_by_key(|(load, _)| *load).map(|(_, lane)| lane)
    }

    /// Accepts a batch from one listener.
    fn accept_from(&mut self, source: u32, now_ms: u64) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(lane) = self.emptiest() else {
                return self.sources.pause(Pause::Full, &mut self.driver);
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
        if let Some(Some(attached)) = self.lanes.get_mut(lane) {
            attached.batch.push_back(socket);
            attached.load += 1;
            self.last = lane;
        }
    }

    /// Hands each lane its batch. What there is no room for goes to another lane, or waits.
    fn hand_over(&mut self) {
        loop {
            while let Some(lane) = self.emptiest()
                && let Some(socket) = self.waiting.pop_front()
            {
                self.assign(lane, socket);
            }
            let mut handed = 0;
            for attached in
                self.lanes.iter_mut().flatten().filter(|attached| !attached.batch.is_empty())
            {
                let before = attached.batch.len();
                attached.outlet.hand(&mut attached.batch);
                let sent = before - attached.batch.len();
                attached.handed += sent as u64;
                handed += sent;
                attached.is_stuck = !attached.batch.is_empty();
                self.waiting.append(&mut attached.batch);
            }
            if handed == 0 || self.waiting.is_empty() {
                return;
            }
        }
    }

    /// Does what the supervisor says. Its end, or a signal to this process to end, begins a drain.
    fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Exhausted | Received::Message(Command::Start(_), _) => {}
            Received::Message(Command::To(_, order), files) => self.obey(order, files)?,
            Received::Message(Command::Seal, _) => {}
            Received::Message(Command::Drain(_), _) => self.drain(),
            Received::End => {
                // An end stays readable: an event would come of it in every turn.
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
                self.sources.forget_missed(lane, Missed::Sockets);
                let sources = files.into_iter().map(|file| Source::Listener(Listener::from(file)));
                for source in sources {
                    self.sources.watch(lane, source, false, &mut self.driver)?;
                }
            }
            Order::Release(lane) => {
                self.sources.forget_missed(lane, Missed::Sockets);
                for source in self.sources.numbers(Some(lane)) {
                    self.sources.close(source, &mut self.driver)?;
                }
            }
            Order::Attach { lane, block } => {
                let outlet = match (files.into_iter().next(), self.channels) {
                    (Some(socket), _) => Outlet::Process(socket),
                    (None, Some(channels)) => channels.outlet(lane)?,
                    (None, None) => {
                        self.sources.miss(lane, Missed::Conduit, self.ledger.now_ms());
                        return Ok(());
                    }
                };
                self.sources.forget_missed(lane, Missed::Conduit);
                self.attach(lane, block, outlet);
            }
            Order::Detach(lane) => {
                self.sources.forget_missed(lane, Missed::Conduit);
                if let Some(place) = self.lanes.get_mut(lane)
                    && let Some(attached) = place.take()
                {
                    self.waiting.extend(attached.batch);
                }
            }
            Order::Drain { .. } => self.drain(),
            // No other worker accepts from its sockets; it writes no log, and asks nothing.
            Order::PollAgain(_) | Order::Reopen | Order::Snapshot(_) => {}
        }
        Ok(())
    }

    fn attach(&mut self, lane: usize, block: usize, outlet: Outlet) {
        let counters = self.ledger.block(block);
        let attached = AttachedLane {
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
        if let Some(before) = self.lanes[lane].replace(attached) {
            self.waiting.extend(before.batch);
        }
    }

    /// Accepts what waits in the sockets, and then nothing new.
    fn drain(&mut self) {
        self.draining_since_ms.get_or_insert(self.ledger.now_ms());
        self.sources.forget_all_missed();
    }
}

/// How many connections each lane may have. If a lane's process had as many files open as it may have, a connection
/// that is handed to it would be lost on the way (unix(7)), so it is never handed as many. Threads share this process's
/// files: there accept fails instead.
fn connections_max(config: &Config, is_thread: bool) -> io::Result<u64> {
    let asked = u64::from(config.workers.max_connections);
    if is_thread {
        return Ok(asked);
    }
    Ok(asked.min(cpu::file_limit()?.saturating_sub(OTHER_FILES).max(1)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{self, Options};
    use crate::sys::socket::{Bound, Sharing, packet_pair};

    #[test]
    fn it_waits_for_events_and_in_a_drain_empties_its_sockets_without_waiting() {
        let mut config = config::load(&Options::default()).expect("the defaults").config;
        config.supervisor.watchdog = Duration::from_secs(8);
        let (ours, _theirs) = packet_pair().expect("a pair");
        let control = Control::new(ours);
        let ledger = Ledger::new(1).expect("a ledger");
        let mut acceptor = Acceptor::new(WorkerNumber(1), 0, &config, &control, &ledger, None)
            .expect("an acceptor");
        assert_eq!(acceptor.patience_ms(), Some(2_000), "the watchdog wants to see a turn");
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Bound::bind(address, Sharing::Exclusive).and_then(|bound| bound.listen(1));
        let source = Source::Listener(listener.expect("a listener"));
        acceptor.sources.watch(0, source, false, &mut acceptor.driver).expect("it is watched");
        assert_eq!(acceptor.patience_ms(), Some(2_000), "an event tells of a connection");
        acceptor.drain();
        assert_eq!(acceptor.patience_ms(), Some(0), "no event tells that none is left");
        // Nothing can be done for one that no lane has room for until a lane has some.
        acceptor.waiting.push_back(packet_pair().expect("a pair").0);
        assert_eq!(acceptor.patience_ms(), Some(AGAIN_MS));
    }
}
