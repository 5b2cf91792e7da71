//! The session of a connection: which of its requests is in which state. Bytes in, responses into the lane's output; it
//! sees no socket.
//!
//! ```text
//!  ┌──────────────────── response made, connection kept ◀──────────────────┐
//!  ▼                                                                        │
//! Reading ── a head ─▶ Reading its body ─ whole ─▶ answer ── ready ─────────┼─ not kept ─▶ Last
//!  │                                                │  └──── pending ─▶ Pending ─ over ────┤
//!  │                                                └─ a stream ─▶ Streaming ── its end ───┘
//!  └── refused: an error response ─▶ Last
//!
//! Reading, idle for too long, while the kernel still receives ─▶ Leaving ─ a request has come ─▶ Reading
//! ```

mod deadlines;
mod later;

use std::time::Duration;

use crate::content::{Answer, Body, Outcome, Pending, Reply, refusal};
use crate::http::h1::{CONTINUE, GOAWAY, Head, Receiver, Recipient, Step};
use crate::http::{BodyLength, Method, Refusal, Version};
use crate::observe::record::Record;
use crate::worker::context::Context;
use crate::worker::context::jobs::JobNumber;
use crate::worker::context::labels;
use crate::worker::context::output::Unfinished;
use crate::worker::fault;

pub use deadlines::DRAIN_GRACE_MS;

/// After so much of a body, more is taken to come.
const BULK_BYTES: u64 = 16 * 1024;
/// One connection's requests. `'s` is the site that answers them.
#[derive(Default)]
pub struct Session<'s> {
    receiver: Receiver,
    state: State<'s>,
}

#[derive(Default)]
enum State<'s> {
    /// Between requests, or within a head.
    #[default]
    Reading,
    /// Within a request's body.
    ReadingBody(Box<Incoming<'s>>),
    /// A reply waits for something to happen.
    Pending(Box<Waiting<'s>>),
    /// A reply is sent whose content comes piece by piece.
    Streaming(Box<Streaming<'s>>),
    /// The last response was made. `has_more`: the client was not done with what it sends.
    Last { has_more: bool },
    /// Idle for too long: over as soon as the receive that goes on has ended, if it brings nothing.
    Leaving,
    /// A response was broken off, which nothing but a reset tells.
    BrokenOff,
}

/// What has to be remembered of a request to answer it.
#[derive(Clone, Copy)]
struct Asked {
    to: Recipient,
    record: Record,
    /// Nothing of it is still to come when it is answered.
    is_whole: bool,
}

/// A request whose body is still coming.
struct Incoming<'s> {
    asked: Asked,
    /// `None` from when the body is whole: if what comes of it panics, the request is remembered still.
    answer: Option<Answer<'s>>,
    /// What the answer holds, as it said in the last step of the connection: what is counted has to be taken off again.
    held_bytes: usize,
    /// Bytes of the body so far, with its framing and trailers.
    received: u64,
    /// When its head was whole.
    began_ms: u64,
}

/// A request whose answer waits for something.
struct Waiting<'s> {
    asked: Asked,
    /// `None` from when it is over: if what comes of it panics, the request is remembered still.
    pending: Option<Pending<'s>>,
    /// As in [`Incoming`]; what a job of another thread comes to hold meanwhile counts once it is a reply.
    held_bytes: usize,
    /// Tells it from what its connection waited for before.
    job: JobNumber,
    /// It was woken, or its time is over.
    is_over: bool,
}

struct Streaming<'s> {
    content: Unfinished<'s>,
    /// As in [`Incoming`].
    held_bytes: usize,
    /// Tells it from what its connection waited for before.
    job: JobNumber,
    next: NextPiece,
    /// Whether the connection is kept afterwards; else whether the client was not done with what it sends.
    keep: bool,
    has_more: bool,
}

/// The next piece of content that comes piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextPiece {
    /// It can be asked for.
    There,
    /// It wakes the connection when it is there.
    Later,
    /// It has taken longer than it may.
    Late,
}

