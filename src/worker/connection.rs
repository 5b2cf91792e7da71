//! One connection: from readiness to requests, responses and the next deadline.
//!
//! ```text
//!  ┌──────────── response sent, kept ◀──────────────┐
//!  ▼                                                │
//! Reading ── head with a body ─▶ Receiving ─ end ─▶ respond ─ last one ─▶ Last ─ sent ─▶ Lingering ─▶ closed
//!  │ └────── head without one ──────────────────────▲  │
//!  │                                                │  └─ a delay ─▶ Delayed ─ elapsed ─▶ respond
//!  └──────── refused: an error response ────────────┘
//! ```
//!
//! In any state output may be waiting for the client; while it does, nothing more is read, so that a client
//! that doesn't read can't make the server hold more than `OUTPUT_BYTES_MAX` and one response.
//!
//! A connection owns no buffers. It is lent the lane's, and keeps only what could not be handled yet
//! (`Kept`): between two requests that is nothing, and no heap.

use std::mem;
use std::os::fd::OwnedFd;

use super::context::Context;
use super::driver::{self, Input, Interest, Received, Sent};
use super::fault;
use super::kept::{Kept, Tail};
use crate::content::{Answer, Collected, Echo, Fixed, refusal};
use crate::http::{self, BodyLength, Head, Method, Persistence, Receiver, Refusal, Step, Version};
use crate::sys::epoll::Ready;

/// Output that is gathered before it is sent, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;
/// Full reads of one connection in one turn, before others have theirs.
const READS_PER_TURN: usize = 4;
/// Once so much came while nothing could be done with it, no more is taken.
const UNASKED_BYTES_MAX: usize = 16 * 1024;
/// After so much of a body, more is taken to come.
const BULK_BYTES: usize = 16 * 1024;
/// What is read and thrown away after the last response, so that the client can read it: a close with
/// unread input would reset the connection and the response with it.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
const LINGER_MS: u64 = 2_000;
/// The same after an idle spell: a request that crossed the close arrives within a round trip.
const IDLE_LINGER_MS: u64 = 500;
/// How long an idle connection stays open in a drain, for a request that is already on its way.
pub const DRAIN_GRACE_MS: u64 = 500;

/// An accepted socket and its protocol state. `'s` is the site it serves.
pub struct Connection<'s> {
    socket: OwnedFd,
    /// Requests begun.
    requests: u32,
    receiver: Receiver,
    phase: Phase<'s>,
    kept: Option<Box<Kept<'s>>>,
}

enum Phase<'s> {
    /// Between requests, or within a head.
    Reading,
    /// Within a request's body.
    Receiving(Box<Exchange<'s>>),
    /// A response that waits for its time.
    Delayed(Box<Delayed<'s>>),
    /// The last response is on its way.
    Last { linger: bool },
    /// The writing side is shut; what still comes is thrown away, up to so many bytes and to this time.
    Lingering { left: usize, until_ms: u64 },
}

/// A request whose body is still coming.
struct Exchange<'s> {
    request: Request,
    answer: Receiving<'s>,
    /// Bytes of the body so far.
    received: usize,
}

enum Receiving<'s> {
    /// A response that doesn't depend on the body, which is read and dropped.
    Fixed(&'s Fixed),
    Echo(&'s Echo, Collected),
}

struct Delayed<'s> {
    request: Request,
    reply: Reply<'s>,
}

