//! The record of a request: opened when its head is whole, or it is refused, and closed when the last byte of its response
//! has left, or its connection is gone. What an access log writes and a histogram counts is read from it.
//!
//! It costs no call of the clock, which is read once a turn, and no allocation.

use super::access::{Access, CLIENT_GONE, Ticket, Told};
use super::ledger::labels::{Answered, Class, DurationPart, Method};
use super::ledger::{Cells, Counters};

/// What is known of a request, and of its response as far as that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was opened, in microseconds of the lane.
    began_us: u64,
    method: Method,
    /// The status of its response; 0 until there is one.
    status: u16,
    /// Its response is not whole, and its client can tell.
    is_cut: bool,
    /// Bytes of its response so far, with its head and framing.
    bytes: u64,
    /// Bytes of that head.
    head_bytes: u32,
    /// Bytes of the request's body that came, without framing.
    body_bytes: u64,
    /// By which the access log finds what it keeps of it.
    ticket: Ticket,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last byte of its response was handed to the kernel, or to the ring that does so at the end of the turn.
    Sent,
    /// Its connection was closed before that. Of a response that is not whole it counts as this in any case.
    Broken,
}

/// Where the records of requests are closed.
#[derive(Clone, Copy)]
pub struct Closing<'l> {
    /// What counts them.
    pub counters: Counters<'l>,
    /// What writes a line for each of them, if anything does.
    pub access: Option<&'l Access>,
}

impl Closing<'_> {
    /// Closes these; of those that were answered, `ended` learns.
    #[inline]
    pub fn close(self, records: impl Iterator<Item = Record>, end: End, ended: &mut Ended) {
        let cells = self.counters.cells();
        // A turn may take longer than all that is in it: what is logged is told by the clock.
        let now_us = self.access.map_or(0, Access::now_us);
        let (count, whole, bytes) = records.fold((0, 0, 0), |(count, whole, bytes), record| {
            if let Some(status) = record.status() {
                cells.answered.at(Answered(record.method, Class::of(status))).add(1);
                ended.add(record.began_us);
            }
            let is_whole = end == End::Sent && !record.is_cut;
            if let Some(access) = self.access {
                access.close(record.ticket, &record.told(is_whole, now_us), now_us);
            }
            (count + 1, whole + u64::from(is_whole), bytes + record.bytes)
        });
        if count == 0 {
            return;
        }
        cells.response_bytes.add(bytes);
        cells.responses.add(whole);
        if whole < count {
            cells.aborted.add(count - whole);
        }
    }
}

impl Record {
    /// Opened now, of a request with this method.
    pub fn open(now_us: u64, method: Method, ticket: Ticket) -> Record {
        let (status, is_cut, bytes, head_bytes, body_bytes) = (0, false, 0, 0, 0);
        Record { began_us: now_us, method, status, is_cut, bytes, head_bytes, body_bytes, ticket }
    }

    /// When it was opened, in microseconds of the lane.
    #[cfg(test)]
    pub fn began_us(&self) -> u64 {
        self.began_us
    }

    /// What is logged of it when it is over.
    fn told(&self, is_whole: bool, now_us: u64) -> Told {
        Told {
            status: self.status().unwrap_or(CLIENT_GONE),
            body_bytes: self.body_bytes,
            bytes: self.bytes.saturating_sub(self.head_bytes.into()),
            duration_us: now_us.saturating_sub(self.began_us),
            is_aborted: !is_whole,
        }
    }

    /// As it was before there was a response.
    #[must_use]
    pub fn reopen(self) -> Record {
        Record { status: 0, is_cut: false, bytes: 0, head_bytes: 0, ..self }
    }

    /// So many bytes more of its body came.
    pub fn take_in(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    /// Its response begins, with a head of so many bytes.
    pub fn respond(&mut self, status: u16, head_bytes: usize) {
        self.status = status;
        self.bytes += head_bytes as u64;
        // What was sent before is heads, too.
        self.head_bytes = self.bytes as u32;
    }

    /// By which the access log finds what it keeps of it.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// So many bytes more of its response were made.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Its response ends before it is whole.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The status of its response, if there is one.
    #[inline]
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }
}

/// Requests that were answered in this turn: how long they took is counted at its end, with one reading of the clock for
/// all of them.
#[derive(Default)]
pub struct Ended {
    /// When they had been opened, in microseconds of the lane, and how many one after the other at the same time: as a rule
    /// all in this turn. As many as there are connections, at most, and the room is kept.
    runs: Vec<(u64, u64)>,
}

impl Ended {
    #[inline]
    fn add(&mut self, began_us: u64) {
        match self.runs.last_mut() {
            Some((of_last_us, count)) if *of_last_us == began_us => *count += 1,
            _ => self.runs.push((began_us, 1)),
        }
    }

    /// Counts how long they took, by the time at the end of their turn.
    pub fn count(&mut self, now_us: u64, cells: Cells<'_>) {
        for (began_us, count) in self.runs.drain(..) {
            let took_us = now_us.saturating_sub(began_us);
            cells.durations.at(DurationPart::Bucket(took_us)).add(count);
            cells.durations.at(DurationPart::Sum).add(took_us * count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::ledger::Ledger;

    #[test]
    fn requests_of_one_turn_and_of_earlier_ones_are_counted_by_how_long_each_took() {
        let ledger = Ledger::new(1).expect("a ledger");
        let cells = ledger.block(0).cells();
        let mut ended = Ended::default();
        [700, 700, 100, 700].into_iter().for_each(|began_us| ended.add(began_us));
        assert_eq!(ended.runs, [(700, 2), (100, 1), (700, 1)]);
        ended.count(740, cells);
        ended.count(1_000, cells);
        let counts = ledger.block(0).counts();
        assert_eq!(counts.durations(DurationPart::Bucket(40)), 3);
        assert_eq!(counts.durations(DurationPart::Bucket(640)), 1);
        assert_eq!(counts.durations(DurationPart::Sum), 3 * 40 + 640);
    }
}
