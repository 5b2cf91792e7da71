//! When a connection ends: after its last response, or when it was idle for long enough. What follows, until its socket is
//! closed, is `lingering`.

use super::lingering::{Lingering, Silence};
use super::{Connection, Next, Stage};
use crate::observe::ledger::labels::TimedOut;
use crate::worker::context::Context;
use crate::worker::driver::Input;

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
        let requests = self.requests();
        let next = self.read(input, lane, false, true);
        if next == Next::Close || !self.is_idle() || requests != self.requests() {
            return next;
        }
        match &mut self.stage {
            Stage::Serving(session) if !input.reaches_socket() => {
                session.leave();
                Next::WaitUntil(lane.now_ms + LEAVING_MS)
            }
            // The socket was empty a moment ago, and what comes after the shutdown can't be answered any more.
            _ => {
                count_idle(lane);
                self.linger(Silence::Idle, lane)
            }
        }
    }

    /// The last response has left. `has_more`: the client was not done with what it sends.
    pub(super) fn finish(&mut self, has_more: bool, lane: &mut Context<'s>) -> Next {
        let has_more = has_more || !self.transport.is_idle();
        self.transport.forget_waiting(lane);
        self.linger(if has_more { Silence::MoreToCome } else { Silence::Answered }, lane)
    }

    /// Shuts the writing side, and waits for the client to do the same.
    fn linger(&mut self, silence: Silence, lane: &Context<'s>) -> Next {
        let Some((lingering, look_ms)) = Lingering::begin(self.transport.socket(), silence, lane)
        else {
            return Next::Close;
        };
        self.stage = Stage::Lingering(lingering);
        // What came before this may have had its event: then nothing but a read would tell of it.
        Next::Discard(look_ms)
    }

    /// The server stops: when a connection that lingers is to be looked at, at the latest.
    pub fn linger_briefly(&mut self, now_ms: u64) -> Option<u64> {
        match &mut self.stage {
            Stage::Lingering(lingering) => Some(lingering.shorten(now_ms)),
            Stage::Introducing | Stage::Serving(_) => None,
        }
    }
}

/// Counts a connection that is closed because it was idle for too long. In a drain it may not be that.
pub(super) fn count_idle(lane: &Context<'_>) {
    if lane.drain.is_none() {
        lane.counters.cells().timed_out.at(TimedOut::KeepAlive).add(1);
    }
}
