//! A request as content sees it, whichever protocol brought it.

use super::method::Method;
use super::target::Target;

/// The head of a request, borrowed from the bytes it came in.
#[derive(Debug, PartialEq)]
pub struct Request<'b> {
    /// The method.
    pub method: Method<'b>,
    /// The target, and the host it is meant for.
    pub target: Target<'b>,
    /// The version the client speaks.
    pub version: Version,
    /// Every header field, in order.
    pub fields: Fields<'b>,
    /// How long its body is.
    pub body: BodyLength,
}

/// The version of a request. A higher minor version than 1 is served as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    /// As it is written in a request line.
    pub fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// How long the body of a request is, as far as its head tells (RFC 9110 §8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// This many bytes, at least one.
    Sized(u64),
    /// As long as it turns out to be; it may be empty.
    Unknown,
}

/// The header fields of a request (RFC 9110 §5), as its protocol brought them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'b> {
    /// Field lines of HTTP/1 that were found valid, with the empty line that ends them.
    lines: &'b [u8],
}

impl<'b> Fields<'b> {
    /// Of a head of HTTP/1: its field lines, which were found valid, with the empty line that ends them.
    pub(super) fn of_lines(lines: &'b [u8]) -> Fields<'b> {
        Fields { lines }
    }

    /// Name and value of each field, in order; the value without the white space around it.
    pub fn iter(self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\r', rest)?;
            let line = &rest[..end];
            rest = &rest[end + 2..];
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}
