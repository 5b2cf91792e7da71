//! The record of a request: opened when its head is whole, or it is refused, and closed when the last byte of its response
//! has left, or its connection is gone. What an access log writes and a histogram counts is read from it.
//!
//! It costs no call of the clock, which is read once a turn, and no allocation. The address of the client is its socket's to
//! tell, where a record is closed, unless the lane keeps those of its connections.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::ledger::Counters;
use crate::sys::socket::{self, Peer};

/// What is known of a request, and of its response as far as that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was opened, in microseconds of the lane.
    began_us: u64,
    /// The status of its response; 0 until there is one.
    status: u16,
    /// Its response is not whole, and its client can tell.
    is_cut: bool,
    /// Bytes of its response so far, with its head and framing.
    bytes: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last byte of its response was handed to the kernel, or to the ring that does so at the end of the turn.
    Sent,
    /// Its connection was closed before that. Of a response that is not whole it counts as this in any case.
    Broken,
}

/// Where the records of a connection's requests are closed, and what is known there beside them.
#[derive(Clone, Copy)]
pub struct Closing<'l> {
    /// What counts them.
    pub counters: Counters<'l>,
    /// The time of this turn, in microseconds of the lane.
    pub now_us: u64,
    /// The connection.
    pub socket: BorrowedFd<'l>,
    /// The address of its client, if the lane keeps it.
    pub client: Option<SocketAddr>,
}

impl Closing<'_> {
    /// Closes these.
    #[inline]
    pub fn close(self, records: impl Iterator<Item = Record>, end: End) {
        let (count, whole, bytes) = records.fold((0, 0, 0), |(count, whole, bytes), record| {
            let is_whole = end == End::Sent && !record.is_cut;
            (count + 1, whole + u64::from(is_whole), bytes + record.bytes)
        });
        if count == 0 {
            return;
        }
        let cells = self.counters.cells();
        cells.response_bytes.add(bytes);
        cells.responses.add(whole);
        if whole < count {
            cells.aborted.add(count - whole);
        }
    }

    /// How long a request has taken, in microseconds.
    #[allow(dead_code, reason = "tests alone ask for it until a histogram does")]
    pub fn elapsed_us(self, record: &Record) -> u64 {
        self.now_us.saturating_sub(record.began_us)
    }

    /// The address of the client; `None` if it has none, or is gone and its address wasn't kept.
    #[allow(dead_code, reason = "tests alone ask for it until an access log does")]
    pub fn client(self) -> Option<SocketAddr> {
        self.client.or_else(|| match socket::peer(self.socket) {
            Peer::Internet(address) => Some(address),
            Peer::Unix | Peer::Gone => None,
        })
    }
}

impl Record {
    /// Opened now.
    pub fn open(now_us: u64) -> Record {
        Record { began_us: now_us, status: 0, is_cut: false, bytes: 0 }
    }

    /// Its response begins, with so many bytes.
    pub fn respond(&mut self, status: u16, bytes: u64) {
        (self.status, self.bytes) = (status, bytes);
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
    #[allow(dead_code, reason = "tests alone read it until an access log does")]
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }
}
