//! From a request to its response: what answers it, its body as it comes, and the response, encoded. Sends nothing.

use std::mem;

use super::{Connection, Phase};
use crate::content::{Answer, Collected, Echo, Fixed, refusal};
use crate::http::{self, BodyLength, Head, Method, Persistence, Refusal, Version};
use crate::worker::context::Context;
use crate::worker::fault;
use crate::worker::kept::Tail;

/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

/// A request whose body is still coming.
pub(super) struct Exchange<'s> {
    request: Request,
    pub(super) answer: Receiving<'s>,
    /// Bytes of the body so far, with its framing and trailers.
    pub(super) received: u64,
    /// When its head was whole.
    began_ms: u64,
}

impl Exchange<'_> {
    /// When the body has come too slowly, if nothing more comes.
    pub(super) fn too_slow_at_ms(&self, lane: &Context<'_>) -> u64 {
        let allowed_ms = allowed_ms(lane.timeouts.body_ms, self.received, lane.body_rate);
        self.began_ms.saturating_add(allowed_ms)
    }
}

/// How long so many bytes of a body may take: `timeouts.body`, and beyond it as long as at the least rate a second.
fn allowed_ms(body_ms: u64, received: u64, rate: u64) -> u64 {
    let at_rate_ms = received.saturating_mul(1000).checked_div(rate);
    at_rate_ms.map_or(u64::MAX, |at_rate_ms| body_ms.saturating_add(at_rate_ms))
}

pub(super) enum Receiving<'s> {
    /// A response that doesn't depend on the body, which is read and dropped.
    Fixed(&'s Fixed),
    Echo(&'s Echo, Collected),
}

pub(super) struct Delayed<'s> {
    pub(super) request: Request,
    pub(super) reply: Reply<'s>,
}

/// A response, ready to be encoded.
pub(super) enum Reply<'s> {
    Fixed(&'s Fixed),
    Echo(&'s Echo, Vec<u8>),
}

/// What has to be remembered of a request to answer it.
#[derive(Clone, Copy)]
pub(super) struct Request {
    http10: bool,
    keep_alive: bool,
    /// Nothing of it is still to come when it is answered.
    is_whole: bool,
    head_only: bool,
}

impl<'s> Connection<'s> {
    /// A head is whole: finds what answers it, and answers if no body follows.
    pub(super) fn begin(&mut self, head: &Head<'_>, lane: &mut Context<'s>) {
        self.requests = self.requests.saturating_add(1);
        let (route, answer) = lane.site.answer(head);
        lane.counters.begin_request(route);
        fault::on_request(&head.target.path);
        let limit = lane.requests_per_connection;
        let mut request = Request {
            http10: head.version == Version::Http10,
            keep_alive: head.keep_alive && (limit == 0 || self.requests < limit),
            is_whole: head.keep_alive || head.is_last,
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
                request.is_whole = false;
                return self.respond(request, Reply::Fixed(fixed), lane);
            }
            Answer::Fixed(fixed) => Receiving::Fixed(fixed),
            Answer::Echo(echo) => Receiving::Echo(echo, echo.begin(head)),
        };
        if head.expects_continue && head.body != BodyLength::None {
            lane.output.extend_from_slice(http::CONTINUE);
        }
        self.phase = Phase::Receiving(Box::new(Exchange {
            request,
            answer,
            received: 0,
            began_ms: lane.now_ms,
        }));
        if head.body == BodyLength::None {
            self.end(lane);
        }
    }

    /// A piece of the body.
    pub(super) fn collect(&mut self, piece: &[u8], lane: &mut Context<'s>) {
        let held = self.held_bytes();
        let Phase::Receiving(exchange) = &mut self.phase else {
            return;
        };
        if let Receiving::Echo(_, collected) = &mut exchange.answer {
            let more = collected.bytes_with(piece.len()) - collected.held_bytes();
            if !lane.may_hold(held + more) {
                return self.refuse(Refusal::OVERLOADED, lane);
            }
            collected.push(piece);
        }
    }

    /// The request is whole.
    pub(super) fn end(&mut self, lane: &mut Context<'s>) {
        if let Phase::Receiving(exchange) = mem::replace(&mut self.phase, Phase::Reading) {
            let Exchange { request, answer, .. } = *exchange;
            let reply = match answer {
                Receiving::Fixed(fixed) => Reply::Fixed(fixed),
                Receiving::Echo(echo, collected) => {
                    let body = echo.finish(collected);
                    // As JSON it may be six times as long as what was collected.
                    if !lane.may_hold(self.held_bytes() + body.capacity()) {
                        return self.refuse(Refusal::OVERLOADED, lane);
                    }
                    Reply::Echo(echo, body)
                }
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
    pub(super) fn encode(&mut self, request: Request, reply: Reply<'s>, lane: &mut Context<'s>) {
        let keep = request.keep_alive && lane.draining.is_none();
        let persistence = match (keep, request.http10) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::KeepHttp10,
            (true, false) => Persistence::Keep,
        };
        if !keep {
            self.phase = Phase::Last { has_more: !request.is_whole };
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

    /// Answers with an error, after which the connection closes. A HEAD gets the head alone, as of any response.
    pub(super) fn refuse(&mut self, cause: Refusal, lane: &mut Context<'s>) {
        if cause == Refusal::PREFACE {
            lane.output.extend_from_slice(http::GOAWAY);
        } else {
            let fixed = refusal(cause);
            http::encode(&mut lane.output, &fixed.response, None, &lane.date, Persistence::Close);
            if !self.receiver.is_head() {
                lane.output.extend_from_slice(&fixed.body);
            }
        }
        self.phase = Phase::Last { has_more: true };
    }
}

impl Reply<'_> {
    pub(super) fn delay_ms(&self) -> u64 {
        let delay = match self {
            Reply::Fixed(fixed) => fixed.delay,
            Reply::Echo(echo, _) => echo.delay,
        };
        delay.as_millis() as u64
    }
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
