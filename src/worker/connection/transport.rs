//! The transport of a connection: its socket, the only place where anything is sent on it, and what waits meanwhile.
//! Knows nothing of HTTP.
//!
//! Small responses leave with the turn, by the driver ([`Transport::send_with_turn`]); what is large, or has to leave before
//! the connection goes on, is sent at once ([`Transport::send`]). What the kernel has no room for is kept here; while
//! anything is, nothing else is sent.

use std::os::fd::OwnedFd;

use crate::observe::ledger::labels::{RejectedFor, TimedOut};
use crate::observe::record::End;
use crate::sys::ring::connected::Connected;
use crate::worker::context::Context;
use crate::worker::context::output::Outgoing;
use crate::worker::driver::{self, Driver, Payload, Sent};

/// So often within `timeouts.write` a client that leaves the kernel no room is asked after: one that stalls is closed
/// after the timeout, and at most one part more.
const CHECKS_PER_TIMEOUT: u64 = 8;

/// A connected socket, and what waits on either side of it.
pub(super) struct Transport<'s> {
    socket: Connected,
    /// It waits in the loop for its next turn, because there is more to read, or of a stream to send, than one turn allows.
    pub(super) is_queued: bool,
    /// Between two requests there is nothing, and no heap.
    waiting: Option<Box<Waiting<'s>>>,
}

/// Bytes that could not be handled yet.
#[derive(Default)]
struct Waiting<'s> {
    /// Received, but not consumed: part of a head, or requests behind a response that isn't sent.
    input: Vec<u8>,
    /// Not taken by the kernel.
    output: Outgoing<'s>,
    /// It was not offered to the kernel yet: the connection's next turn does, and no event.
    is_paused: bool,
    progress: Progress,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The kernel has everything.
    All,
    /// It had no room for everything: the connection waits for that until this time.
    Waits(u64),
    /// There is more than one turn sends: the next one goes on, and does so until this time.
    Paused(u64),
    /// The connection is broken, or the lane may hold no more for it.
    Broken,
}

/// What is sent behind bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowedBy {
    /// There may be more.
    More,
    /// The end of the stream, which leaves in one segment with the last of them.
    End,
}

