//! The reading half of a connection: where one message ends and the next begins.

use memchr::memchr;

use super::chunked::{self, Chunked};
use super::head::{Head, parse};
use crate::http::token::is_token_byte;
use crate::http::{BodyLength, Limits, Refusal};

/// What the bytes so far amount to.
#[derive(Debug, PartialEq)]
pub enum Step<'b> {
    /// More bytes are needed.
    Incomplete,
    /// A whole head. If its body has a length, `Body` and `End` steps follow.
    Head(Head<'b>),
    /// A piece of the body, in order.
    Body(&'b [u8]),
    /// The end of a message that has a body.
    End,
    /// Not a request that may be served; every further step is this one.
    Refused(Refusal),
}

/// The reading half of one connection; see the [module](super) for its states.
#[derive(Debug, Default)]
pub struct Receiver {
    state: State,
    /// Heads given out.
    heads: u32,
    is_head: bool,
}

#[derive(Debug)]
enum State {
    Head(Scan),
    Sized { remaining: u64 },
    Chunked(Chunked),
    Refused(Refusal),
}

/// How far a head has been searched for its end, in bytes from its first. Nothing is searched twice, so
/// that a head that comes byte by byte costs no more than one that comes whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scan {
    searched: u32,
    line_start: u32,
    /// Where the field lines begin; 0 until the request line is whole.
    fields_start: u32,
    lines: u32,
    /// Empty lines that came before its first byte, and were taken.
    empty_lines: u8,
}

/// Most bytes that a head may have, whatever the limits say: offsets are kept in 32 bits.
const HEAD_BYTES_MAX: usize = 1 << 30;

/// Most empty lines before a request. Some clients send one behind a body (RFC 9112 §2.2), none sends many.
const EMPTY_LINES_MAX: u8 = 8;

impl Default for State {
    fn default() -> State {
        State::Head(Scan::default())
    }
}

impl Receiver {
    /// Between two requests, with nothing of the next one seen but empty lines.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head(scan) if scan.searched == 0)
    }

    /// Within a body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Sized { .. } | State::Chunked(_))
    }

    /// How many heads it has given out; many are counted as 2³² − 1.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether the request that the last step was about is known to be a HEAD, even if it was refused or is
    /// not whole: no response to it has a body (RFC 9110 §9.3.2).
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Takes the next step in `input`, and says how many of its bytes are done with. The others must be
    /// offered again, at the front, with more behind them.
    pub fn step<'b>(&mut self, input: &'b [u8], limits: &Limits) -> (usize, Step<'b>) {
        let (consumed, step) = match &mut self.state {
            State::Head(scan) => {
                let (skipped, found) = scan.advance(input, limits);
                let input = &input[skipped..];
                // Known from its first word, whatever is wrong with the others.
                self.is_head = input.starts_with(b"HEAD ");
                match found {
                    Ok(None) => (skipped, Step::Incomplete),
                    Ok(Some(length)) => match self.head(&input[..length], limits) {
                        refused @ Step::Refused(_) => (skipped, refused),
                        step => (skipped + length, step),
                    },
                    Err(refusal) => (skipped, Step::Refused(refusal)),
                }
            }
            State::Sized { remaining: 0 } => {
                self.state = State::default();
                (0, Step::End)
            }
            State::Sized { .. } if input.is_empty() => (0, Step::Incomplete),
            State::Sized { remaining } => {
                let take = input.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= take as u64;
                (take, Step::Body(&input[..take]))
            }
            State::Chunked(decoder) => match decoder.advance(input, limits) {
                Ok((consumed, chunked::Step::Incomplete)) => (consumed, Step::Incomplete),
                Ok((consumed, chunked::Step::Data(data))) => (consumed, Step::Body(data)),
                Ok((consumed, chunked::Step::End)) => {
                    self.state = State::default();
                    (consumed, Step::End)
                }
                Err(refusal) => (0, Step::Refused(refusal)),
            },
            State::Refused(refusal) => (0, Step::Refused(*refusal)),
        };
        if let Step::Refused(refusal) = step {
            self.state = State::Refused(refusal);
        }
        (consumed, step)
    }

    fn head<'b>(&mut self, input: &'b [u8], limits: &Limits) -> Step<'b> {
        let State::Head(scan) = &self.state else {
            unreachable!("only a head is parsed as one");
        };
        let (line, block) = input.split_at(scan.fields_start as usize);
        match parse(&line[..line.len() - 2], block, scan.lines as usize, limits) {
            Err(refusal) => Step::Refused(refusal),
            Ok(head) => {
                self.state = match head.request.body {
                    BodyLength::Sized(length) if length > limits.body => {
                        return Step::Refused(Refusal::BODY_TOO_LARGE);
                    }
                    BodyLength::None => State::default(),
                    BodyLength::Sized(remaining) => State::Sized { remaining },
                    BodyLength::Unknown => State::Chunked(Chunked::default()),
                };
                self.heads = self.heads.saturating_add(1);
                Step::Head(head)
            }
        }
    }
}

