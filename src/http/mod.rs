//! HTTP/1.1 without I/O: bytes in, steps out (RFC 9110, RFC 9112).
//!
//! A [`Receiver`] is the reading half of one connection. It is fed whatever bytes have arrived and answers
//! with one [`Step`] at a time; what it doesn't consume, the caller offers again together with what comes
//! next. It owns no buffer, so that an idle connection costs no heap.
//!
//! ```text
//!            ┌────────────── End ◀─────────────┐
//!            ▼                                 │
//!  ───▶  Head ── Head, sized ─────▶ Sized ─────┤      Incomplete: stays where it is
//!         │ │                                  │
//!         │ └─── Head, chunked ───▶ Chunked ───┘
//!         │                             │
//!         └──────── Refused ◀───────────┘             Refused: nothing after it is ever parsed
//! ```
//!
//! A head without a body is a whole request: no `End` follows it. Where a message ends is decided by
//! RFC 9112 §6 alone, and anything that two parsers could read in two ways is refused.
//!
//! This module sees no socket, file or clock.

mod chunked;
mod fields;
mod head;
mod receiver;
mod response;
mod target;

pub use head::{BodyLength, Head, Method, Version};
pub use receiver::{Receiver, Step};
pub use response::{CONTINUE, DATE_LINE_BYTES, GOAWAY, Persistence, Response, encode, reason};
pub use target::Target;

/// How much of anything a request may have, and how its path is read.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request line, in bytes, without its line end.
    pub request_line: usize,
    /// Longest field section, in bytes: every field line with its line end. Trailers have as much again.
    pub header_bytes: usize,
    /// Most field lines.
    pub headers: usize,
    /// Longest body, in bytes of content (chunk framing is not counted).
    pub body: u64,
    /// Whether repeated slashes of a path count as one.
    pub merge_slashes: bool,
}

/// Why a request is answered with an error, after which the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code to answer with.
    pub status: u16,
    /// What was wrong, for the person who reads the answer.
    pub reason: &'static str,
}

impl Refusal {
    /// 400 Bad Request (RFC 9110 §15.5.1).
    pub const fn bad_request(reason: &'static str) -> Refusal {
        Refusal { status: 400, reason }
    }

    /// 408 Request Timeout (RFC 9110 §15.5.9).
    pub const TIMEOUT: Refusal =
        Refusal { status: 408, reason: "the request took too long to arrive" };
    /// 413 Content Too Large (RFC 9110 §15.5.14).
    pub const BODY_TOO_LARGE: Refusal =
        Refusal { status: 413, reason: "the body is larger than this server takes" };
    /// 414 URI Too Long (RFC 9110 §15.5.15).
    pub const REQUEST_LINE_TOO_LONG: Refusal =
        Refusal { status: 414, reason: "the request line is longer than this server takes" };
    /// 417 Expectation Failed (RFC 9110 §10.1.1).
    pub const EXPECTATION: Refusal =
        Refusal { status: 417, reason: "only 100-continue can be expected" };
    /// 421 Misdirected Request (RFC 9110 §7.4).
    pub const MISDIRECTED: Refusal = Refusal {
        status: 421,
        reason: "a resource of https is not served over a plain connection",
    };
    /// 431 Request Header Fields Too Large (RFC 6585 §5).
    pub const FIELDS_TOO_LARGE: Refusal = Refusal {
        status: 431,
        reason: "the header fields are larger or more than this server takes",
    };
    /// 500 Internal Server Error (RFC 9110 §15.6.1).
    pub const INTERNAL: Refusal =
        Refusal { status: 500, reason: "the server failed while it answered this request" };
    /// 501 Not Implemented (RFC 9110 §15.6.2), of a method.
    pub const METHOD: Refusal = Refusal { status: 501, reason: "tunnels are not implemented" };
    /// 501 Not Implemented, of a transfer coding (RFC 9112 §6.1).
    pub const TRANSFER_CODING: Refusal =
        Refusal { status: 501, reason: "the only transfer coding implemented is chunked" };
    /// 503 Service Unavailable (RFC 9110 §15.6.4).
    pub const OVERLOADED: Refusal =
        Refusal { status: 503, reason: "the server holds as many request bodies as it may" };
    /// 505 HTTP Version Not Supported (RFC 9110 §15.6.6).
    pub const VERSION: Refusal =
        Refusal { status: 505, reason: "only HTTP/1.0 and HTTP/1.1 are spoken here" };
    /// The same, of the preface that HTTP/2 begins with (RFC 9113 §3.4): [`GOAWAY`] says it to its client.
    pub const PREFACE: Refusal = Refusal { status: 505, reason: "HTTP/2 is not spoken here" };
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    const TOKEN: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");
    TOKEN[usize::from(byte)]
}

/// A table of the bytes that are ASCII letters, digits or in `others`: asked for each byte of what every request has.
const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}
