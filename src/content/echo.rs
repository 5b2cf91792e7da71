//! `echo`: the request's body, or the request as JSON, comes back.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::answer::{Answer, Body, Collect, Handler, Kept, Outcome, Reply, ResponseOf};
use crate::http::{BodyLength, Request, Response, media_type};

/// An echo route.
pub(super) struct Echo {
    /// Without Content-Length.
    response: Response,
    delay: Duration,
    echoed: Echoed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echoed {
    Body,
    Request,
}

/// The content of a response under construction: what the head contributed, then the request's body as it arrives.
struct Collected<'s> {
    echo: &'s Echo,
    bytes: Vec<u8>,
    head_bytes: usize,
    /// How long it becomes, as far as the head tells.
    whole_bytes: usize,
}

impl Echo {
    /// `echo = "body"`
    pub(super) fn body(status: u16, fields: &[(&str, &str)], delay: Duration) -> Echo {
        Echo::new(status, media_type::BYTES, fields, delay, Echoed::Body)
    }

    /// `echo = "request"`
    pub(super) fn request(status: u16, fields: &[(&str, &str)], delay: Duration) -> Echo {
        Echo::new(status, media_type::JSON, fields, delay, Echoed::Request)
    }

    fn new(
        status: u16,
        content_type: &str,
        fields: &[(&str, &str)],
        delay: Duration,
        echoed: Echoed,
    ) -> Echo {
        let stated = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let default = (!stated).then_some(("Content-Type", content_type));
        let fields = default.into_iter().chain(fields.iter().copied());
        Echo { response: Response::new(status, fields, None), delay, echoed }
    }
}

impl Handler for Echo {
    fn answer(&self, request: &Request<'_>, _: &Kept) -> Answer<'_> {
        let bytes = match self.echoed {
            Echoed::Body => Vec::new(),
            Echoed::Request => RequestHead::from(request).to_json(),
        };
        let head_bytes = bytes.len();
        let whole_bytes = match request.body {
            BodyLength::Sized(length) => {
                head_bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
            }
            _ => usize::MAX,
        };
        Answer::Collect(Box::new(Collected { echo: self, bytes, head_bytes, whole_bytes }))
    }
}

impl<'s> Collect<'s> for Collected<'s> {
    fn push(&mut self, piece: &[u8]) {
        let more = self.held_bytes_with(piece.len()) - self.bytes.len();
        self.bytes.reserve_exact(more);
        self.bytes.extend_from_slice(piece);
    }

    fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// An eighth more than it needs, so that a body in many pieces isn't copied for each, but no more than it will ever
    /// need.
    fn held_bytes_with(&self, more: usize) -> usize {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return self.bytes.capacity();
        }
        (needed + needed / 8).min(self.whole_bytes).max(needed)
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let Collected { echo, mut bytes, head_bytes, .. } = *self;
        if echo.echoed == Echoed::Request {
            let body = bytes.split_off(head_bytes);
            // The object's last brace makes way for its last member.
            bytes.pop();
            bytes.extend_from_slice(b",\"body\":");
            put_json(&mut bytes, &String::from_utf8_lossy(&body));
            bytes.extend_from_slice(b"}\n");
            bytes.shrink_to_fit();
        }
        let reply = Reply { response: ResponseOf::Site(&echo.response), body: Body::Owned(bytes) };
        Outcome::after(echo.delay, reply)
    }
}

/// A request head as JSON; bytes that are not UTF-8 are replaced.
#[derive(Serialize)]
struct RequestHead {
    method: String,
    target: String,
    host: String,
    path: String,
    query: Option<String>,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    headers: Vec<(String, String)>,
}

impl From<&Request<'_>> for RequestHead {
    fn from(head: &Request<'_>) -> RequestHead {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        RequestHead {
            method: head.method.name().to_owned(),
            target: text(head.target.raw),
            host: text(&head.target.host),
            path: text(&head.target.path),
            query: head.target.query.map(text),
            version: head.version.name(),
            client: head.client,
            headers: head.fields.iter().map(|(name, value)| (text(name), text(value))).collect(),
        }
    }
}

impl RequestHead {
    fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_json(&mut bytes, self);
        bytes
    }
}

fn put_json(output: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Strings and lists written to memory: there is nothing in them that could fail.
    serde_json::to_writer(output, value).expect("strings serialise to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_an_eighth_more_than_it_needs_and_never_more_than_the_head_told() {
        let echo = Echo::body(200, &[], Duration::ZERO);
        let of = |capacity, whole_bytes| Collected {
            echo: &echo,
            bytes: Vec::with_capacity(capacity),
            head_bytes: 0,
            whole_bytes,
        };
        for (capacity, more, whole_bytes, expected) in [
            (0, 0, usize::MAX, 0),
            (0, 8_000, usize::MAX, 9_000),
            (8_000, 8_000, usize::MAX, 8_000),
            (8_000, 8_001, usize::MAX, 9_001),
            (0, 8_000, 9_000, 9_000),
            (0, 8_000, 8_999, 8_999),
            (0, 8_000, 8_000, 8_000),
        ] {
            let mut collected = of(capacity, whole_bytes);
            assert_eq!(
                collected.held_bytes_with(more),
                expected,
                "{capacity} {more} {whole_bytes}"
            );
            collected.push(&vec![b'x'; more]);
            assert_eq!(collected.held_bytes(), expected, "{capacity} {more} {whole_bytes}");
        }
    }
}
