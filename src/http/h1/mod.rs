//! HTTP/1.0 and HTTP/1.1: bytes to requests, and responses to bytes (RFC 9112).
//!
//! A [`Receiver`] is the reading half of one connection. It is fed whatever bytes have arrived and answers
//! with one [`Step`] at a time; what it doesn't consume, the caller offers again together with what comes
//! next. It owns no buffer, so that an idle connection costs no heap. A [`Writer`] frames one response.
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

mod chunked;
mod fields;
mod head;
mod receiver;
mod writer;

pub use head::Head;
pub use receiver::{Receiver, Step};
#[cfg(feature = "may")]
pub use writer::connection_field;
pub use writer::{CONTINUE, DATE_LINE_BYTES, GOAWAY, Recipient, Writer, add_field};
