//! `echo`: the request's body, or the request as JSON, comes back.

use std::time::Duration;

use serde::Serialize;

use crate::http::{Head, Response};

/// An echo route.
pub struct Echo {
    /// The head, without Content-Length.
    pub response: Response,
    /// How long the response waits before it is sent.
    pub delay: Duration,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Body,
    Request,
}

/// A response body under construction: what the head contributed, then the request's body as it arrives.
pub struct Collected {
    bytes: Vec<u8>,
    head_bytes: usize,
}

impl Echo {
    /// `echo = "body"`
    pub(super) fn body(status: u16, fields: &[(&str, &str)], delay: Duration) -> Echo {
        Echo::new(status, "application/octet-stream", fields, delay, What::Body)
    }

    /// `echo = "request"`
    pub(super) fn request(status: u16, fields: &[(&str, &str)], delay: Duration) -> Echo {
        Echo::new(status, "application/json", fields, delay, What::Request)
    }

    fn new(
        status: u16,
        content_type: &str,
        fields: &[(&str, &str)],
        delay: Duration,
        what: What,
    ) -> Echo {
        let stated = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let default = (!stated).then_some(("Content-Type", content_type));
        let fields = default.into_iter().chain(fields.iter().copied());
        Echo { response: Response::new(status, fields, None), delay, what }
    }

    /// Begins a response to the request with this head.
    pub fn begin(&self, head: &Head<'_>) -> Collected {
        let bytes = match self.what {
            What::Body => Vec::new(),
            What::Request => RequestHead::from(head).to_json(),
        };
        Collected { head_bytes: bytes.len(), bytes }
    }

    /// The response body, once the request's body is whole.
    pub fn finish(&self, collected: Collected) -> Vec<u8> {
        let Collected { mut bytes, head_bytes } = collected;
        if self.what == What::Body {
            return bytes;
        }
        let body = bytes.split_off(head_bytes);
        // The object's last brace makes way for its last member.
        bytes.pop();
        bytes.extend_from_slice(b",\"body\":");
        put_json(&mut bytes, &String::from_utf8_lossy(&body));
        bytes.extend_from_slice(b"}\n");
        bytes
    }
}

impl Collected {
    /// Adds a piece of the request's body.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// How much it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
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
    headers: Vec<(String, String)>,
}

impl From<&Head<'_>> for RequestHead {
    fn from(head: &Head<'_>) -> RequestHead {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        RequestHead {
            method: head.method.name().to_owned(),
            target: text(head.target.raw),
            host: text(&head.target.host),
            path: text(&head.target.path),
            query: head.target.query.map(text),
            version: head.version.name(),
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
