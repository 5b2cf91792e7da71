//! One connection: from readiness to requests, responses and the next deadline.
//!
//! ```text
//!  ┌──────────── response sent, kept ◀──────────────┐
//!  ▼                                                │
//! Reading ── head with a body ─▶ Receiving ─ end ─▶ respond ─ last one ─▶ Last ─ sent ─▶ Lingering ─▶ closed
//!  │ └────── head without one ──────────────────────▲  │
//!  │                                                │  └─ a delay ─▶ Delayed ─ elapsed ─▶ respond
//!  └──────── refused: an error response ────────────┘
//!
//! Reading, idle for too long ── nothing has come ─▶ Lingering
//!  ▲  └─ while the kernel still receives ─▶ Leaving ─ it ended, nothing has come ─▶ Lingering
//!  └──────────── a request has come ────────┘
//! ```
//!
//! In any state output may be waiting for the client; while it does, nothing more is read, so that a client
//! that doesn't read can't make the server hold more than `OUTPUT_BYTES_MAX` and one response.
//!
//! A connection owns no buffers. It is lent the lane's, and keeps only what could not be handled yet
//! (`Kept`): between two requests that is nothing, and no heap.

mod closing;
mod exchange;
mod output;

use std::mem;
use std::os::fd::OwnedFd;

use self::closing::Lingering;
use self::exchange::{Delayed, Exchange, Receiving, Reply};
use super::context::Context;
use super::driver::{Input, Interest, Received};
use super::kept::{Kept, Tail};
use crate::control::DrainKind;
use crate::http::{Receiver, Refusal, Step};
use crate::sys::epoll::Ready;
use crate::sys::ring::connected::Connected;

/// Output that is gathered before it is sent, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Full reads of one connection in one turn, before others have theirs.
const READS_PER_TURN: usize = 4;
/// Once so much came while nothing could be done with it, no more is taken.
const UNASKED_BYTES_MAX: usize = 16 * 1024;
/// After so much of a body, more is taken to come.
const BULK_BYTES: u64 = 16 * 1024;
/// How long an idle connection stays open in a drain, for a request that is already on its way. While the server goes
/// on, one that was never used is not idle: its client is about to use it for the first time.
pub const DRAIN_GRACE_MS: u64 = 500;

/// An accepted socket and its protocol state. `'s` is the site it serves.
pub struct Connection<'s> {
    socket: Connected,
    /// Requests begun.
    requests: u32,
    receiver: Receiver,
    phase: Phase<'s>,
    kept: Option<Box<Kept<'s>>>,
    /// Waits in the loop for its next turn, after [`Next::Again`] or [`Next::Discard`].
    pub(super) is_queued: bool,
}

