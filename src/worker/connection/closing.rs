//! The end of a connection, in stages, so that its client gets what it was sent (RFC 9112 §9.6): the writing side is
//! shut, what still comes is thrown away, and the socket is closed when the client has ended its side, or has
//! acknowledged everything and is silent. A close with unread input, or input after a close, would reset the connection
//! and take what is on its way with it.
//!
//! What is thrown away is bounded by time. What that costs other clients is bounded by a share of each turn, for all
//! connections of the lane together ([`Context::discards_left`]).

use super::{Connection, Next, Phase};
use crate::control::DrainKind;
use crate::worker::context::Context;
use crate::worker::driver::{self, Discarded, Input};

/// A client from which nothing has come since the last response may take so long to close.
const QUIET_MS: u64 = 2_000;
/// One that has more to send may pause for so long.
const PAUSE_MS: u64 = 5_000;
/// Of one that goes on sending, no more is thrown away after so long. While the server stops it is [`QUIET_MS`].
const LINGER_MS: u64 = 30_000;
/// After an idle spell: a request that crossed the close arrives within a round trip.
const IDLE_LINGER_MS: u64 = 500;
/// How long the end of a receive may take to be told after it was cancelled: a turn of the loop, as a rule.
const LEAVING_MS: u64 = 1_000;

/// What is to be known of a connection whose writing side is shut. Part of every connection's size.
pub(super) struct Lingering {
    /// When what a client goes on sending is not read any more.
    until_ms: u64,
    /// What the client had not acknowledged when that was asked last; `u32::MAX` before.
    unacknowledged: u32,
    /// More came, so that yet more is taken to come.
    pub(super) is_bulk: bool,
    /// Nothing is read any more: all that is waited for is that the response arrives.
    pub(super) is_over: bool,
}

/// How long a client may go on sending.
fn linger_ms(lane: &Context<'_>) -> u64 {
    match lane.draining {
        Some(DrainKind::Stop) => QUIET_MS,
        Some(DrainKind::Replaced) | None => LINGER_MS,
    }
}

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

    /// The last response has left. `has_more`: the client was not done with what it sends.
    pub(super) fn finish(&mut self, has_more: bool, lane: &Context<'s>) -> Next {
        let has_more = has_more || self.kept.is_some();
        self.kept = None;
        self.linger(if has_more { PAUSE_MS } else { QUIET_MS }, lane)
    }

    /// Shuts the writing side, and waits for the client to do the same.
    fn linger(&mut self, quiet_ms: u64, lane: &Context<'s>) -> Next {
        if driver::finish_sending(&self.socket).is_err() {
            return Next::Close;
        }
        let until_ms = lane.now_ms + linger_ms(lane);
        let (unacknowledged, is_bulk, is_over) = (u32::MAX, false, false);
        self.phase = Phase::Lingering(Lingering { until_ms, unacknowledged, is_bulk, is_over });
        // What came before this may have had its event: then nothing but a read would tell of it.
        Next::Discard(until_ms.min(lane.now_ms + quiet_ms))
    }

    /// The server stops: when a connection that lingers is to be looked at, at the latest.
    pub fn linger_briefly(&mut self, now_ms: u64) -> Option<u64> {
        let Phase::Lingering(lingering) = &mut self.phase else {
            return None;
        };
        lingering.until_ms = lingering.until_ms.min(now_ms + QUIET_MS);
        Some(lingering.until_ms)
    }

    /// Throws away what came. `to_the_end`: a short read is not enough to know that the socket is empty.
    pub(super) fn discard(
        &mut self,
        input: &mut Input<'_>,
        to_the_end: bool,
        lane: &mut Context<'s>,
    ) -> Next {
        let Phase::Lingering(lingering) = &mut self.phase else {
            return Next::Wait;
        };
        if lingering.is_over {
            return Next::Wait;
        }
        let deadline_ms = lingering.until_ms.min(lane.now_ms + PAUSE_MS);
        if lane.discards_left == 0 {
            return Next::Discard(deadline_ms);
        }
        let (count, is_all) = match input.discard(&self.socket) {
            Discarded::All(0) => return Next::Wait,
            Discarded::All(count) => (count, !to_the_end),
            Discarded::Some(count) => (count, false),
            Discarded::End => return Next::Close,
        };
        lane.discards_left = lane.discards_left.saturating_sub(count);
        lingering.is_bulk = true;
        if is_all { Next::WaitUntil(deadline_ms) } else { Next::Discard(deadline_ms) }
    }

    /// The client was silent for long enough, or sent for long enough. Closes, unless part of the response is on its
    /// way and arrives bit by bit; what the client sends meanwhile is read for its time and no longer.
    pub(super) fn linger_on(&mut self, lane: &Context<'s>) -> Next {
        let Phase::Lingering(lingering) = &mut self.phase else {
            return Next::Wait;
        };
        let unacknowledged = driver::unacknowledged(&self.socket);
        if unacknowledged == 0 || unacknowledged >= lingering.unacknowledged {
            return Next::Close;
        }
        lingering.unacknowledged = unacknowledged;
        lingering.is_over = lane.now_ms >= lingering.until_ms;
        Next::WaitUntil(lane.now_ms + PAUSE_MS.min(linger_ms(lane)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::config::{self, Options};
    use crate::content::Site;
    use crate::http::Limits;
    use crate::observe::ledger::Ledger;
    use crate::sys::has_input_within;
    use crate::worker::context::DISCARDS_PER_TURN;

    /// Whether a socket still has input, when so many bytes had been discarded in a turn: after that turn, and the next.
    fn has_input_after(discarded: usize) -> [bool; 2] {
        let config = config::load(&Options::default()).expect("the defaults").config;
        let (site, ledger) = (Site::new(&config.routes), Ledger::new(1).expect("a ledger"));
        let limits = Limits {
            request_line: 64,
            header_bytes: 256,
            headers: 8,
            body: 512,
            merge_slashes: true,
        };
        let mut lane = Context::new(&site, &limits, &config, &ledger, 0);
        let (mut client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("nonblocking");
        let mut connection = Connection::new(server.into());
        assert!(matches!(connection.finish(true, &lane), Next::Discard(_)));

        let brought = vec![0; discarded];
        let next = connection.discard(&mut Input::new(Some(&brought), None), true, &mut lane);
        assert_eq!(next, Next::Discard(PAUSE_MS), "there may be more");
        client.write_all(&[0; 5]).expect("room");
        let mut after = || {
            connection.discard(&mut Input::new(None, Some(&mut [0; 16])), true, &mut lane);
            lane.begin_turn();
            has_input_within(connection.socket(), Duration::ZERO)
        };
        [after(), after()]
    }

    #[test]
    fn a_turn_discards_its_share_and_no_more() {
        assert_eq!(
            has_input_after(DISCARDS_PER_TURN - 1),
            [false, false],
            "a byte less than the share"
        );
        assert_eq!(has_input_after(DISCARDS_PER_TURN), [true, false], "the share");
        assert_eq!(has_input_after(DISCARDS_PER_TURN + 1), [true, false], "a byte more");
    }
}
