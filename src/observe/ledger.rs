//! The ledger: shared memory with a block per worker, which outlives the worker that writes it.
//!
//! Each block is written by the one worker that it was given to, with plain stores, and read by the
//! supervisor, who thereby knows what a killed worker took with it, and when a worker last turned.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "may")]
use std::time::Duration;
use std::time::Instant;

#[cfg(feature = "may")]
use crate::sys::coroutine;
use crate::sys::memory::SharedBlocks;

const OPEN: usize = 0;
const ACCEPTED: usize = 1;
const REQUESTS: usize = 2;
/// When the last turn began, in milliseconds of the ledger.
const TURN_MS: usize = 3;
/// The route of the last request that was begun in this turn: its number and 2; 1 for none that is
/// configured; 0 when no request was begun.
const ROUTE: usize = 4;
const FIELDS: usize = 5;

/// The blocks of all workers.
pub struct Ledger {
    blocks: SharedBlocks<FIELDS>,
    start: Instant,
}

impl Ledger {
    /// A ledger with so many blocks; children forked from here on share it.
    ///
    /// # Errors
    /// If there is no memory for so many.
    ///
    /// # Panics
    /// If `blocks` is 0.
    pub fn new(blocks: usize) -> io::Result<Ledger> {
        Ok(Ledger { blocks: SharedBlocks::new(blocks)?, start: Instant::now() })
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Milliseconds since the ledger was made: the same in every process that shares it.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// One worker's block.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block(&self, block: usize) -> Counters<'_> {
        Counters(self.blocks.block(block))
    }
}

/// What a worker was doing when its last turn began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It had begun no request in that turn.
    Nothing,
    /// A request that no route takes.
    NoRoute,
    /// A request of the route with this number, in the configuration's order.
    Route(usize),
}

/// The block of one worker. Only that worker may change it.
#[derive(Clone, Copy)]
pub struct Counters<'l>(&'l [AtomicU64; FIELDS]);

#[cfg(feature = "may")]
impl Counters<'static> {
    /// Has a coroutine of the engine "may" stamp the begin of a turn every so often.
    pub fn begin_turns(self, ledger: &Ledger, every: Duration) {
        coroutine::stamp(every, ledger.start, &self.0[TURN_MS], &self.0[ROUTE]);
    }
}

impl Counters<'_> {
    /// Connections open now.
    pub fn open(self) -> u64 {
        self.0[OPEN].load(Ordering::Relaxed)
    }

    /// Connections accepted. Whoever reads that one was accepted finds it among the open ones afterwards.
    pub fn accepted(self) -> u64 {
        self.0[ACCEPTED].load(Ordering::Acquire)
    }

    /// Requests begun.
    pub fn requests(self) -> u64 {
        self.0[REQUESTS].load(Ordering::Relaxed)
    }

    /// When its last turn began, in milliseconds of the ledger.
    pub fn turned_ms(self) -> u64 {
        self.0[TURN_MS].load(Ordering::Relaxed)
    }

    /// What it has done since.
    pub fn doing(self) -> Doing {
        match self.0[ROUTE].load(Ordering::Relaxed) {
            0 => Doing::Nothing,
            1 => Doing::NoRoute,
            route => Doing::Route(route as usize - 2),
        }
    }

    /// Empties the block for a worker that is about to start.
    pub fn reset(self, now_ms: u64) {
        self.0.iter().for_each(|field| field.store(0, Ordering::Relaxed));
        self.0[TURN_MS].store(now_ms, Ordering::Relaxed);
    }

    /// Stamps the begin of a turn.
    pub fn begin_turn(self, now_ms: u64) {
        self.0[TURN_MS].store(now_ms, Ordering::Relaxed);
        self.0[ROUTE].store(0, Ordering::Relaxed);
    }

    /// States how many connections are open.
    pub fn set_open(self, connections: usize) {
        self.0[OPEN].store(connections as u64, Ordering::Relaxed);
    }

    /// Counts one accepted connection, which has to be stated as open before.
    pub fn count_accepted(self) {
        let accepted = self.0[ACCEPTED].load(Ordering::Relaxed);
        self.0[ACCEPTED].store(accepted + 1, Ordering::Release);
    }

    /// Counts one request, of the route with this number if it has one.
    pub fn begin_request(self, route: Option<usize>) {
        self.add(REQUESTS);
        self.0[ROUTE].store(route.map_or(1, |route| route as u64 + 2), Ordering::Relaxed);
    }

    /// One writer, so a load and a store do: no locked instruction.
    fn add(self, counter: usize) {
        let value = self.0[counter].load(Ordering::Relaxed);
        self.0[counter].store(value + 1, Ordering::Relaxed);
    }
}
