//! The end of a connection, so that the client gets what it was sent (RFC 9112 §9.6).

use super::{Connection, Next, Phase, READS_PER_TURN};
use crate::worker::context::Context;
use crate::worker::driver::{self, Input, Received};

/// What is read and thrown away after the last response, so that the client can read it: a close with
/// unread input would reset the connection and the response with it.
pub(super) const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
const LINGER_MS: u64 = 2_000;
/// The same after an idle spell: a request that crossed the close arrives within a round trip.
const IDLE_LINGER_MS: u64 = 500;
/// How long the end of a receive may take to be told after it was cancelled: a turn of the loop, as a rule.
const LEAVING_MS: u64 = 1_000;

impl<'s> Connection<'s> {
    /// Closes a connection that was idle for long enough, unless a request waits in it after all. One that
    /// crosses the close on its way finds the writing side shut, not a reset: its client knows that nothing
    /// of it was answered (RFC 9112 §9.6).
    ///
    /// While the kernel receives on its own, what has come may be on its way here, and can't be read from the socket.
    /// Then that receive is ended first, and what it brings is answered.
    pub(super) fn leave_idle(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        let requests = self.requests;
        let next = self.read(input, lane, false, true);
        if next == Next::Close || !self.is_idle() || requests != self.requests {
            return next;
        }
        if !input.reaches_socket() {
            self.phase = Phase::Leaving;
            return Next::WaitUntil(lane.now_ms + LEAVING_MS);
        }
        // The socket was empty a moment ago, and what comes after the shutdown can't be answered any more.
        self.linger(IDLE_LINGER_MS, lane)
    }

    /// The last response has left.
    pub(super) fn finish(&mut self, linger: bool, lane: &Context<'s>) -> Next {
        if !linger && self.kept.is_none() {
            return Next::Close;
        }
        self.kept = None;
        self.linger(LINGER_MS, lane)
    }

    /// Shuts the writing side, and waits for the client to do the same.
    fn linger(&mut self, time_ms: u64, lane: &Context<'s>) -> Next {
        if driver::finish_sending(&self.socket).is_err() {
            return Next::Close;
        }
        let until_ms = lane.now_ms + time_ms;
        self.phase = Phase::Lingering { left: LINGER_BYTES_MAX, until_ms };
        // What came before this has had its event: nothing but a read would tell of it.
        Next::Again(until_ms)
    }

    /// Reads and forgets, so that the client can read its last response in peace.
    pub(super) fn discard(&mut self, input: &mut Input<'_>) -> Next {
        let Phase::Lingering { left, until_ms } = &mut self.phase else {
            return Next::Wait;
        };
        for _ in 0..READS_PER_TURN {
            match input.receive(&self.socket) {
                Received::Bytes { bytes, .. } if bytes.len() < *left => *left -= bytes.len(),
                Received::Bytes { .. } | Received::End => return Next::Close,
                Received::Nothing => return Next::Wait,
            }
        }
        Next::Again(*until_ms)
    }
}
