//! What a session waits for in each state, and how long for its client.

use std::time::Duration;

use super::{Incoming, NextPiece, Phase, Session, State};
use crate::content::Pending;
use crate::control::DrainKind;
use crate::worker::context::Context;

/// How long an idle connection stays open in a drain, for a request that is already on its way. While the server goes
/// on, one that was never used is not idle: its client is about to use it for the first time.
pub const DRAIN_GRACE_MS: u64 = 500;

impl<'s> Session<'s> {
    /// What it does.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Reading | State::ReadingBody(_) => Phase::Reading,
            State::Pending(waiting) if waiting.is_over => Phase::Answering,
            State::Pending(waiting) => {
                let timeout = waiting.pending.as_ref().map_or(Duration::ZERO, Pending::timeout);
                Phase::Waiting { timeout }
            }
            State::Streaming(streaming) if streaming.next == NextPiece::Later => {
                Phase::Waiting { timeout: streaming.content.stream.timeout() }
            }
            State::Streaming(_) => Phase::Answering,
            State::Last { has_more } => Phase::Last { has_more: *has_more },
            State::Leaving => Phase::Leaving,
            State::BrokenOff => Phase::BrokenOff,
        }
    }

    /// When the client has to have sent more.
    pub(in crate::worker) fn deadline_ms(&self, lane: &Context<'s>) -> u64 {
        let deadline_ms = lane.now_ms + self.timeout_ms(lane);
        match &self.state {
            State::ReadingBody(incoming) => deadline_ms.min(incoming.too_slow_at_ms(lane)),
            _ => deadline_ms,
        }
    }

    /// How long the connection stays open while nothing comes, in milliseconds.
    pub(in crate::worker) fn idle_timeout_ms(&self, lane: &Context<'_>) -> u64 {
        match lane.draining() {
            None => lane.timeouts.keep_alive_ms,
            Some(DrainKind::Replaced) if self.is_fresh() => lane.timeouts.header_ms,
            Some(DrainKind::Replaced | DrainKind::Stop) => DRAIN_GRACE_MS,
        }
    }

    /// How long the client may take for what it has to send next.
    pub(in crate::worker::connection) fn timeout_ms(&self, lane: &Context<'s>) -> u64 {
        let timeouts = &lane.timeouts;
        if self.receiver.is_in_body() {
            timeouts.body_ms
        } else if !self.receiver.is_idle() {
            timeouts.header_ms
        } else {
            self.idle_timeout_ms(lane)
        }
    }
}

impl Incoming<'_> {
    /// When the body has come too slowly, if nothing more comes.
    fn too_slow_at_ms(&self, lane: &Context<'_>) -> u64 {
        let allowed_ms = allowed_ms(lane.timeouts.body_ms, self.received, lane.body_rate);
        self.began_ms.saturating_add(allowed_ms)
    }
}

/// How long so many bytes of a body may take: `timeouts.body`, and beyond it as long as at the least rate a second.
fn allowed_ms(body_ms: u64, received: u64, rate: u64) -> u64 {
    let at_rate_ms = received.saturating_mul(1000).checked_div(rate);
    at_rate_ms.map_or(u64::MAX, |at_rate_ms| body_ms.saturating_add(at_rate_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_take_its_timeout_and_as_long_as_its_bytes_at_the_least_rate() {
        for (received, rate, allowed) in [
            (0, 256, 30_000),
            (255, 256, 30_996),
            (256, 256, 31_000),
            (257, 256, 31_003),
            (1 << 20, 256, 30_000 + 4_096_000),
            (u64::MAX, 1, u64::MAX),
            (0, 0, u64::MAX),
        ] {
            assert_eq!(allowed_ms(30_000, received, rate), allowed, "{received} at {rate}");
        }
    }
}
