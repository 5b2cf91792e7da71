//! The ledger: shared memory with a block of counters per lane, which outlives the workers that write it.
//!
//! Each block is written by the one worker that drives the lane, with plain stores, and read by the
//! supervisor, who thereby knows what a killed worker took with it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::memory::SharedBlocks;

const OPEN: usize = 0;
const ACCEPTED: usize = 1;
const REQUESTS: usize = 2;
const COUNTERS: usize = 3;

/// The blocks of all lanes.
pub struct Ledger(SharedBlocks<COUNTERS>);

impl Ledger {
    /// A ledger for `lanes` lanes; children forked from here on share it.
    ///
    /// # Panics
    /// If `lanes` is 0.
    pub fn new(lanes: usize) -> io::Result<Ledger> {
        Ok(Ledger(SharedBlocks::new(lanes)?))
    }

    /// How many lanes it has blocks for.
    pub fn lanes(&self) -> usize {
        self.0.len()
    }

    /// The counters of one lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn lane(&self, lane: usize) -> Counters<'_> {
        Counters(self.0.block(lane))
    }
}

/// The counters of one lane. Only its worker may change them.
#[derive(Clone, Copy)]
pub struct Counters<'l>(&'l [AtomicU64; COUNTERS]);

impl Counters<'_> {
    /// Connections open now.
    pub fn open(self) -> u64 {
        self.0[OPEN].load(Ordering::Relaxed)
    }

    /// Connections accepted since the server started.
    pub fn accepted(self) -> u64 {
        self.0[ACCEPTED].load(Ordering::Relaxed)
    }

    /// Requests begun since the server started.
    pub fn requests(self) -> u64 {
        self.0[REQUESTS].load(Ordering::Relaxed)
    }

    /// A new worker starts with no connection.
    pub fn worker_started(self) {
        self.0[OPEN].store(0, Ordering::Relaxed);
    }

    /// States how many connections are open.
    pub fn set_open(self, connections: usize) {
        self.0[OPEN].store(connections as u64, Ordering::Relaxed);
    }

    /// Counts one accepted connection.
    pub fn count_accepted(self) {
        self.add(ACCEPTED);
    }

    /// Counts one request.
    pub fn count_request(self) {
        self.add(REQUESTS);
    }

    /// One writer, so a load and a store do: no locked instruction.
    fn add(self, counter: usize) {
        let value = self.0[counter].load(Ordering::Relaxed);
        self.0[counter].store(value + 1, Ordering::Relaxed);
    }
}
