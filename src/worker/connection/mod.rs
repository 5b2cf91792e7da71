//! One connection: what its transport brings goes to its session, what its session answers goes to its transport, and
//! every step ends with the next deadline.
//!
//! ```text
//! Introducing ─ the header of a proxy ─▶ Serving ── the session is over, or idle for too long ─▶ Lingering ─▶ closed
//!   └── none, or not in time ─▶ closed
//! ```
//!
//! Without a proxy that has to introduce it (`server.proxy_protocol`), a connection begins with `Serving`.
//!
//! While output waits for the client nothing more is read or made, so that a client that doesn't read can't make the server
//! hold more than `OUTPUT_BYTES_MAX` and one response, or one piece of a response that is a stream.
//!
//! A connection owns no buffers. It is lent the lane's, and its transport keeps only what could not be handled yet:
//! between two requests that is nothing, and no heap.

mod consuming;
pub mod introduction;
mod leaving;
mod lingering;
mod session;
mod transport;

use std::os::fd::OwnedFd;

use self::lingering::Lingering;
use self::transport::{Flushed, FollowedBy, Transport};
use super::context::jobs::JobNumber;
use super::context::{Context, FILE_BYTES_PER_TURN};
use super::driver::{Driver, Input, Interest, Received};
use crate::http::Refusal;
use crate::observe::ledger::labels::TimedOut;
use crate::observe::record::End;
use crate::sys::epoll::Ready;
use crate::sys::ring::connected::Connected;

pub use session::{DRAIN_GRACE_MS, Phase, Session, Stop};

/// Full reads of one connection in one turn, and sends of content that is made meanwhile, before others have theirs.
const STEPS_PER_TURN: usize = 4;
/// Once so much came while nothing could be done with it, no more is taken.
const UNASKED_BYTES_MAX: usize = 16 * 1024;

/// An accepted socket and its protocol state. `'s` is the site it serves.
pub struct Connection<'s> {
    transport: Transport<'s>,
    stage: Stage<'s>,
}

enum Stage<'s> {
    /// The header of a proxy comes first, which says whose connection it is.
    Introducing,
    Serving(Session<'s>),
    /// The writing side is shut, and what still comes is thrown away.
    Lingering(Lingering),
}

/// What the loop should do with a connection after it was worked on.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next event; the deadline stays what it was.
    Wait,
    /// Wait for the next event until this time.
    WaitUntil(u64),
    /// There is more to read or to send: come back in the next turn, and at this time at the latest.
    Again(u64),
    /// There may be more to throw away: come back as soon as the lane has a share left for that, and at this time at
    /// the latest.
    Discard(u64),
    /// Drop it.
    Close,
}

impl From<Flushed> for Next {
    fn from(flushed: Flushed) -> Next {
        match flushed {
            Flushed::All => Next::Wait,
            Flushed::Waits(until_ms) => Next::WaitUntil(until_ms),
            Flushed::Paused(until_ms) => Next::Again(until_ms),
            Flushed::Broken => Next::Close,
        }
    }
}

