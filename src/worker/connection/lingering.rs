//! The end of a connection, in stages, so that its client gets what it was sent (RFC 9112 §9.6): the writing side is
//! shut, what still comes is thrown away, and the socket is closed when the client has ended its side, or has
//! acknowledged everything and is silent. A close with unread input, or input after a close, would reset the connection
//! and take what is on its way with it.
//!
//! What is thrown away is bounded by time. What that costs other clients is bounded by a share of each turn, for all
//! connections of the lane together ([`Context::discards_left`]).

use super::Next;
use crate::control::DrainKind;
use crate::sys::ring::connected::Connected;
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

/// What the client did before its connection ended, which says how long it may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It was idle.
    Idle,
    /// It has its last response, and has said that it sends no more.
    Answered,
    /// It was not done with what it sends.
    MoreToCome,
}

/// How long a client may go on sending.
fn linger_ms(lane: &Context<'_>) -> u64 {
    match lane.draining() {
        Some(DrainKind::Stop) => QUIET_MS,
        Some(DrainKind::Replaced) | None => LINGER_MS,
    }
}

impl Lingering {
    /// Shuts the writing side, and says when to look whether the client has done the same. `None` if the connection is
    /// gone.
    pub(super) fn begin(
        socket: &Connected,
        silence: Silence,
        lane: &Context<'_>,
    ) -> Option<(Lingering, u64)> {
        driver::finish_sending(socket).ok()?;
        let quiet_ms = match silence {
            Silence::Idle => IDLE_LINGER_MS,
            Silence::Answered => QUIET_MS,
            Silence::MoreToCome => PAUSE_MS,
        };
        let until_ms = lane.now_ms + linger_ms(lane);
        let lingering =
            Lingering { until_ms, unacknowledged: u32::MAX, is_bulk: false, is_over: false };
        Some((lingering, until_ms.min(lane.now_ms + quiet_ms)))
    }

    /// The server stops: when to look again, at the latest.
    pub(super) fn shorten(&mut self, now_ms: u64) -> u64 {
        self.until_ms = self.until_ms.min(now_ms + QUIET_MS);
        self.until_ms
    }

    /// Throws away what came. `to_the_end`: a short read is not enough to know that the socket is empty.
    pub(super) fn discard(
        &mut self,
        socket: &Connected,
        input: &mut Input<'_>,
        to_the_end: bool,
        lane: &mut Context<'_>,
    ) -> Next {
        if self.is_over {
            return Next::Wait;
        }
        let deadline_ms = self.until_ms.min(lane.now_ms + PAUSE_MS);
        if lane.discards_left == 0 {
            return Next::Discard(deadline_ms);
        }
        let (count, is_all) = match input.discard(socket) {
            Discarded::All(0) => return Next::Wait,
            Discarded::All(count) => (count, !to_the_end),
            Discarded::Some(count) => (count, false),
            Discarded::End => return Next::Close,
        };
        lane.discards_left = lane.discards_left.saturating_sub(count);
        lane.counters.cells().received_bytes.add(count as u64);
        self.is_bulk = true;
        if is_all { Next::WaitUntil(deadline_ms) } else { Next::Discard(deadline_ms) }
    }

    /// The client was silent for long enough, or sent for long enough. Closes, unless part of the response is on its
    /// way and arrives bit by bit; what the client sends meanwhile is read for its time and no longer.
    pub(super) fn linger_on(&mut self, socket: &Connected, lane: &Context<'_>) -> Next {
        let unacknowledged = driver::unacknowledged(socket);
        if unacknowledged == 0 || unacknowledged >= self.unacknowledged {
            return Next::Close;
        }
        self.unacknowledged = unacknowledged;
        self.is_over = lane.now_ms >= self.until_ms;
        Next::WaitUntil(lane.now_ms + PAUSE_MS.min(linger_ms(lane)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
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
        let (site, ledger) =
            (Site::new(&config.routes, &config.files), Ledger::new(1).expect("a ledger"));
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
        let socket = Connected::from(OwnedFd::from(server));
        let begun = Lingering::begin(&socket, Silence::MoreToCome, &lane);
        let (mut lingering, _) = begun.expect("a connection");

        let brought = vec![0; discarded];
        let mut input = Input::new(Some(&brought), None);
        let next = lingering.discard(&socket, &mut input, true, &mut lane);
        assert_eq!(next, Next::Discard(PAUSE_MS), "there may be more");
        client.write_all(&[0; 5]).expect("room");
        let mut after = || {
            let mut input = [0; 16];
            lingering.discard(&socket, &mut Input::new(None, Some(&mut input)), true, &mut lane);
            lane.begin_turn();
            has_input_within(&socket, Duration::ZERO)
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
