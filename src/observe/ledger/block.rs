//! What a block of the ledger holds. A field is declared in one place, the list below; its cell, its description, its sum
//! over blocks and its name between supervisors follow from that.
//!
//! A new count is one more line there, and `counters.cells().name.add(1)` where it happens.

use std::iter::Sum;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

block! {
    // They only grow, from the start of a worker to its end; sums over all workers that ever were never go backwards.
    counters {
        /// Connections accepted.
        accepted: Connections, "connections_accepted_total";
        /// Requests begun.
        requests: Requests, "requests_total";
        /// Responses whose last byte has left.
        responses: Responses, "responses_total";
        /// Requests whose connection was closed before the last byte of their response had left.
        aborted: Requests, "requests_aborted_total";
        /// Bytes of responses made, of those that have left and those that have not.
        response_bytes: Bytes, "response_bytes_total";
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
    }
}

/// What is known of a field without its value: what a page of metrics says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, without the prefix that all names of this program have.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// How its values of several workers, and at several times, go together.
    pub kind: Kind,
    /// What its value counts.
    pub unit: Unit,
}

/// How the values of a field go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and is summed over all workers, those that have ended included.
    Counter,
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
    /// Milliseconds of the ledger.
    Milliseconds,
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
}