/// A response, ready to be encoded.
enum Reply<'s> {
    Fixed(&'s Fixed),
    Echo(&'s Echo, Vec<u8>),
}

/// What has to be remembered of a request to answer it.
#[derive(Clone, Copy)]
struct Request {
    http10: bool,
    keep_alive: bool,
    /// The client said that it sends nothing more.
    is_clients_last: bool,
    head_only: bool,
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
            socket,
            requests: 0,
            receiver: Receiver::default(),
            phase: Phase::Reading,
            kept: None,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether nothing is in flight: no request begun, no response unsent.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Reading) && self.receiver.is_idle() && self.kept.is_none()
    }

    /// Bytes held for this connection alone: of request and response bodies, and of what came too early.
    pub fn held_bytes(&self) -> usize {
        let phase = match &self.phase {
            Phase::Receiving(exchange) => match &exchange.answer {
                Receiving::Echo(_, collected) => collected.held_bytes(),
                Receiving::Fixed(_) => 0,
            },
            Phase::Delayed(delayed) => match &delayed.reply {
                Reply::Echo(_, body) => body.len(),
                Reply::Fixed(_) => 0,
            },
            _ => 0,
        };
        let kept = self.kept.as_ref().map_or(0, |kept| {
            let tail = if let Tail::Owned(body, _) = &kept.tail { body.len() } else { 0 };
            kept.input.len() + tail
        });
        phase + kept
    }

    /// What to wait for between two steps.
    pub fn interest(&self) -> Interest {
        let unasked = self.kept.as_ref().map_or(0, |kept| kept.input.len());
        match &self.phase {
            _ if self.is_blocked() && unasked < UNASKED_BYTES_MAX => Interest::RoomOrInput,
            _ if self.is_blocked() => Interest::Room,
            Phase::Receiving(exchange) if exchange.received >= BULK_BYTES => Interest::BulkInput,
            Phase::Lingering { left, .. } if LINGER_BYTES_MAX - left >= BULK_BYTES => {
                Interest::BulkInput
            }
            Phase::Delayed(_) if unasked >= UNASKED_BYTES_MAX => Interest::Nothing,
            _ => Interest::Input,
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
        match self.phase {
            _ if self.is_blocked() && ready.writable => self.resume(input, lane),
            _ if self.is_blocked() => self.put_by(input, lane),
            Phase::Reading | Phase::Receiving(_) if ready.readable || ready.read_closed => {
                let begun = !self.receiver.is_idle();
                self.read(input, lane, begun, ready.read_closed)
            }
            Phase::Lingering { .. } if ready.readable || ready.read_closed => self.discard(input),
            _ => self.put_by(input, lane),
        }
    }

    /// Keeps what was read before it can be handled.
    fn put_by(&mut self, input: &mut Input<'_>, lane: &Context<'s>) -> Next {
        if let Some(bytes) = input.brought()
            && !matches!(self.phase, Phase::Last { .. })
        {
            if !lane.may_hold(bytes.len()) {
                return Next::Close;
            }
            self.kept.get_or_insert_default().input.extend_from_slice(bytes);
        }
        Next::Wait
    }

    /// Works on the deadline that has passed.
    pub fn on_deadline(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        if self.is_blocked() {
            return Next::Close;
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
            Phase::Last { .. } | Phase::Lingering { .. } => Next::Close,
        }
    }

    /// Closes a connection that was idle for long enough, unless a request waits in it after all. One that
    /// crosses the close on its way finds the writing side shut, not a reset: its client knows that nothing
    /// of it was answered (RFC 9112 §9.6).
    fn leave_idle(&mut self, input: &mut Input<'_>, lane: &mut Context<'s>) -> Next {
        let requests = self.requests;
        let next = self.read(input, lane, false, true);
        if next == Next::Close || !self.is_idle() || requests != self.requests {
            return next;
        }
        self.linger(IDLE_LINGER_MS, lane)
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

    /// Whether output waits for the client.
    fn is_blocked(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.has_output())
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
                return next;
            }
            // Asking again would only cost a call.
            if is_all && !to_the_end {
                return self.wait(begun && requests == self.requests, lane);
            }
        }
        Next::Again(lane.now_ms + self.timeout_ms(lane))
    }

    /// Parses new bytes, behind those that were kept, and keeps what isn't consumed.
    fn absorb(&mut self, bytes: &[u8], lane: &mut Context<'s>) -> Stop {
        let kept_input =
            self.kept.as_mut().map(|kept| &mut kept.input).filter(|input| !input.is_empty());
        if let Some(kept_input) = kept_input {
            kept_input.extend_from_slice(bytes);
            return self.absorb_kept(lane);
        }
        let (consumed, stop) = self.consume(bytes, lane);
        if consumed < bytes.len() {
            let kept = self.kept.get_or_insert_default();
            kept.input.extend_from_slice(&bytes[consumed..]);
        }
        stop
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

    /// A head is whole: finds what answers it, and answers if no body follows.
    fn begin(&mut self, head: &Head<'_>, lane: &mut Context<'s>) {
        self.requests = self.requests.saturating_add(1);
        let (route, answer) = lane.site.answer(head);
        lane.counters.begin_request(route);
        fault::on_request(&head.target.path);
        let limit = lane.requests_per_connection;
        let mut request = Request {
            http10: head.version == Version::Http10,
            keep_alive: head.keep_alive && (limit == 0 || self.requests < limit),
            is_clients_last: !head.keep_alive,
            head_only: head.method == Method::Head,
        };
        let answer = match answer {
            Answer::Fixed(fixed) if head.body == BodyLength::None => {
                return self.respond(request, Reply::Fixed(fixed), lane);
            }
            Answer::Fixed(fixed) if head.expects_continue => {
                // The client waits for leave to send what nobody wants: it gets its answer instead, and
                // because it may send the body all the same, the connection ends with it.
                request.keep_alive = false;
                request.is_clients_last = false;
                return self.respond(request, Reply::Fixed(fixed), lane);
            }
            Answer::Fixed(fixed) => Receiving::Fixed(fixed),
            Answer::Echo(echo) => Receiving::Echo(echo, echo.begin(head)),
        };
        if head.expects_continue && head.body != BodyLength::None {
            lane.output.extend_from_slice(http::CONTINUE);
        }
        self.phase = Phase::Receiving(Box::new(Exchange { request, answer, received: 0 }));
        if head.body == BodyLength::None {
            self.end(lane);
        }
    }

    /// A piece of the body.
    fn collect(&mut self, piece: &[u8], lane: &mut Context<'s>) {
        let Phase::Receiving(exchange) = &mut self.phase else {
            return;
        };
        exchange.received = exchange.received.saturating_add(piece.len());
        if let Receiving::Echo(_, collected) = &mut exchange.answer {
            if !lane.may_hold(collected.held_bytes() + piece.len()) {
                return self.refuse(Refusal::OVERLOADED, lane);
            }
            collected.push(piece);
        }
    }

    /// The request is whole.
    fn end(&mut self, lane: &mut Context<'s>) {
        if let Phase::Receiving(exchange) = mem::replace(&mut self.phase, Phase::Reading) {
            let Exchange { request, answer, .. } = *exchange;
            let reply = match answer {
                Receiving::Fixed(fixed) => Reply::Fixed(fixed),
                Receiving::Echo(echo, collected) => Reply::Echo(echo, echo.finish(collected)),
            };
            self.respond(request, reply, lane);
        }
    }

    /// Answers now, or when the route's delay has passed.
    fn respond(&mut self, request: Request, reply: Reply<'s>, lane: &mut Context<'s>) {
        if reply.delay_ms() > 0 {
            self.phase = Phase::Delayed(Box::new(Delayed { request, reply }));
        } else {
            self.encode(request, reply, lane);
        }
    }

    /// Encodes a response into the lane's output.
    fn encode(&mut self, request: Request, reply: Reply<'s>, lane: &mut Context<'s>) {
        let keep = request.keep_alive && !lane.draining;
        let persistence = match (keep, request.http10) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::KeepHttp10,
            (true, false) => Persistence::Keep,
        };
        if !keep {
            self.phase = Phase::Last { linger: !request.is_clients_last };
        }
        let (response, length, body) = match reply {
            Reply::Fixed(fixed) => (&fixed.response, None, Tail::Shared(&fixed.body)),
            Reply::Echo(echo, body) => (&echo.response, Some(body.len()), Tail::Owned(body, 0)),
        };
        http::encode(&mut lane.output, response, length, &lane.date, persistence);
        if request.head_only || response.is_bodiless() {
            return;
        }
        if body.rest().len() <= COPIED_BODY_BYTES_MAX {
            lane.output.extend_from_slice(body.rest());
        } else {
            lane.tail = body;
        }
    }

    /// Answers with an error, after which the connection closes.
    fn refuse(&mut self, cause: Refusal, lane: &mut Context<'s>) {
        let fixed = refusal(cause);
        http::encode(&mut lane.output, &fixed.response, None, &lane.date, Persistence::Close);
        lane.output.extend_from_slice(&fixed.body);
        self.phase = Phase::Last { linger: true };
    }

    /// Sends what was encoded and goes on with what was kept, until something has to be waited for.
    /// `None`: more input is needed. Then what was encoded last is left to whoever lent the output.
    fn settle(&mut self, mut stop: Stop, lane: &mut Context<'s>) -> Option<Next> {
        loop {
            let takes_more = matches!(self.phase, Phase::Reading | Phase::Receiving(_));
            let is_large = lane.output.len() >= OUTPUT_BYTES_MAX || !lane.tail.is_empty();
            if matches!(stop, Stop::Starved) && takes_more && !is_large && !self.is_blocked() {
                return None;
            }
            match self.flush(lane) {
                None => return Some(Next::Close),
                Some(false) => return Some(Next::WaitUntil(lane.now_ms + lane.timeouts.write_ms)),
                Some(true) => {}
            }
            match &self.phase {
                Phase::Reading | Phase::Receiving(_) => match stop {
                    Stop::Starved => return None,
                    Stop::Occupied => stop = self.absorb_kept(lane),
                },
                Phase::Delayed(delayed) => {
                    return Some(Next::WaitUntil(lane.now_ms + delayed.reply.delay_ms()));
                }
                Phase::Last { linger } => return Some(self.finish(*linger, lane)),
                Phase::Lingering { .. } => return Some(Next::Wait),
            }
        }
    }

    /// Sends the lane's output, or what this connection kept of it. `Some(false)` if the kernel took only
    /// part, which is kept; `None` if the connection is broken.
    fn flush(&mut self, lane: &mut Context<'s>) -> Option<bool> {
        lane.whole_output = None;
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.has_output()) {
            debug_assert!(lane.output.is_empty(), "nothing is encoded while output waits");
            let rest = &kept.output[kept.sent..];
            let offered = rest.len() + kept.tail.rest().len();
            let Sent::Bytes(sent) = driver::transmit(&self.socket, rest, kept.tail.rest()) else {
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
        let result = driver::transmit(&self.socket, &lane.output, lane.tail.rest());
        let mut tail = mem::take(&mut lane.tail);
        let done = match result {
            Sent::Broken => None,
            Sent::Bytes(sent) if sent == offered => Some(true),
            Sent::Bytes(sent) => {
                let of_output = sent.min(lane.output.len());
                tail.advance(sent - of_output);
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
        self.kept.get_or_insert_default().output.extend_from_slice(rest);
        Next::WaitUntil(lane.now_ms + lane.timeouts.write_ms)
    }

    /// The last response has left.
    fn finish(&mut self, linger: bool, lane: &Context<'s>) -> Next {
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
    fn discard(&mut self, input: &mut Input<'_>) -> Next {
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

    /// Nothing more to do for now. `unchanged`: the same head is still coming, and its deadline stands,
    /// so that a client can't put it off byte by byte.
    fn wait(&self, unchanged: bool, lane: &Context<'s>) -> Next {
        if unchanged && !self.receiver.is_idle() && !self.receiver.is_in_body() {
            return Next::Wait;
        }
        Next::WaitUntil(lane.now_ms + self.timeout_ms(lane))
    }

    /// How long the client may take for what it has to send next.
    fn timeout_ms(&self, lane: &Context<'s>) -> u64 {
        let timeouts = &lane.timeouts;
        if self.receiver.is_in_body() {
            timeouts.body_ms
        } else if !self.receiver.is_idle() {
            timeouts.header_ms
        } else if lane.draining {
            DRAIN_GRACE_MS
        } else {
            timeouts.keep_alive_ms
        }
    }
}

impl Reply<'_> {
    fn delay_ms(&self) -> u64 {
        let delay = match self {
            Reply::Fixed(fixed) => fixed.delay,
            Reply::Echo(echo, _) => echo.delay,
        };
        delay.as_millis() as u64
    }
}
