//! The field lines of a head: syntax by httparse, and the few that frame a message or govern the connection.

use crate::http::Refusal;
use crate::http::request::Fields;
use crate::http::token::is_token_byte;

/// What the fields say that matters before any content sees them.
#[derive(Debug, Default)]
pub(super) struct KnownFields<'b> {
    pub(super) hosts: usize,
    pub(super) host: &'b [u8],
    pub(super) content_length: Option<u64>,
    pub(super) transfer_encoding: bool,
    pub(super) codings: Codings,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) expects_other: bool,
}

/// Fields that fit in a head without heap.
const FIELDS_ON_STACK: usize = 24;

/// Parses a block of `lines` field lines.
pub(super) fn parse(block: &[u8], lines: usize) -> Result<(Fields<'_>, KnownFields<'_>), Refusal> {
    let known = if lines <= FIELDS_ON_STACK {
        examine(block, &mut [httparse::EMPTY_HEADER; FIELDS_ON_STACK])
    } else {
        examine(block, &mut vec![httparse::EMPTY_HEADER; lines])
    };
    Ok((Fields::of_lines(block), known?))
}

fn examine<'b>(
    block: &'b [u8],
    room: &mut [httparse::Header<'b>],
) -> Result<KnownFields<'b>, Refusal> {
    let headers = match httparse::parse_headers(block, room) {
        Ok(httparse::Status::Complete((length, headers))) if length == block.len() => headers,
        _ => return Err(Refusal::bad_request("a header field is malformed")),
    };
    let mut known = KnownFields::default();
    for header in headers {
        // The length tells most names apart before a byte is compared.
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => {
                known.hosts += 1;
                known.host = header.value;
            }
            6 if is("expect") => known.expect(header.value),
            10 if is("connection") => known.connection(header.value),
            14 if is("content-length") => known.content_length(header.value)?,
            17 if is("transfer-encoding") => {
                known.transfer_encoding = true;
                known.codings.add(header.value)?;
            }
            _ => {}
        }
    }
    Ok(known)
}

impl KnownFields<'_> {
    /// Digits and nothing else (RFC 9110 §8.6). A list or a second line is refused even when the values
    /// agree: the same bytes may pass other readers, one of which might take another of them.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::bad_request("Content-Length is not a number"));
        }
        if self.content_length.is_some() {
            return Err(Refusal::bad_request("there is more than one Content-Length"));
        }
        let length = value.iter().try_fold(0_u64, |length, digit| {
            length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        self.content_length = Some(length.ok_or(Refusal::BODY_TOO_LARGE)?);
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn expect(&mut self, value: &[u8]) {
        for expectation in list(value) {
            if expectation.eq_ignore_ascii_case(b"100-continue") {
                self.expects_continue = true;
            } else {
                self.expects_other = true;
            }
        }
    }
}

/// The elements of a comma-separated list, empty ones left out (RFC 9110 §5.6.1.2).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// The transfer codings of a message, over all its Transfer-Encoding lines (RFC 9112 §6.1).
#[derive(Debug, Default)]
pub(super) struct Codings {
    chunked_last: bool,
    others: bool,
    unknown: bool,
}

impl Codings {
    fn add(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Unlike any other list, this one may have no empty elements: readers differ over what a comma alone does
        // to the coding beside it.
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
            if coding.is_empty() {
                return Err(Refusal::bad_request("a transfer coding is empty"));
            }
            if self.chunked_last {
                return Err(Refusal::bad_request("chunked is not the last transfer coding"));
            }
            if is("chunked") {
                self.chunked_last = true;
            } else if !coding.iter().all(|byte| is_token_byte(*byte)) {
                return Err(Refusal::bad_request("a transfer coding is malformed"));
            } else {
                const KNOWN: [&str; 6] =
                    ["gzip", "x-gzip", "deflate", "compress", "x-compress", "identity"];
                self.others = true;
                self.unknown |= !KNOWN.into_iter().any(is);
            }
        }
        Ok(())
    }

    /// Ok if the message is chunked and nothing else.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        if self.unknown || (self.others && self.chunked_last) {
            Err(Refusal::TRANSFER_CODING)
        } else if self.chunked_last {
            Ok(())
        } else {
            Err(Refusal::bad_request("the last transfer coding is not chunked"))
        }
    }
}