impl Scan {
    /// Skips the empty lines at the start of `input`, then searches on for the one that ends the head. Says how
    /// much was skipped, and how long the head is.
    fn advance(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> (usize, Result<Option<usize>, Refusal>) {
        let mut skipped = 0;
        while input[skipped..].starts_with(b"\r\n") {
            if self.empty_lines == EMPTY_LINES_MAX {
                let reason = "there are too many empty lines before the request";
                return (skipped, Err(Refusal::bad_request(reason)));
            }
            *self = Scan { empty_lines: self.empty_lines + 1, ..Scan::default() };
            skipped += 2;
        }
        (skipped, self.search(&input[skipped..], limits))
    }

    /// Refuses a line that doesn't end in CRLF (a lone LF is read as a line end by some and not by
    /// others), and whatever is over a limit, as soon as it is.
    fn search(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let mut searched = self.searched as usize;
        let mut line_start = self.line_start as usize;
        while let Some(offset) = memchr(b'\n', &input[searched..]) {
            let line_end = searched + offset;
            self.check_line(&input[..line_end], line_start, limits)?;
            searched = line_end + 1;
            if line_end == line_start || input[line_end - 1] != b'\r' {
                return Err(Refusal::bad_request("a line does not end in CRLF"));
            }
            let length = line_end - 1 - line_start;
            if self.fields_start == 0 {
                if length > limits.request_line {
                    return Err(Refusal::REQUEST_LINE_TOO_LONG);
                }
                self.fields_start = searched as u32;
            } else if length == 0 {
                return Ok(Some(searched));
            } else {
                self.lines += 1;
                if searched - self.fields_start as usize > limits.header_bytes {
                    return Err(Refusal::FIELDS_TOO_LARGE);
                }
            }
            line_start = searched;
        }
        self.check_line(input, line_start, limits)?;
        if input.len() > HEAD_BYTES_MAX {
            return Err(Refusal::FIELDS_TOO_LARGE);
        }
        self.searched = input.len() as u32;
        self.line_start = line_start as u32;
        Ok(None)
    }

    /// Whether the line that ends `input`, and has no LF yet, may still become one that is served. Asked of
    /// every line before its LF is looked at, so that the answer doesn't depend on when which byte came.
    fn check_line(&self, input: &[u8], line_start: usize, limits: &Limits) -> Result<(), Refusal> {
        let line = &input[line_start..];
        if self.fields_start == 0 {
            check_first(line)?;
            // The CR of its end may be there already.
            if line.len() > limits.request_line.saturating_add(1) {
                return Err(Refusal::REQUEST_LINE_TOO_LONG);
            }
        } else if line != b"\r" {
            let bytes = input.len() - self.fields_start as usize;
            let one_more = !line.is_empty() && self.lines as usize >= limits.headers;
            if bytes > limits.header_bytes || one_more {
                return Err(Refusal::FIELDS_TOO_LARGE);
            }
        }
        Ok(())
    }
}

/// A TLS handshake or other noise may never send a line end: the first byte of a request line tells. A CR may
/// become an empty line.
fn check_first(line: &[u8]) -> Result<(), Refusal> {
    match line {
        [] | b"\r" => Ok(()),
        [byte, ..] if is_token_byte(*byte) => Ok(()),
        _ => Err(Refusal::bad_request("this is not an HTTP request")),
    }
}

#[cfg(test)]
mod tests;
