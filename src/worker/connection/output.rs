//! Responses on their way to the client: what is encoded leaves, and what the socket has no room for is kept.

use std::mem;

use super::{Connection, Next, OUTPUT_BYTES_MAX, Phase, Stop};
use crate::worker::context::Context;
use crate::worker::driver::{self, Sent};
use crate::worker::kept::{Progress, Tail};

impl<'s> Connection<'s> {
    /// Whether output waits for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.has_output())
    }

    /// Sends what was encoded and goes on with what was kept, until something has to be waited for.
    /// `None`: more input is needed. Then what was encoded last is left to whoever lent the output.
    pub(super) fn settle(&mut self, mut stop: Stop, lane: &mut Context<'s>) -> Option<Next> {
        loop {
            let takes_more = matches!(self.phase, Phase::Reading | Phase::Receiving(_));
            let is_large = lane.output.len() >= OUTPUT_BYTES_MAX || !lane.tail.is_empty();
            if matches!(stop, Stop::Starved) && takes_more && !is_large && !self.is_blocked() {
                return None;
            }
            match self.flush(lane) {
                None => return Some(Next::Close),
                Some(false) => return Some(self.begin_waiting(lane)),
                Some(true) => {}
            }
            match &self.phase {
                Phase::Reading | Phase::Receiving(_) => match stop {
                    Stop::Starved => return None,
                    Stop::Occupied => stop = self.absorb_kept(lane),
                },
                Phase::Delayed(delayed) => {
                    // The turn's time is in whole milliseconds that have passed: a part of one more may have.
                    return Some(Next::WaitUntil(lane.now_ms + delayed.reply.delay_ms() + 1));
                }
                Phase::Last { has_more } => return Some(self.finish(*has_more, lane)),
                Phase::Leaving | Phase::Lingering(_) => return Some(Next::Wait),
            }
        }
    }

    /// Sends the lane's output, or what this connection kept of it. `Some(false)` if the kernel took only
    /// part, which is kept; `None` if the connection is broken.
    pub(super) fn flush(&mut self, lane: &mut Context<'s>) -> Option<bool> {
        lane.whole_output = None;
        let is_last = matches!(self.phase, Phase::Last { .. });
        let transmit = if is_last { driver::transmit_last } else { driver::transmit };
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.has_output()) {
            debug_assert!(lane.output.is_empty(), "nothing is encoded while output waits");
            let rest = &kept.output[kept.sent..];
            let offered = rest.len() + kept.tail.rest().len();
            let Sent::Bytes(sent) = transmit(&self.socket, rest, kept.tail.rest()) else {
                return None;
            };
            if sent < offered {
                let of_output = sent.min(rest.len());
                kept.sent += of_output;
                kept.tail.advance(sent - of_output);
                return Some(false);
            }
            kept.output = Vec::new();
            kept.sent = 0;
            kept.tail = Tail::None;
            if kept.input.is_empty() {
                self.kept = None;
            }
            return Some(true);
        }
        if lane.output.is_empty() {
            return Some(true);
        }
        let offered = lane.output.len() + lane.tail.rest().len();
        let result = transmit(&self.socket, &lane.output, lane.tail.rest());
        let mut tail = mem::take(&mut lane.tail);
        let done = match result {
            Sent::Broken => None,
            Sent::Bytes(sent) if sent == offered => Some(true),
            Sent::Bytes(sent) => {
                let of_output = sent.min(lane.output.len());
                tail.advance(sent - of_output);
                let unsent = lane.output.len() - of_output + tail.held_bytes();
                if !lane.may_hold(self.held_bytes() + unsent) {
                    lane.output.clear();
                    return None;
                }
                let kept = self.kept.get_or_insert_default();
                kept.output = lane.output[of_output..].to_vec();
                kept.tail = tail;
                Some(false)
            }
        };
        lane.output.clear();
        done
    }

    /// Keeps what was left to be sent, and was not.
    pub fn keep_unsent(&mut self, rest: &[u8], lane: &Context<'s>) -> Next {
        debug_assert!(!self.is_blocked(), "nothing is sent while output waits");
        if !lane.may_hold(self.held_bytes() + rest.len()) {
            return Next::Close;
        }
        self.kept.get_or_insert_default().output.extend_from_slice(rest);
        self.begin_waiting(lane)
    }

    /// The kernel has no room for more.
    fn begin_waiting(&mut self, lane: &Context<'s>) -> Next {
        let kept = self.kept.get_or_insert_default();
        kept.progress = Progress::begin(lane.now_ms);
        Next::WaitUntil(kept.progress.next_ms(lane.now_ms, lane.timeouts.write_ms))
    }

    /// The kernel has had no room for a while, which a client may take megabytes to make: closes if the client has
    /// not even acknowledged anything for `timeouts.write`.
    pub(super) fn wait_for_room(&mut self, lane: &Context<'s>) -> Next {
        let Some(kept) = &mut self.kept else {
            return Next::Wait;
        };
        let (now_ms, timeout_ms) = (lane.now_ms, lane.timeouts.write_ms);
        let unacknowledged = driver::unacknowledged(&self.socket);
        match kept.progress.goes_on(unacknowledged, now_ms, timeout_ms) {
            true => Next::WaitUntil(kept.progress.next_ms(now_ms, timeout_ms)),
            false => {
                // Else the kernel would keep megabytes for a client that takes none, long after the close.
                driver::forget_unsent(&self.socket);
                Next::Close
            }
        }
    }
}
