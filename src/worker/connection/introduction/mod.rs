//! The beginning of a connection that comes through a proxy: before anything else, the proxy says whose it is
//! (`server.proxy_protocol`). The session sees none of these bytes.

pub mod header;

use std::os::fd::OwnedFd;

use self::header::{Parsed, Source};
use super::transport::Transport;
use super::{Connection, Next, Session, Stage};
use crate::observe::ledger::labels::{RejectedFor, TimedOut};
use crate::worker::context::Context;
use crate::worker::driver::{Input, Received};

impl<'s> Connection<'s> {
    /// A connection that was just accepted, on which a header of the PROXY protocol comes first.
    pub fn introduced(socket: OwnedFd) -> Connection<'s> {
        Connection { transport: Transport::new(socket), stage: Stage::Introducing }
    }

    /// Whether the header has not come whole yet.
    pub(in crate::worker) fn is_introducing(&self) -> bool {
        matches!(self.stage, Stage::Introducing)
    }

    /// Reads the header, and goes on with what stands behind it. Until it is whole the deadline stays what it was: the
    /// accept's. `to_the_end`: a short read is not enough to know that the socket is empty.
    pub(super) fn introduce(
        &mut self,
        input: &mut Input<'_>,
        lane: &mut Context<'s>,
        to_the_end: bool,
    ) -> Next {
        // Each read brings a byte at least, and a header has few.
        loop {
            let (bytes, is_all) = match input.receive(self.transport.socket()) {
                Received::Bytes { bytes, is_all } => (bytes, is_all),
                Received::Nothing => return Next::Wait,
                Received::End => return Next::Close,
            };
            lane.counters.cells().received_bytes.add(bytes.len() as u64);
            let mut begun = self.transport.take_input();
            let before = begun.len();
            let parsed = if before == 0 {
                header::parse(bytes)
            } else {
                // No more than a header: what stands behind it is not copied.
                let missing = header::V2_BYTES_MAX - before;
                begun.extend_from_slice(&bytes[..bytes.len().min(missing)]);
                header::parse(&begun)
            };
            match parsed {
                // Then all bytes are of it.
                Parsed::Incomplete if before == 0 => self.transport.keep_input(bytes),
                Parsed::Incomplete => self.transport.put_back_input(begun),
                Parsed::Malformed => return reject(RejectedFor::ProxyHeader, lane),
                Parsed::Whole { length, source } => {
                    self.transport.put_back_input(Vec::new());
                    note(source, lane);
                    self.stage = Stage::Serving(Session::default());
                    let stop = self.absorb(&bytes[length - before..], lane);
                    return match self.settle(stop, lane) {
                        Some(next) => next,
                        None if is_all && !to_the_end => self.wait(false, lane),
                        None => self.read(input, lane, false, to_the_end),
                    };
                }
            }
            if !lane.may_hold(self.held_bytes()) {
                return reject(RejectedFor::Memory, lane);
            }
            if is_all && !to_the_end {
                return Next::Wait;
            }
        }
    }

    /// The time for the header is over: nothing is answered if it has not come by now.
    pub(super) fn leave_introducing(
        &mut self,
        input: &mut Input<'_>,
        lane: &mut Context<'s>,
    ) -> Next {
        let next = self.introduce(input, lane, true);
        if !self.is_introducing() || next == Next::Close {
            return next;
        }
        lane.counters.cells().timed_out.at(TimedOut::Header).add(1);
        Next::Close
    }
}

/// The connection is closed, without a response: what is there may be no proxy.
fn reject(reason: RejectedFor, lane: &Context<'_>) -> Next {
    lane.counters.cells().rejected.at(reason).add(1);
    Next::Close
}

/// Has requests of the connection at work come from there.
fn note(source: Source, lane: &mut Context<'_>) {
    let index = lane.jobs.at_work.index;
    let Some(clients) = &mut lane.clients else { return };
    match source {
        Source::Client(address) => clients.introduce(index, address),
        Source::Unstated => clients.distrust(index),
    }
}
