//! The ledger: shared memory with a block per worker, which outlives the worker that writes it.
//!
//! Each block is written by the one worker that it was given to, with plain stores, and read by the supervisor, which
//! thereby knows how many connections a killed worker took with it, and when a worker last turned. [`FIELDS`] is what a
//! block holds.

#[macro_use]
mod declaration;
mod block;
mod counts;
pub mod labels;
mod longest;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "may")]
use std::time::Duration;
use std::time::Instant;

#[cfg(feature = "may")]
use crate::sys::coroutine;
use crate::sys::memory::SharedBlocks;
pub use block::{CELLS, Cells, Counts, FIELDS, Field, Kind, Levels, Unit};

/// The blocks of all workers.
pub struct Ledger {
    blocks: SharedBlocks<CELLS>,
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
pub struct Counters<'l>(&'l [AtomicU64; CELLS]);

#[cfg(feature = "may")]
impl Counters<'static> {
    /// Has a coroutine of the engine "may" stamp the begin of a turn every so often.
    pub fn begin_turns(self, ledger: &Ledger, every: Duration) {
        let Cells { turn_ms, doing, .. } = self.cells();
        coroutine::stamp(every, ledger.start, turn_ms.0, doing.0);
    }
}

impl<'l> Counters<'l> {
    /// Its fields.
    #[inline]
    pub fn cells(self) -> Cells<'l> {
        Cells::of(self.0)
    }

    /// What this worker has counted since it started.
    pub fn counts(self) -> Counts {
        Counts::of(self.0)
    }

    /// Connections open now.
    pub fn open(self) -> u64 {
        self.cells().open.get()
    }

    /// Connections accepted. Once this counts a connection, [`Counters::open`] has counted it, too.
    pub fn accepted(self) -> u64 {
        self.cells().accepted.get()
    }

    /// When its last turn began, in milliseconds of the ledger.
    pub fn turned_ms(self) -> u64 {
        self.cells().turn_ms.get()
    }

    /// What it has done since.
    pub fn doing(self) -> Doing {
        Doing::from_word(self.cells().doing.get())
    }

    /// Empties the block for a worker that is about to start.
    pub fn reset(self, now_ms: u64) {
        self.0.iter().for_each(|field| field.store(0, Ordering::Relaxed));
        self.begin_turn(now_ms);
    }

    /// Stamps the begin of a turn.
    pub fn begin_turn(self, now_ms: u64) {
        let cells = self.cells();
        cells.turn_ms.set(now_ms);
        cells.doing.set(Doing::Nothing.to_word());
    }

    /// States how many connections are open.
    pub fn set_open(self, connections: usize) {
        self.cells().open.set(connections as u64);
    }

    /// Counts one accepted connection, which has to be stated as open before.
    pub fn count_accepted(self) {
        self.cells().accepted.add_after_others(1);
    }

    /// Counts one request, of the route with this number if it has one.
    pub fn begin_request(self, route: Option<usize>) {
        let cells = self.cells();
        cells.requests.add(1);
        cells.doing.set(route.map_or(Doing::NoRoute, Doing::Route).to_word());
    }
}

impl Doing {
    /// As a block holds it. Nothing is 0, which is what an empty block says.
    fn to_word(self) -> u64 {
        match self {
            Doing::Nothing => 0,
            Doing::NoRoute => 1,
            Doing::Route(number) => number as u64 + 2,
        }
    }

    fn from_word(word: u64) -> Doing {
        match word {
            0 => Doing::Nothing,
            1 => Doing::NoRoute,
            route => Doing::Route(route as usize - 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::labels::{Answered, Class, DurationPart, Method, TimedOut};
    use super::*;
    use std::collections::BTreeSet;

    fn ledger() -> Ledger {
        Ledger::new(2).expect("a ledger")
    }

    #[test]
    fn every_field_has_a_name_of_its_own_that_fits_its_kind_and_says_what_it_is() {
        let names: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
        let keys: BTreeSet<&str> = FIELDS.iter().map(|field| field.key).collect();
        assert_eq!((names.len(), keys.len()), (FIELDS.len(), FIELDS.len()), "a name stands twice");
        for Field { name, help, kind, unit, .. } in FIELDS {
            let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(is_plain && !name.starts_with('_'), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_seconds"), unit == Unit::Microseconds, "{name}");
            assert_eq!(base.ends_with("_bytes"), unit == Unit::Bytes, "{name}");
            assert!(help.ends_with('.') && help == help.trim(), "{name}: {help:?}");
        }
    }

    #[test]
    fn each_field_and_each_label_has_a_cell_of_its_own() {
        let ledger = ledger();
        let block = ledger.block(0);
        for cell in 0..CELLS {
            ledger.blocks.block(0)[cell].store(cell as u64 + 1, Ordering::Relaxed);
        }
        let Cells { accepted, answered, timed_out, durations, open, longest_minute, .. } =
            block.cells();
        let counts = [
            accepted.get(),
            answered.at(Answered(Method::Get, Class::Successful)).get(),
            answered.at(Answered(Method::Other, Class::ServerError)).get(),
            timed_out.at(TimedOut::Header).get(),
            timed_out.at(TimedOut::Write).get(),
            durations.at(DurationPart::Bucket(0)).get(),
            durations.at(DurationPart::Sum).get(),
            open.get(),
            longest_minute.get(),
        ];
        assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
        assert_eq!(longest_minute.get(), CELLS as u64, "the last one");
        let summed: usize = block.counts().fields().map(|(_, counts)| counts.len()).sum();
        let others =
            FIELDS.iter().filter(|of| matches!(of.kind, Kind::Gauge | Kind::State)).count();
        assert_eq!(summed + others, CELLS);
        block.reset(7);
        let cells = block.cells();
        assert_eq!((block.counts(), cells.levels()), (Counts::default(), Levels::default()));
        assert_eq!((cells.turn_ms.get(), cells.doing.get(), longest_minute.get()), (7, 0, 0));
    }

    #[test]
    fn blocks_are_summed_field_by_field() {
        let ledger = ledger();
        let blocks = [0, 1].map(|block| ledger.block(block));
        for (block, by) in blocks.into_iter().zip([1, 10]) {
            let cells = block.cells();
            cells.accepted.add(by);
            cells.requests.add(2 * by);
            cells.open.set(3 * by);
        }
        let counts: Counts = blocks.into_iter().map(Counters::counts).sum();
        assert_eq!((counts.accepted(), counts.requests(), counts.responses()), (11, 22, 0));
        let levels: Levels = blocks.into_iter().map(|block| block.cells().levels()).sum();
        assert_eq!(levels, Levels { open: 33 });
    }

    #[test]
    fn what_a_worker_is_doing_is_read_as_it_was_written() {
        let ledger = ledger();
        let counters = ledger.block(0);
        for (route, doing) in
            [(None, Doing::NoRoute), (Some(0), Doing::Route(0)), (Some(4095), Doing::Route(4095))]
        {
            counters.begin_turn(1);
            assert_eq!(counters.doing(), Doing::Nothing);
            counters.begin_request(route);
            assert_eq!(counters.doing(), doing);
        }
    }
}