impl<'s> Transport<'s> {
    pub(super) fn new(socket: OwnedFd) -> Transport<'s> {
        Transport { socket: Connected::from(socket), is_queued: false, waiting: None }
    }

    pub(super) fn socket(&self) -> &Connected {
        &self.socket
    }

    /// Whether output waits for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.output.is_empty())
    }

    /// How much output waits, in bytes.
    #[cfg(test)]
    pub(super) fn unsent_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| {
            let (bytes, body) = waiting.output.unsent();
            bytes.len() + body.len()
        })
    }

    /// Whether output waits for the connection's next turn alone.
    pub(super) fn is_paused(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.is_paused)
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none()
    }

    /// Memory held for what waits, in bytes, used or not.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting
            .as_ref()
            .map_or(0, |waiting| waiting.input.capacity() + waiting.output.held_bytes())
    }

    /// Has the close of the connection reset it.
    pub(super) fn reset_on_close(&self) {
        driver::forget_unsent(&self.socket);
    }

    /// Drops what waits.
    pub(super) fn forget_waiting(&mut self, lane: &mut Context<'s>) {
        if let Some(mut waiting) = self.waiting.take() {
            let closing = lane.closing();
            closing.close(waiting.output.abandon(), End::Broken, &mut lane.ended);
        }
    }

    /// Drops what the lane has gathered for this connection.
    pub(super) fn forget_gathered(&self, lane: &mut Context<'s>) {
        let closing = lane.closing();
        closing.close(lane.output.abandon(), End::Broken, &mut lane.ended);
    }

    /// The input that waits.
    pub(super) fn input(&self) -> &[u8] {
        self.waiting.as_ref().map_or(&[], |waiting| &waiting.input)
    }

    /// How much input waits, in bytes.
    pub(super) fn waiting_input(&self) -> usize {
        self.input().len()
    }

    /// Keeps input behind what waits already.
    pub(super) fn keep_input(&mut self, bytes: &[u8]) {
        self.waiting.get_or_insert_default().input.extend_from_slice(bytes);
    }

    /// Takes the input that waits, to be consumed.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        self.waiting.as_mut().map_or_else(Vec::new, |waiting| std::mem::take(&mut waiting.input))
    }

    /// Puts back what was taken and is not consumed; there may be nothing left.
    pub(super) fn put_back_input(&mut self, input: Vec<u8>) {
        if !input.is_empty() {
            self.waiting.get_or_insert_default().input = input;
        } else if !self.is_blocked() {
            self.waiting = None;
        }
    }

    /// Sends what waits, or else what the lane has gathered for this connection, now. What is left is kept, if the lane
    /// may hold it; the connection holds `beside` bytes elsewhere.
    pub(super) fn send(
        &mut self,
        followed_by: FollowedBy,
        beside: usize,
        lane: &mut Context<'s>,
    ) -> Flushed {
        lane.output.mark_sent();
        let closing = lane.closing();
        if let Some(waiting) = self.waiting.as_mut().filter(|waiting| !waiting.output.is_empty()) {
            debug_assert!(lane.output.is_empty(), "nothing is gathered while output waits");
            let (sent, offered) =
                offer(&self.socket, &waiting.output, followed_by, &mut lane.file_bytes_left);
            let Sent::Bytes(sent) = sent else {
                return Flushed::Broken;
            };
            closing.close(waiting.output.advance(sent), End::Sent, &mut lane.ended);
            if !waiting.output.is_empty() {
                return self.begin_waiting(sent == offered, lane);
            }
            waiting.output = Outgoing::default();
            waiting.is_paused = false;
            if waiting.input.is_empty() {
                self.waiting = None;
            }
            return Flushed::All;
        }
        if lane.output.is_empty() {
            closing.close(lane.output.advance(0), End::Sent, &mut lane.ended);
            return Flushed::All;
        }
        let (sent, offered) =
            offer(&self.socket, &lane.output.outgoing, followed_by, &mut lane.file_bytes_left);
        self.keep_unsent_of_lane(sent, offered, beside, lane)
    }

    /// Sends what the lane has gathered for this connection, with what others send in this turn. To be asked after the
    /// last step of the connection in the turn.
    pub(super) fn send_with_turn(
        &mut self,
        driver: &mut Driver,
        token: u64,
        beside: usize,
        lane: &mut Context<'s>,
    ) -> Flushed {
        let (bytes, body) = lane.output.unsent();
        debug_assert!(body.is_empty(), "a large body is sent at once");
        let sent = driver.send(&self.socket, token, bytes);
        self.keep_unsent_of_lane(sent, bytes.len(), beside, lane)
    }

    /// Keeps what is left of the lane's output, of which so much was sent, and so much offered.
    fn keep_unsent_of_lane(
        &mut self,
        sent: Sent,
        offered: usize,
        beside: usize,
        lane: &mut Context<'s>,
    ) -> Flushed {
        let Sent::Bytes(sent) = sent else {
            self.forget_gathered(lane);
            return Flushed::Broken;
        };
        let closing = lane.closing();
        closing.close(lane.output.advance(sent), End::Sent, &mut lane.ended);
        if lane.output.is_empty() {
            return Flushed::All;
        }
        let unsent = lane.output.outgoing.unsent_held_bytes();
        if !lane.may_hold(beside + self.held_bytes() + unsent) {
            lane.counters.cells().rejected.at(RejectedFor::Memory).add(1);
            self.forget_gathered(lane);
            return Flushed::Broken;
        }
        self.waiting.get_or_insert_default().output = lane.output.outgoing.take_unsent();
        self.begin_waiting(sent == offered, lane)
    }

    /// Keeps what the driver had taken with the turn, and the kernel had no room for.
    pub(super) fn keep_unsent(
        &mut self,
        unsent: &[u8],
        beside: usize,
        lane: &Context<'s>,
    ) -> Flushed {
        debug_assert!(!self.is_blocked(), "nothing is sent while output waits");
        if !lane.may_hold(beside + self.held_bytes() + unsent.len()) {
            lane.counters.cells().rejected.at(RejectedFor::Memory).add(1);
            return Flushed::Broken;
        }
        self.waiting.get_or_insert_default().output.bytes.extend_from_slice(unsent);
        self.begin_waiting(false, lane)
    }

    /// What is left waits: for room, or, if it was not offered to the kernel yet, for the next turn.
    fn begin_waiting(&mut self, is_paused: bool, lane: &Context<'s>) -> Flushed {
        let waiting = self.waiting.get_or_insert_default();
        waiting.is_paused = is_paused;
        waiting.progress = Progress::begin(lane.now_ms);
        let next_ms = waiting.progress.next_ms(lane.now_ms, lane.timeouts.write_ms);
        if is_paused { Flushed::Paused(next_ms) } else { Flushed::Waits(next_ms) }
    }

    /// The kernel has had no room for a while, which a client may take megabytes to make: gives up if the client has
    /// not even acknowledged anything for `timeouts.write`.
    pub(super) fn wait_for_room(&mut self, lane: &Context<'s>) -> Flushed {
        let Some(waiting) = &mut self.waiting else {
            return Flushed::All;
        };
        let (now_ms, timeout_ms) = (lane.now_ms, lane.timeouts.write_ms);
        let unacknowledged = driver::unacknowledged(&self.socket);
        match waiting.progress.goes_on(unacknowledged, now_ms, timeout_ms) {
            true => Flushed::Waits(waiting.progress.next_ms(now_ms, timeout_ms)),
            false => {
                // Else the kernel would keep megabytes for a client that takes none, long after the close.
                self.reset_on_close();
                lane.counters.cells().timed_out.at(TimedOut::Write).add(1);
                Flushed::Broken
            }
        }
    }
}