impl<'s> Connection<'s> {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd) -> Connection<'s> {
        Connection { transport: Transport::new(socket), stage: Stage::Serving(Session::default()) }
    }

    /// The socket.
    pub fn socket(&self) -> &Connected {
        self.transport.socket()
    }

    /// Whether it waits in the loop for its next turn, after [`Next::Again`] or [`Next::Discard`].
    pub(super) fn is_queued(&self) -> bool {
        self.transport.is_queued
    }

    /// Says so.
    pub(super) fn set_queued(&mut self, is_queued: bool) {
        self.transport.is_queued = is_queued;
    }

    /// Whether nothing is in flight: no request begun, no response unsent.
    pub fn is_idle(&self) -> bool {
        self.transport.is_idle()
            && matches!(&self.stage, Stage::Serving(session) if session.is_idle())
    }

    /// Since when its client has sent no request, or nothing more of one, with this deadline; 0 if it is about to be closed
    /// anyway, `None` if it is being answered.
    pub fn waits_since_ms(&self, deadline_ms: Option<u64>, lane: &Context<'s>) -> Option<u64> {
        if self.transport.is_blocked() {
            return None;
        }
        let timeout_ms = match &self.stage {
            Stage::Serving(session) => match session.phase() {
                Phase::Reading => session.timeout_ms(lane),
                Phase::Leaving => return Some(0),
                _ => return None,
            },
            Stage::Introducing => lane.timeouts.header_ms,
            Stage::Lingering(_) => return Some(0),
        };
        Some(deadline_ms.map_or(0, |deadline_ms| deadline_ms.saturating_sub(timeout_ms)))
    }

    /// Whether no request has begun yet.
    pub fn is_fresh(&self) -> bool {
        matches!(&self.stage, Stage::Serving(session) if session.is_fresh())
    }

    /// How long it stays open while nothing comes, in milliseconds.
    pub fn idle_timeout_ms(&self, lane: &Context<'_>) -> u64 {
        match &self.stage {
            Stage::Serving(session) => session.idle_timeout_ms(lane),
            Stage::Introducing => lane.timeouts.header_ms,
            Stage::Lingering(_) => DRAIN_GRACE_MS,
        }
    }

    /// Memory held for this connection alone: of request and response bodies, of responses that wait for the client, and
    /// of what came too early. In bytes, used or not.
    pub fn held_bytes(&self) -> usize {
        self.transport.held_bytes() + self.session_held_bytes()
    }

    fn session_held_bytes(&self) -> usize {
        match &self.stage {
            Stage::Serving(session) => session.held_bytes(),
            Stage::Introducing | Stage::Lingering(_) => 0,
        }
    }

    /// What to wait for between two steps.
    pub fn interest(&self) -> Interest {
        // To wait for much input, unless its next turn is to come anyway.
        let bulk = if self.is_queued() { Interest::Nothing } else { Interest::BulkInput };
        let is_flooded = self.transport.waiting_input() >= UNASKED_BYTES_MAX;
        match &self.stage {
            Stage::Lingering(lingering) if lingering.is_over => Interest::Nothing,
            Stage::Lingering(lingering) if lingering.is_bulk => bulk,
            Stage::Introducing | Stage::Lingering(_) => Interest::Input,
            Stage::Serving(session) if self.transport.is_blocked() => {
                let takes_more = !is_flooded && !session.has_more_than_wanted();
                match (takes_more, self.transport.is_paused()) {
                    (true, false) => Interest::RoomOrInput,
                    (false, false) => Interest::Room,
                    (true, true) => Interest::Input,
                    (false, true) => Interest::Nothing,
                }
            }
            Stage::Serving(session) if session.expects_bulk() => bulk,
            Stage::Serving(session) if session.is_leaving() => Interest::Nothing,
            Stage::Serving(session) if !session.takes_input() && is_flooded => Interest::Nothing,
            Stage::Serving(_) => Interest::Input,
        }
    }

    /// Works on what an event told of.
    pub fn on_ready(
        &mut self,
        ready: Ready,
        input: &mut Input<'_>,
        lane: &mut Context<'s>,
    ) -> Next {
        if ready.broken {
            return Next::Close;
        }
        let is_told = ready.readable || ready.read_closed;
        let (is_queued, is_blocked) = (self.is_queued(), self.transport.is_blocked());
        let may_send = if self.transport.is_paused() { !is_queued } else { ready.writable };
        match &mut self.stage {
            Stage::Introducing if is_told => self.introduce(input, lane, ready.read_closed),
            Stage::Introducing => Next::Wait,
            Stage::Lingering(lingering) if is_told && !is_queued => {
                lingering.discard(self.transport.socket(), input, ready.read_closed, lane)
            }
            Stage::Lingering(_) => Next::Wait,
            Stage::Serving(_) if is_blocked && may_send => self.resume(input, lane),
            Stage::Serving(_) if is_blocked => self.keep_early(input, lane),
            Stage::Serving(session) if session.is_leaving() => {
                if input.is_empty() {
                    return Next::Wait;
                }
                session.stay();
                self.leave_idle(input, lane)
            }
            Stage::Serving(session) if session.is_streaming() && !is_queued => {
                self.resume(input, lane)
            }
            Stage::Serving(session) if session.takes_input() && is_told => {
                let begun = session.is_in_request();
                self.read(input, lane, begun, ready.read_closed)
            }
            Stage::Serving(_) => self.keep_early(input, lane),
        }
    }

    /// Works on the deadline that has passed.
    pub fn on_deadline(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        if self.transport.is_blocked() {
            return self.transport.wait_for_room(lane).into();
        }
        let is_idle = self.is_idle();
        let session = match &mut self.stage {
            Stage::Introducing => return self.leave_introducing(input, lane),
            Stage::Lingering(lingering) => {
                return lingering.linger_on(self.transport.socket(), lane);
            }
            Stage::Serving(session) => session,
        };
        match session.phase() {
            Phase::Reading if is_idle => self.leave_idle(input, lane),
            Phase::Reading => {
                let waited_for =
                    if session.is_in_head() { TimedOut::Header } else { TimedOut::Body };
                lane.counters.cells().timed_out.at(waited_for).add(1);
                session.refuse(Refusal::TIMEOUT, self.transport.input(), lane);
                self.resume(input, lane)
            }
            Phase::Waiting { .. } => {
                session.elapse();
                self.resume(input, lane)
            }
            Phase::Answering => self.resume(input, lane),
            Phase::Leaving => {
                leaving::count_idle(lane);
                Next::Close
            }
            Phase::Last { .. } | Phase::BrokenOff => Next::Close,
        }
    }

    /// The job with this number, which was begun for this connection, has ended.
    pub(super) fn on_woken(
        &mut self,
        job: JobNumber,
        input: &mut Input<'_>,
        lane: &mut Context<'s>,
    ) -> Next {
        let is_queued = self.is_queued();
        let (is_awaited, waits_its_turn) = match &mut self.stage {
            Stage::Serving(session) => (session.wake(job), is_queued && session.is_streaming()),
            Stage::Introducing | Stage::Lingering(_) => (false, false),
        };
        // What is sent before the reply goes first; then the connection goes on with it.
        if is_awaited && !waits_its_turn && !self.transport.is_blocked() {
            self.resume(input, lane)
        } else {
            Next::Wait
        }
    }

    /// After a panic while this connection was worked on: the responses before the one that failed, and a
    /// 500, if nothing was sent of it.
    pub fn on_panic(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        let Stage::Serving(session) = &mut self.stage else {
            return Next::Close;
        };
        let undone = if self.transport.is_blocked() { None } else { lane.output.undo() };
        let Some(undone) = undone else {
            // Where a response is on its way, its client must not take it for whole.
            if session.is_in_stream() {
                self.transport.reset_on_close();
            }
            self.transport.forget_gathered(lane);
            return Next::Close;
        };
        self.transport.forget_waiting(lane);
        session.refuse_failed(undone, lane);
        self.resume(input, lane)
    }

    /// Sends what the steps of this turn have left to be sent.
    pub(super) fn end_turn(
        &mut self,
        next: Next,
        driver: &mut Driver,
        token: u64,
        lane: &mut Context<'s>,
    ) -> Next {
        lane.output.mark_sent();
        lane.file_bytes_left = FILE_BYTES_PER_TURN;
        if lane.output.is_empty() {
            return next;
        }
        let beside = self.session_held_bytes();
        let flushed = match next {
            // No later turn sends it.
            Next::Close => self.transport.send(FollowedBy::More, beside, lane),
            _ => self.transport.send_with_turn(driver, token, beside, lane),
        };
        match flushed {
            Flushed::All => next,
            flushed => flushed.into(),
        }
    }

    /// It is closed: what was in flight is over.
    pub(super) fn abandon(&mut self, lane: &mut Context<'s>) {
        self.transport.forget_waiting(lane);
        if let Stage::Serving(session) = &mut self.stage
            && let Some(record) = session.open_record()
        {
            let closing = lane.closing();
            closing.close([record].into_iter(), End::Broken, &mut lane.ended);
        }
    }

    /// Keeps what the driver had taken, and the kernel had no room for.
    pub(super) fn keep_unsent(&mut self, unsent: &[u8], lane: &Context<'s>) -> Next {
        let beside = self.session_held_bytes();
        self.transport.keep_unsent(unsent, beside, lane).into()
    }

    /// Goes on where unsent output or a delay had stopped the work: sends, parses what was kept, reads.
    fn resume(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        match self.settle(Stop::Occupied, lane) {
            Some(next) => next,
            // Events that came meanwhile were ignored, an end of stream too: only a read can tell.
            None => self.read(input, lane, false, true),
        }
    }

    /// Reads until there is no more, and answers what is whole. `begun`: a head was begun before, and its
    /// deadline stands. `to_the_end`: a short read is not enough to know that the socket is empty.
    fn read(
        &mut self,
        input: &mut Input<'_>,
        lane: &mut Context<'s>,
        begun: bool,
        to_the_end: bool,
    ) -> Next {
        let requests = self.requests();
        for _ in 0..STEPS_PER_TURN {
            let (bytes, is_all) = match input.receive(self.transport.socket()) {
                Received::Bytes { bytes, is_all } => (bytes, is_all),
                Received::Nothing => return self.wait(begun && requests == self.requests(), lane),
                // What was only half sent gets no answer; what was whole has had it.
                Received::End => return Next::Close,
            };
            lane.counters.cells().received_bytes.add(bytes.len() as u64);
            let stop = self.absorb(bytes, lane);
            if let Some(next) = self.settle(stop, lane) {
                return match next {
                    // The socket was emptied: what comes now has an event of its own.
                    Next::Discard(deadline_ms) if is_all && !to_the_end => {
                        Next::WaitUntil(deadline_ms)
                    }
                    next => next,
                };
            }
            // Asking again would only cost a call.
            if is_all && !to_the_end {
                return self.wait(begun && requests == self.requests(), lane);
            }
        }
        Next::Again(self.deadline_ms(lane))
    }

    /// Sends what was made and goes on with what was kept, until something has to be waited for. `None`: more input is
    /// needed; then what was made last is left for the end of the turn.
    fn settle(&mut self, mut stop: Stop, lane: &mut Context<'s>) -> Option<Next> {
        let mut fills = 0;
        loop {
            let beside = self.session_held_bytes();
            let Stage::Serving(session) = &mut self.stage else {
                return Some(Next::Wait);
            };
            if !self.transport.is_blocked() {
                if session.is_streaming() && fills == STEPS_PER_TURN {
                    return Some(Next::Again(lane.now_ms + lane.timeouts.write_ms));
                }
                fills += usize::from(session.is_streaming());
                session.go_on(beside, lane);
                let has_room = !lane.output.is_full();
                if stop == Stop::NeedsInput && session.takes_input() && has_room {
                    return None;
                }
            }
            let phase = session.phase();
            let followed_by = match phase {
                Phase::Last { .. } => FollowedBy::End,
                _ => FollowedBy::More,
            };
            let flushed = self.transport.send(followed_by, beside, lane);
            if flushed != Flushed::All {
                return Some(flushed.into());
            }
            match phase {
                Phase::Reading => match stop {
                    Stop::NeedsInput => return None,
                    Stop::Occupied => stop = self.absorb_waiting(lane),
                },
                Phase::Answering => {}
                // The turn's time is in whole milliseconds that have passed: a part of one more may have.
                Phase::Waiting { timeout } => {
                    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                    return Some(Next::WaitUntil(ms.saturating_add(lane.now_ms + 1)));
                }
                Phase::Last { has_more } => return Some(self.finish(has_more, lane)),
                Phase::Leaving => return Some(Next::Wait),
                Phase::BrokenOff => {
                    self.transport.reset_on_close();
                    return Some(Next::Close);
                }
            }
        }
    }

    /// Nothing more to do for now. `unchanged`: the same head is still coming, and its deadline stands,
    /// so that a client can't put it off byte by byte.
    fn wait(&self, unchanged: bool, lane: &Context<'s>) -> Next {
        match &self.stage {
            Stage::Serving(session) if unchanged && session.is_in_head() => Next::Wait,
            _ => Next::WaitUntil(self.deadline_ms(lane)),
        }
    }

    fn deadline_ms(&self, lane: &Context<'s>) -> u64 {
        match &self.stage {
            Stage::Serving(session) => session.deadline_ms(lane),
            Stage::Introducing | Stage::Lingering(_) => lane.now_ms,
        }
    }

    /// How many requests have begun.
    fn requests(&self) -> u32 {
        match &self.stage {
            Stage::Serving(session) => session.requests(),
            Stage::Introducing | Stage::Lingering(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
