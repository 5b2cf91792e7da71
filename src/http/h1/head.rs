//! One request head: the request line by hand, the fields by httparse, and what they say of framing.

use super::fields;
use crate::http::token::is_token_byte;
use crate::http::{BodyLength, Limits, Method, Refusal, Request, Version, target};

/// A request head, and what it says of its connection.
#[derive(Debug, PartialEq)]
pub struct Head<'b> {
    /// What is asked for.
    pub request: Request<'b>,
    /// Whether another request may follow (RFC 9112 §9.3): the client wants it, and it is known where this one ends.
    pub keep_alive: bool,
    /// Whether the client sends nothing behind it: it said so, and it is known where this one ends.
    pub is_last: bool,
    /// Whether the client waits for 100 (Continue) before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

/// Parses a head: its request line without the line end, and its field lines with the empty line that
/// ends them. `lines` is how many field lines there are.
pub(super) fn parse<'b>(
    line: &'b [u8],
    block: &'b [u8],
    lines: usize,
    limits: &Limits,
) -> Result<Head<'b>, Refusal> {
    let RequestLine { method, target, version } = request_line(line)?;
    let (fields, known) = fields::parse(block, lines)?;
    let body = body_length(version, &known)?;
    let host = match (version, known.hosts) {
        (Version::Http11, 0) => return Err(Refusal::bad_request("there is no Host field")),
        (_, 0 | 1) => known.host,
        _ => return Err(Refusal::bad_request("there is more than one Host field")),
    };
    let target = target::parse(method, target, host, limits.merge_slashes)?;
    if known.expects_other && version == Version::Http11 {
        return Err(Refusal::EXPECTATION);
    }
    // A client of HTTP/1.0 that states no length may send content all the same (RFC 1945 §7.2.2), which would be
    // taken for the next request.
    let is_old = version == Version::Http10;
    let is_end_known = !is_old || known.content_length.is_some() || !method.has_content();
    let wants_another = !known.close && (!is_old || known.keep_alive);
    Ok(Head {
        request: Request { method, target, version, fields, body, client: None },
        keep_alive: wants_another && is_end_known,
        is_last: !wants_another && is_end_known,
        expects_continue: known.expects_continue && version == Version::Http11,
    })
}

struct RequestLine<'b> {
    method: Method<'b>,
    target: &'b [u8],
    version: Version,
}

/// `method SP request-target SP HTTP-version`, with single spaces and nothing else (RFC 9112 §3).
fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    const SHAPE: Refusal = Refusal::bad_request("the request line is not 'METHOD target HTTP/1.1'");
    let space = memchr::memchr(b' ', line).ok_or(SHAPE)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let space = memchr::memchr(b' ', rest).ok_or(SHAPE)?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if method.is_empty() || target.is_empty() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Err(SHAPE);
    }
    // The version comes first: what the other parts mean depends on it.
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if line == b"PRI * HTTP/2.0" {
                return Err(Refusal::PREFACE);
            }
            if *major != b'1' {
                return Err(Refusal::VERSION);
            }
            Version::Http11
        }
        _ => return Err(SHAPE),
    };
    let method = match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"PATCH" => Method::Patch,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"CONNECT" => return Err(target::refuse_connect(target)),
        // A token is ASCII.
        other => Method::Other(std::str::from_utf8(other).map_err(|_| SHAPE)?),
    };
    Ok(RequestLine { method, target, version })
}

/// The framing of the body (RFC 9112 §6.1, §6.3), refusing whatever two readers could take in two ways.
fn body_length(version: Version, known: &fields::KnownFields<'_>) -> Result<BodyLength, Refusal> {
    if known.transfer_encoding {
        if version == Version::Http10 {
            return Err(Refusal::bad_request("HTTP/1.0 has no Transfer-Encoding"));
        }
        if known.content_length.is_some() {
            return Err(Refusal::bad_request(
                "Content-Length and Transfer-Encoding are both there",
            ));
        }
        return match known.codings.finish() {
            Ok(()) => Ok(BodyLength::Unknown),
            Err(refusal) => Err(refusal),
        };
    }
    match known.content_length {
        // No length is a length of 0, in HTTP/1.0 too.
        None | Some(0) => Ok(BodyLength::None),
        Some(length) => Ok(BodyLength::Sized(length)),
    }
}