/// Offers to the kernel what is left, of a file `file_bytes_left` at most, from which what is sent of it is taken. Says
/// what came of it, and how much was offered, in bytes.
fn offer(
    socket: &Connected,
    outgoing: &Outgoing<'_>,
    followed_by: FollowedBy,
    file_bytes_left: &mut usize,
) -> (Sent, usize) {
    let (bytes, body) = outgoing.unsent();
    let body = body.up_to(*file_bytes_left);
    let sent = match followed_by {
        FollowedBy::More => driver::transmit(socket, bytes, body),
        FollowedBy::End => driver::transmit_last(socket, bytes, body),
    };
    if let (Payload::File { .. }, Sent::Bytes(sent)) = (body, sent) {
        *file_bytes_left -= sent.saturating_sub(bytes.len());
    }
    (sent, bytes.len() + body.len())
}

/// How a client takes what the kernel holds for it, while the kernel has no room for more.
#[derive(Default)]
struct Progress {
    /// What the client had not acknowledged when that was asked last, if it was since the kernel took anything.
    unacknowledged: Option<u32>,
    /// When it was last known to have acknowledged something.
    since_ms: u64,
}

impl Progress {
    /// At `now_ms` the kernel took something, because there was room.
    fn begin(now_ms: u64) -> Progress {
        Progress { unacknowledged: None, since_ms: now_ms }
    }

    /// So much is unacknowledged at `now_ms`. Whether anything was acknowledged within the last `timeout_ms`.
    fn goes_on(&mut self, unacknowledged: u32, now_ms: u64, timeout_ms: u64) -> bool {
        if self.unacknowledged.is_none_or(|before| unacknowledged < before) {
            *self = Progress { unacknowledged: Some(unacknowledged), since_ms: now_ms };
        }
        now_ms - self.since_ms < timeout_ms
    }

    /// When to ask again.
    fn next_ms(&self, now_ms: u64, timeout_ms: u64) -> u64 {
        let step_ms = timeout_ms.div_ceil(CHECKS_PER_TIMEOUT);
        (now_ms + step_ms).min(self.since_ms + timeout_ms)
    }
}
