//! What a block of the ledger holds. A field is declared in one place, the list below; its cells, its description, its sum
//! over blocks, its name between supervisors and its place on a page of metrics follow from that.
//!
//! A new count is one more line there, and `counters.cells().name.add(1)` where it happens. One that is told apart by a
//! label has `by` that [`Label`], and `name.at(label).add(1)`.

use std::iter::Sum;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::labels::{
    Answered, Dimension, DurationPart, Label, RefusedFor, RejectedFor, TimedOut, cells,
};

block! {
    // They only grow, from the start of a worker to its end; sums over all workers that ever were never go backwards.
    counters {
        /// Connections accepted.
        accepted: Connections, "connections_accepted_total";
        /// Requests begun: their heads were whole.
        requests: Requests, "requests_begun_total";
        /// Responses whose last byte has left.
        responses: Responses, "responses_total";
        /// Requests whose connection was closed before the last byte of their response had left.
        aborted: Requests, "requests_aborted_total";
        /// Bytes of responses made, with their heads, of those that have left and those that have not.
        response_bytes: Bytes, "response_bytes_total";
        /// Lines of the access log that were never written: a lane's, that there was no room for, and those that the log's writer gave up.
        access_log_dropped: Lines, "access_log_dropped_total";
        /// Bytes that came from clients.
        received_bytes: Bytes, "received_bytes_total";
        /// Turns of the event loop.
        turns: Turns, "turns_total";
        /// Time that the event loop was busy: within its turns or, in a second where that is more, on a CPU.
        busy_us: Microseconds, "busy_seconds_total";
        /// Time on a CPU, of the program and of the kernel for it, as of the last second in which the loop turned.
        cpu_us: Microseconds, "cpu_seconds_total";
        /// Requests answered, by method and class of status.
        answered: Requests, "requests_total", by Answered;
        /// Requests refused before content was asked, or instead of its answer.
        refused: Requests, "requests_refused_total", by RefusedFor;
        /// Connections closed by the server because it could not serve them.
        rejected: Connections, "connections_rejected_total", by RejectedFor;
        /// Connections ended because their client took longer than it may.
        timed_out: Connections, "connections_timed_out_total", by TimedOut;
    }
    // The same, of which the cells are buckets and a sum.
    histograms {
        /// Time from the turn in which a request's head was whole to the end of the turn in which its response left.
        durations: Microseconds, "request_duration_seconds", by DurationPart;
    }
    // What is now: a worker that has ended has none.
    gauges {
        /// Connections open.
        open: Connections, "connections_open";
    }
    // Of one worker alone: a sum means nothing.
    states {
        /// When the last turn of the loop began, in milliseconds of the ledger.
        turn_ms: Milliseconds, "turn_begun";
        /// What was begun in that turn, as a word of `Doing`.
        doing: Word, "doing";
        /// The longest turn of the loop that ended in the minute below.
        longest_turn_us: Microseconds, "turn_longest_seconds";
        /// The longest one of the minute before that.
        longest_before_us: Microseconds, "turn_longest_before_seconds";
        /// The minute of the ledger in which the last turn ended.
        longest_minute: Minutes, "turn_longest_minute";
    }
}

/// Where each field begins among the cells of a block.
const START: [usize; FIELDS.len()] = {
    let mut start = [0; FIELDS.len()];
    let mut at = 1;
    while at < FIELDS.len() {
        start[at] = start[at - 1] + cells(FIELDS[at - 1].dimensions);
        at += 1;
    }
    start
};

/// How many cells a block has.
pub const CELLS: usize = START[FIELDS.len() - 1] + cells(FIELDS[FIELDS.len() - 1].dimensions);

/// How many of them only grow: the first ones.
pub(super) const GROWING: usize = START[Place::open as usize];

/// Counters and histograms, summed over blocks: each of their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts(pub(super) [u64; GROWING]);

impl Counts {
    /// So many lines of the access log more were dropped, by no worker that there is.
    pub fn drop_access_log_lines(&mut self, lines: u64) {
        let cell = &mut self.0[START[Place::access_log_dropped as usize]];
        *cell = cell.saturating_add(lines);
    }
}

/// What is known of a field without its value: what a page of metrics says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name between supervisors.
    pub key: &'static str,
    /// Its name on a page of metrics, without the prefix that all names of this program have.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// How its values of several workers, and at several times, go together.
    pub kind: Kind,
    /// What its value counts.
    pub unit: Unit,
    /// What its cells are told apart by; one that has a single cell has no labels.
    pub dimensions: &'static [Dimension],
}

/// How the values of a field go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and is summed over all workers, those that have ended included.
    Counter,
    /// The same, of the parts of a [`DurationPart`].
    Histogram,
    /// It goes up and down, and is summed over the workers that there are.
    Gauge,
    /// It is of one worker, and not summed.
    State,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Connections.
    Connections,
    /// Requests.
    Requests,
    /// Responses.
    Responses,
    /// Bytes.
    Bytes,
    /// Lines of a log.
    Lines,
    /// Turns.
    Turns,
    /// Microseconds; on a page of metrics, seconds.
    Microseconds,
    /// Milliseconds of the ledger.
    Milliseconds,
    /// Minutes of the ledger.
    Minutes,
    /// Nothing: it stands for something.
    Word,
}

/// A count that only grows. One worker writes it, so a load and a store do: no locked instruction.
#[derive(Clone, Copy)]
pub struct Counter<'l>(&'l AtomicU64);

impl Counter<'_> {
    /// Its value. What the worker stored before an [`Counter::add_after_others`] that this sees is seen, too.
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Counts `more`.
    pub fn add(self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// Counts `more` after everything that this worker has stored in its block before.
    pub fn add_after_others(self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Release);
    }

    /// States a count that something else keeps, and that never goes back.
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counts that only grow, told apart by a label.
#[derive(Clone, Copy)]
pub struct Family<'l, L>(&'l [AtomicU64], PhantomData<L>);

impl<'l, L: Label> Family<'l, L> {
    /// That of this label.
    #[inline]
    pub fn at(self, label: L) -> Counter<'l> {
        Counter(&self.0[label.cell()])
    }
}

/// A number of what there is now.
#[derive(Clone, Copy)]
pub struct Gauge<'l>(&'l AtomicU64);

impl Gauge<'_> {
    /// Its value.
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// States it.
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Something that one worker states of itself.
#[derive(Clone, Copy)]
pub struct State<'l>(pub(super) &'l AtomicU64);

impl State<'_> {
    /// Its value.
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// States it.
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// States it if it is more than before.
    pub fn raise(self, value: u64) {
        if value > self.get() {
            self.set(value);
        }
    }
}

/// The fields whose cells only grow, each with where it begins among them.
pub(super) fn growing() -> impl Iterator<Item = (&'static Field, usize)> {
    const { &FIELDS }.iter().zip(START).filter(|(_, start)| *start < GROWING)
}