enum Phase<'s> {
    /// Between requests, or within a head.
    Reading,
    /// Within a request's body.
    Receiving(Box<Exchange<'s>>),
    /// A response that waits for its time.
    Delayed(Box<Delayed<'s>>),
    /// The last response is on its way. `has_more`: the client was not done with what it sends.
    Last { has_more: bool },
    /// Idle for too long: closed as soon as the receive that goes on has ended, if it brings nothing.
    Leaving,
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
    /// There is more to read: come back in the next turn, and at this time at the latest.
    Again(u64),
    /// There may be more to throw away: come back as soon as the lane has a share left for that, and at this time at
    /// the latest.
    Discard(u64),
    /// Drop it.
    Close,
}

/// Why work on a connection stopped.
enum Stop {
    /// More input is needed.
    Starved,
    /// Output has to be sent first, or the phase takes no input.
    Occupied,
}

impl<'s> Connection<'s> {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd) -> Connection<'s> {
        Connection {
            socket: Connected::from(socket),
            requests: 0,
            receiver: Receiver::default(),
            phase: Phase::Reading,
            kept: None,
            is_queued: false,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Connected {
        &self.socket
    }

    /// Whether nothing is in flight: no request begun, no response unsent.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Reading) && self.receiver.is_idle() && self.kept.is_none()
    }

    /// Whether no request has begun yet.
    pub fn is_fresh(&self) -> bool {
        self.requests == 0
    }

    /// Memory held for this connection alone: of request and response bodies, of responses that wait for the client, and
    /// of what came too early. In bytes, used or not.
    pub fn held_bytes(&self) -> usize {
        let phase = match &self.phase {
            Phase::Receiving(exchange) => match &exchange.answer {
                Receiving::Echo(_, collected) => collected.held_bytes(),
                Receiving::Fixed(_) => 0,
            },
            Phase::Delayed(delayed) => match &delayed.reply {
                Reply::Echo(_, body) => body.capacity(),
                Reply::Fixed(_) => 0,
            },
            _ => 0,
        };
        let kept = self.kept.as_ref().map_or(0, |kept| {
            kept.input.capacity() + kept.output.capacity() + kept.tail.held_bytes()
        });
        phase + kept
    }

    /// What to wait for between two steps.
    pub fn interest(&self) -> Interest {
        let unasked = self.kept.as_ref().map_or(0, |kept| kept.input.len());
        match &self.phase {
            Phase::Last { has_more: true } if self.is_blocked() => Interest::Room,
            _ if self.is_blocked() && unasked < UNASKED_BYTES_MAX => Interest::RoomOrInput,
            _ if self.is_blocked() => Interest::Room,
            Phase::Receiving(exchange) if exchange.received >= BULK_BYTES => self.bulk(),
            Phase::Lingering(lingering) if lingering.is_over => Interest::Nothing,
            Phase::Lingering(lingering) if lingering.is_bulk => self.bulk(),
            Phase::Delayed(_) if unasked >= UNASKED_BYTES_MAX => Interest::Nothing,
            Phase::Leaving => Interest::Nothing,
            _ => Interest::Input,
        }
    }

    /// To wait for much input, unless its next turn is to come anyway.
    fn bulk(&self) -> Interest {
        if self.is_queued { Interest::Nothing } else { Interest::BulkInput }
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
        match self.phase {
            _ if self.is_blocked() && ready.writable => self.resume(input, lane),
            _ if self.is_blocked() => self.put_by(input, lane),
            Phase::Reading | Phase::Receiving(_) if ready.readable || ready.read_closed => {
                let begun = !self.receiver.is_idle();
                self.read(input, lane, begun, ready.read_closed)
            }
            Phase::Leaving if input.is_empty() => Next::Wait,
            Phase::Leaving => {
                self.phase = Phase::Reading;
                self.leave_idle(input, lane)
            }
            Phase::Lingering(_) if self.is_queued => Next::Wait,
            Phase::Lingering(_) if ready.readable || ready.read_closed => {
                self.discard(input, ready.read_closed, lane)
            }
            _ => self.put_by(input, lane),
        }
    }

    /// Keeps what was read before it can be handled.
    fn put_by(&mut self, input: &mut Input<'_>, lane: &Context<'s>) -> Next {
        let Some(bytes) = input.brought() else {
            return Next::Wait;
        };
        let held = self.held_bytes();
        if let Phase::Last { has_more } = &mut self.phase {
            *has_more = true;
        } else if !lane.may_hold(held + bytes.len()) {
            return Next::Close;
        } else {
            self.kept.get_or_insert_default().input.extend_from_slice(bytes);
        }
        Next::Wait
    }

    /// Works on the deadline that has passed.
    pub fn on_deadline(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        if self.is_blocked() {
            return self.wait_for_room(lane);
        }
        lane.whole_output = Some(0);
        match mem::replace(&mut self.phase, Phase::Reading) {
            Phase::Delayed(delayed) => {
                self.encode(delayed.request, delayed.reply, lane);
                self.resume(input, lane)
            }
            Phase::Reading if self.is_idle() => self.leave_idle(input, lane),
            phase @ (Phase::Reading | Phase::Receiving(_)) => {
                self.phase = phase;
                self.refuse(Refusal::TIMEOUT, lane);
                self.resume(input, lane)
            }
            Phase::Last { .. } | Phase::Leaving => Next::Close,
            phase @ Phase::Lingering(_) => {
                self.phase = phase;
                self.linger_on(lane)
            }
        }
    }

    /// After a panic while this connection was worked on: the responses before the one that failed, and a
    /// 500, if nothing was sent of it.
    pub fn on_panic(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        let Some(whole) = lane.whole_output.filter(|_| !self.is_blocked()) else {
            return Next::Close;
        };
        lane.output.truncate(whole);
        lane.tail = Tail::None;
        self.kept = None;
        self.refuse(Refusal::INTERNAL, lane);
        self.resume(input, lane)
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
        let requests = self.requests;
        for _ in 0..READS_PER_TURN {
            let (bytes, is_all) = match input.receive(&self.socket) {
                Received::Bytes { bytes, is_all } => (bytes, is_all),
                Received::Nothing => return self.wait(begun && requests == self.requests, lane),
                // What was only half sent gets no answer; what was whole has had it.
                Received::End => return Next::Close,
            };
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
                return self.wait(begun && requests == self.requests, lane);
            }
        }
        Next::Again(self.deadline_ms(lane))
    }

    /// Parses new bytes, behind those that were kept, and keeps what isn't consumed.
    fn absorb(&mut self, bytes: &[u8], lane: &mut Context<'s>) -> Stop {
        let kept_input =
            self.kept.as_mut().map(|kept| &mut kept.input).filter(|input| !input.is_empty());
        if let Some(kept_input) = kept_input {
            kept_input.extend_from_slice(bytes);
            let stop = self.absorb_kept(lane);
            return self.bound_kept(stop, lane);
        }
        let (consumed, stop) = self.consume(bytes, lane);
        if consumed < bytes.len() {
            let kept = self.kept.get_or_insert_default();
            kept.input.extend_from_slice(&bytes[consumed..]);
            return self.bound_kept(stop, lane);
        }
        stop
    }

    /// Refuses a request of which a part is kept, if the lane holds too much with it.
    fn bound_kept(&mut self, stop: Stop, lane: &mut Context<'s>) -> Stop {
        let has_part = matches!(stop, Stop::Starved) && self.kept.is_some();
        if !has_part || lane.may_hold(self.held_bytes()) {
            return stop;
        }
        if let Some(kept) = &mut self.kept {
            kept.input = Vec::new();
        }
        self.refuse(Refusal::OVERLOADED, lane);
        Stop::Occupied
    }

    /// Parses what was kept.
    fn absorb_kept(&mut self, lane: &mut Context<'s>) -> Stop {
        let Some(kept) = self.kept.as_mut() else {
            return Stop::Starved;
        };
        let mut bytes = mem::take(&mut kept.input);
        let (consumed, stop) = self.consume(&bytes, lane);
        bytes.drain(..consumed);
        if !bytes.is_empty() {
            self.kept.get_or_insert_default().input = bytes;
        } else if self.kept.as_ref().is_some_and(|kept| !kept.has_output()) {
            self.kept = None;
        }
        stop
    }

    /// Takes steps through `bytes` until they run out or something else has to come first.
    fn consume(&mut self, bytes: &[u8], lane: &mut Context<'s>) -> (usize, Stop) {
        let mut position = 0;
        loop {
            lane.whole_output = Some(lane.output.len());
            let (consumed, step) = self.receiver.step(&bytes[position..], lane.limits);
            position += consumed;
            if let Phase::Receiving(exchange) = &mut self.phase {
                exchange.received += consumed as u64;
            }
            match step {
                Step::Incomplete => return (position, Stop::Starved),
                Step::Head(head) => self.begin(&head, lane),
                Step::Body(piece) => self.collect(piece, lane),
                Step::End => self.end(lane),
                Step::Refused(refusal) => self.refuse(refusal, lane),
            }
            let full = lane.output.len() >= OUTPUT_BYTES_MAX || !lane.tail.is_empty();
            if full || !matches!(self.phase, Phase::Reading | Phase::Receiving(_)) {
                return (position, Stop::Occupied);
            }
        }
    }

    /// Nothing more to do for now. `unchanged`: the same head is still coming, and its deadline stands,
    /// so that a client can't put it off byte by byte.
    fn wait(&self, unchanged: bool, lane: &Context<'s>) -> Next {
        if unchanged && !self.receiver.is_idle() && !self.receiver.is_in_body() {
            return Next::Wait;
        }
        Next::WaitUntil(self.deadline_ms(lane))
    }

    /// When the client has to have sent more.
    fn deadline_ms(&self, lane: &Context<'s>) -> u64 {
        let deadline_ms = lane.now_ms + self.timeout_ms(lane);
        match &self.phase {
            Phase::Receiving(exchange) => deadline_ms.min(exchange.too_slow_at_ms(lane)),
            _ => deadline_ms,
        }
    }

    /// How long this connection stays open while nothing comes.
    pub fn idle_timeout_ms(&self, lane: &Context<'_>) -> u64 {
        match lane.draining {
            None => lane.timeouts.keep_alive_ms,
            Some(DrainKind::Replaced) if self.is_fresh() => lane.timeouts.header_ms,
            Some(DrainKind::Replaced | DrainKind::Stop) => DRAIN_GRACE_MS,
        }
    }

    /// How long the client may take for what it has to send next.
    fn timeout_ms(&self, lane: &Context<'s>) -> u64 {
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