/// Why a session stopped to consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It needs more input.
    NeedsInput,
    /// Output has to be sent first, or it takes no input in its state.
    Occupied,
}

/// What a session does while nothing waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests, or the body of one.
    Reading,
    /// It waits before it answers, so long unless it is woken.
    Waiting {
        /// As above.
        timeout: Duration,
    },
    /// It has a response to make, or more of one.
    Answering,
    /// It has answered its last request. `has_more`: the client was not done with what it sends.
    Last {
        /// As above.
        has_more: bool,
    },
    /// It leaves unless a request comes.
    Leaving,
    /// A response was broken off, which nothing but a reset tells.
    BrokenOff,
}

impl<'s> Session<'s> {
    /// Whether nothing is in flight: no request begun, no response unsent.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading) && self.receiver.is_idle()
    }

    /// Whether no request has begun yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests() == 0
    }

    /// How many requests have begun.
    pub(super) fn requests(&self) -> u32 {
        self.receiver.heads()
    }

    /// Whether it is within a head or a body.
    pub(super) fn is_in_request(&self) -> bool {
        !self.receiver.is_idle()
    }

    /// Whether much more of a body is to be expected.
    pub(super) fn expects_bulk(&self) -> bool {
        matches!(&self.state, State::ReadingBody(incoming) if incoming.received >= BULK_BYTES)
    }

    /// Memory held for its requests and responses, in bytes, used or not. The same until its next step.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.state {
            State::ReadingBody(incoming) => incoming.held_bytes,
            State::Pending(waiting) => waiting.held_bytes,
            State::Streaming(streaming) => streaming.held_bytes,
            State::Reading | State::Last { .. } | State::Leaving | State::BrokenOff => 0,
        }
    }

    /// Whether it takes requests, or the body of one.
    pub(super) fn takes_input(&self) -> bool {
        matches!(self.state, State::Reading | State::ReadingBody(_))
    }

    /// Whether the next piece of content that comes piece by piece can be asked for.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(&self.state, State::Streaming(streaming) if streaming.next != NextPiece::Later)
    }

    /// Whether it sends content that comes piece by piece, of which there may be none yet.
    pub(super) fn is_in_stream(&self) -> bool {
        matches!(self.state, State::Streaming(_))
    }

    /// Whether it leaves unless a request comes.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    /// Whether it has answered its last request, and its client is known to send more.
    pub(super) fn has_more_than_wanted(&self) -> bool {
        matches!(self.state, State::Last { has_more: true })
    }

    /// Takes steps through `bytes` until they run out or something else has to come first, and says how many of them are
    /// done with. The connection holds `beside` bytes of memory elsewhere.
    pub fn consume(
        &mut self,
        bytes: &[u8],
        beside: usize,
        lane: &mut Context<'s>,
    ) -> (usize, Stop) {
        let mut position = 0;
        loop {
            lane.output.mark_whole();
            let (consumed, step) = self.receiver.step(&bytes[position..], lane.limits);
            position += consumed;
            if let State::ReadingBody(incoming) = &mut self.state {
                incoming.received += consumed as u64;
            }
            match step {
                Step::Incomplete => return (position, Stop::NeedsInput),
                Step::Head(mut head) => {
                    head.request.client = lane.client(head.request.fields);
                    self.begin(&head, beside, lane);
                }
                Step::Body(piece) => self.collect(piece, beside, lane),
                Step::End => self.end(beside, lane),
                Step::Refused(refusal) => self.refuse(refusal, &bytes[position..], lane),
            }
            if lane.output.is_full() || !self.takes_input() {
                return (position, Stop::Occupied);
            }
        }
    }

    /// A head is whole: finds what answers it, and answers if no body follows.
    fn begin(&mut self, head: &Head<'_>, beside: usize, lane: &mut Context<'s>) {
        let request = &head.request;
        let record =
            Record::open(lane.now_us, labels::of_method(request.method), lane.note(request));
        let (route, found) = lane.site.find(request);
        // Before it is answered: what hangs or panics is told by its route.
        lane.counters.begin_request(route);
        fault::on_request(&request.target.path);
        let answer = found.answer(request, &lane.kept);
        let limit = lane.requests_per_connection;
        let to = Recipient {
            version: request.version,
            is_head: request.method == Method::Head,
            keep_alive: head.keep_alive && (limit == 0 || self.requests() < limit),
        };
        let asked = Asked { to, record, is_whole: head.keep_alive || head.is_last };
        let answer = match answer {
            Answer::Known(outcome) if request.body == BodyLength::None => {
                return self.conclude(asked, outcome, beside, lane);
            }
            Answer::Known(outcome) if head.expects_continue => {
                // The client waits for leave to send what is not wanted: it gets its answer instead, and
                // because it may send the body all the same, the connection ends with it.
                let to = Recipient { keep_alive: false, ..to };
                return self.conclude(
                    Asked { to, is_whole: false, ..asked },
                    outcome,
                    beside,
                    lane,
                );
            }
            Answer::Known(outcome) if !lane.may_hold(beside + outcome.held_bytes()) => {
                return self.refuse_request(record, Refusal::OVERLOADED, lane);
            }
            answer => answer,
        };
        let mut asked = asked;
        if head.expects_continue && request.body != BodyLength::None {
            lane.output.put(CONTINUE);
            asked.record.add(CONTINUE.len() as u64);
        }
        let (began_ms, held_bytes) = (lane.now_ms, answer.held_bytes());
        let incoming = Incoming { asked, answer: Some(answer), held_bytes, received: 0, began_ms };
        self.state = State::ReadingBody(Box::new(incoming));
        if request.body == BodyLength::None {
            self.end(beside, lane);
        }
    }

    /// A piece of the body.
    fn collect(&mut self, piece: &[u8], beside: usize, lane: &mut Context<'s>) {
        let State::ReadingBody(incoming) = &mut self.state else {
            return;
        };
        incoming.asked.record.take_in(piece.len());
        if let Some(Answer::Collect(collect)) = &mut incoming.answer {
            if !lane.may_hold(beside + collect.held_bytes_with(piece.len())) {
                return self.refuse(Refusal::OVERLOADED, &[], lane);
            }
            collect.push(piece);
            incoming.held_bytes = collect.held_bytes();
        }
    }

    /// The request is whole.
    fn end(&mut self, beside: usize, lane: &mut Context<'s>) {
        let State::ReadingBody(incoming) = &mut self.state else {
            return;
        };
        let asked = incoming.asked;
        let outcome = match incoming.answer.take() {
            Some(Answer::Known(outcome)) => outcome,
            Some(Answer::Collect(collect)) => collect.finish(),
            None => return,
        };
        self.state = State::Reading;
        self.conclude(asked, outcome, beside, lane);
    }

    /// Answers now, or when what the reply waits for has happened. It may hold more than what was collected for it: as
    /// JSON six times as much.
    #[inline]
    fn conclude(
        &mut self,
        asked: Asked,
        outcome: Outcome<'s>,
        beside: usize,
        lane: &mut Context<'s>,
    ) {
        let held = outcome.held_bytes();
        if held > 0 && !lane.may_hold(beside + held) {
            return self.refuse_request(asked.record, Refusal::OVERLOADED, lane);
        }
        match outcome {
            Outcome::Ready(reply) => self.respond(asked, reply, lane),
            Outcome::Pending(pending) => {
                let (pending, job) = (Some(pending), lane.jobs.number());
                let waiting = Waiting { asked, pending, held_bytes: held, job, is_over: false };
                self.state = State::Pending(Box::new(waiting));
                self.begin_later(lane);
            }
        }
    }

    /// Makes a response, in the lane's output. The session is reading: what it was about has been taken.
    #[inline]
    fn respond(&mut self, asked: Asked, reply: Reply<'s>, lane: &mut Context<'s>) {
        let keep_alive = asked.to.keep_alive && lane.drain.is_none();
        let to = Recipient { keep_alive, ..asked.to };
        let Reply { response, body } = reply;
        let has_more = !asked.is_whole;
        let keep = match body {
            Body::Stream(stream) => {
                let begun = lane.output.begin(&response, stream, to, &lane.date, asked.record);
                if let (keep, Some(content)) = begun {
                    let (job, next) = (lane.jobs.number(), NextPiece::There);
                    let streaming = Streaming { content, held_bytes: 0, job, next, keep, has_more };
                    self.state = State::Streaming(Box::new(streaming));
                    return self.begin_later(lane);
                }
                begun.0
            }
            body => lane.output.respond(&response, body, to, &lane.date, asked.record),
        };
        if !keep {
            self.state = State::Last { has_more };
        }
    }

    /// Answers with an error, after which the connection closes. A HEAD gets the head alone, as of any response. `head` is
    /// what came of a request whose head isn't whole, or is what is wrong with it.
    pub fn refuse(&mut self, cause: Refusal, head: &[u8], lane: &mut Context<'s>) {
        let unknown = || Record::open(lane.now_us, labels::Method::Other, lane.note_part(head));
        let record = self.open_record().unwrap_or_else(unknown);
        self.refuse_request(record, cause, lane);
    }

    /// Answers with an error in place of what has panicked, the response with this record if it was made.
    pub(super) fn refuse_failed(&mut self, undone: Option<Record>, lane: &mut Context<'s>) {
        // One that panicked before it was kept anywhere began in this step.
        let begun = || Record::open(lane.now_us, labels::Method::Other, lane.last_ticket());
        let record = self.open_record().or(undone).unwrap_or_else(begun);
        self.refuse_request(record, Refusal::INTERNAL, lane);
    }

    fn refuse_request(&mut self, record: Record, cause: Refusal, lane: &mut Context<'s>) {
        lane.counters.cells().refused.at(labels::of_refusal(cause)).add(1);
        if cause == Refusal::PREFACE {
            lane.output.put_whole(GOAWAY, cause.status, record);
        } else {
            let is_head = self.receiver.is_head();
            let to = Recipient { version: Version::Http11, is_head, keep_alive: false };
            let Reply { response, body } = refusal(cause);
            lane.output.respond(&response, body, to, &lane.date, record);
        }
        self.state = State::Last { has_more: true };
    }

    /// The record of the request in flight whose response isn't made.
    pub(super) fn open_record(&self) -> Option<Record> {
        match &self.state {
            State::ReadingBody(incoming) => Some(incoming.asked.record),
            State::Pending(waiting) => Some(waiting.asked.record),
            State::Streaming(streaming) => Some(streaming.content.record),
            State::Reading | State::Last { .. } | State::Leaving | State::BrokenOff => None,
        }
    }

    /// The client sends more than its last request, which is over.
    pub(super) fn note_more(&mut self) -> bool {
        match &mut self.state {
            State::Last { has_more } => {
                *has_more = true;
                true
            }
            _ => false,
        }
    }

    /// Idle for too long, while the kernel still receives: it is over when that has ended, if it brings nothing.
    pub(super) fn leave(&mut self) {
        debug_assert!(self.is_idle());
        self.state = State::Leaving;
    }

    /// The receive has ended: what it brought is taken.
    pub(super) fn stay(&mut self) {
        debug_assert!(matches!(self.state, State::Leaving));
        self.state = State::Reading;
    }

    /// Whether the client is within a head: it can't put off the deadline byte by byte.
    pub(super) fn is_in_head(&self) -> bool {
        !self.receiver.is_idle() && !self.receiver.is_in_body()
    }
}
