//! A request as content sees it, whichever protocol brought it.

// Addresses, and no sockets.
use core::net::IpAddr;
use std::borrow::Cow;

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
    /// Where it comes from, if the lane that received it keeps that: the connection tells it, and no byte of the request.
    pub client: Option<IpAddr>,
}

/// What of a request without a body is kept while its answer waits for something. Of its method, whether it is HEAD.
#[derive(Clone, Debug)]
pub struct KeptRequest {
    is_head: bool,
    version: Version,
    raw: Box<[u8]>,
    path: Box<[u8]>,
    query: Option<Box<[u8]>>,
    host: Box<[u8]>,
    lines: Box<[u8]>,
}

impl Request<'_> {
    /// Keeps it.
    pub fn keep(&self) -> KeptRequest {
        let Target { raw, path, query, host } = &self.target;
        KeptRequest {
            is_head: self.method == Method::Head,
            version: self.version,
            raw: (*raw).into(),
            path: (&**path).into(),
            query: query.map(Into::into),
            host: (&**host).into(),
            lines: self.fields.lines.into(),
        }
    }
}

impl KeptRequest {
    /// The request.
    pub fn request(&self) -> Request<'_> {
        Request {
            method: if self.is_head { Method::Head } else { Method::Get },
            target: Target {
                raw: &self.raw,
                path: Cow::Borrowed(&self.path),
                query: self.query.as_deref(),
                host: Cow::Borrowed(&self.host),
            },
            version: self.version,
            fields: Fields { lines: &self.lines },
            body: BodyLength::None,
            client: None,
        }
    }

    /// How much memory it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        let query = self.query.as_ref().map_or(0, |query| query.len());
        self.raw.len() + self.path.len() + query + self.host.len() + self.lines.len()
    }
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
    pub fn iter(self) -> FieldLines<'b> {
        FieldLines { rest: self.lines.strip_suffix(b"\r\n").unwrap_or_default() }
    }
}

/// Name and value of each of some fields, from either end.
#[derive(Clone, Debug)]
pub struct FieldLines<'b> {
    /// The lines that are left.
    rest: &'b [u8],
}

impl<'b> Iterator for FieldLines<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\r', self.rest)?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        name_and_value(line)
    }
}

impl DoubleEndedIterator for FieldLines<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let lines = self.rest.strip_suffix(b"\r\n")?;
        let start = memchr::memrchr(b'\n', lines).map_or(0, |end| end + 1);
        let line = &lines[start..];
        self.rest = &self.rest[..start];
        name_and_value(line)
    }
}

fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_from_either_end_and_each_once() {
        let fields = Fields::of_lines(b"A:1\r\nB: \t2 \r\nC:\r\nD: 4:5\r\n\r\n");
        let expected: [(&[u8], &[u8]); 4] =
            [(b"A", b"1"), (b"B", b"2"), (b"C", b""), (b"D", b"4:5")];
        assert_eq!(fields.iter().collect::<Vec<_>>(), expected);
        let mut backwards: Vec<_> = fields.iter().rev().collect();
        backwards.reverse();
        assert_eq!(backwards, expected);
        let mut both = fields.iter();
        assert_eq!([both.next(), both.next_back()], [Some(expected[0]), Some(expected[3])]);
        assert_eq!([both.next_back(), both.next()], [Some(expected[2]), Some(expected[1])]);
        assert_eq!([both.next(), both.next_back()], [None, None]);
        assert_eq!(Fields::of_lines(b"\r\n").iter().next_back(), None);
    }
}
