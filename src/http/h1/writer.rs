//! The writing half of a connection: how each response is framed (RFC 9112 §6.3).
//!
//! ```text
//!  begin ── to HEAD, or a status without content ──▶ End
//!    ├───── its length is known ────────▶ Sized ───▶ End
//!    ├───── it is not, to HTTP/1.1 ─────▶ Chunked ─▶ End
//!    └───── it is not, to HTTP/1.0 ─────▶ UntilClose: the end of the connection is the end of it
//! ```

use std::io::Write;

use crate::http::{Response, Version};

/// 100 (Continue), whole (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a client of HTTP/2 understands, whole: an empty SETTINGS frame, which has to come first, and a GOAWAY with the
/// code HTTP_1_1_REQUIRED, stream 0 as the last that was looked at, and a sentence (RFC 9113 §6.5, §6.8).
pub const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x33\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d\
    HTTP/1.0 and HTTP/1.1 alone are spoken here";

/// Length of a `Date` line (RFC 9110 §6.6.1) with its line end.
pub const DATE_LINE_BYTES: usize = 37;

/// What of a request decides how its response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The version the client speaks.
    pub version: Version,
    /// Whether the request is a HEAD, no response to which has content (RFC 9110 §9.3.2).
    pub is_head: bool,
    /// Whether the connection is to be kept after the response.
    pub keep_alive: bool,
}

/// The content of one response on its way: how it is framed, and how far it has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Writer {
    /// So many bytes are still to come.
    Sized {
        /// Bytes.
        remaining: u64,
    },
    /// In chunks, until the last one (RFC 9112 §7.1).
    Chunked,
    /// Until the connection is closed.
    UntilClose,
    /// Nothing more is to come.
    End,
}

impl Writer {
    /// Appends the head of a response, up to and with the empty line that ends it. `length` is that of its content, where
    /// the response doesn't state it; if neither does it is unknown. Says too whether the connection is kept.
    pub fn begin(
        output: &mut Vec<u8>,
        response: &Response,
        length: Option<u64>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
    ) -> (Writer, bool) {
        output.extend_from_slice(response.head());
        let (writer, keep) = match response.length().or(length) {
            _ if response.forbids_content() => (Writer::End, to.keep_alive),
            Some(length) => {
                if response.length().is_none() {
                    put_length(output, length);
                }
                let writer =
                    if to.is_head { Writer::End } else { Writer::Sized { remaining: length } };
                (writer, to.keep_alive)
            }
            None if to.version == Version::Http10 => {
                let writer = if to.is_head { Writer::End } else { Writer::UntilClose };
                (writer, to.keep_alive && to.is_head)
            }
            None => {
                output.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                let writer = if to.is_head { Writer::End } else { Writer::Chunked };
                (writer, to.keep_alive)
            }
        };
        output.extend_from_slice(date);
        if let Some(line) = connection_field(to.version, keep) {
            output.extend_from_slice(line.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(b"\r\n");
        (writer, keep)
    }

    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        matches!(self, Writer::End | Writer::Sized { remaining: 0 })
    }

    /// Appends a piece of the content. What goes beyond a length that was stated is left out: it would be taken for the
    /// next response.
    pub fn put(&mut self, output: &mut Vec<u8>, piece: &[u8]) {
        match self {
            Writer::End => {}
            Writer::Sized { .. } => {
                let passed = self.pass(piece.len() as u64) as usize;
                output.extend_from_slice(&piece[..passed]);
            }
            // An empty chunk would be the last one.
            Writer::Chunked if piece.is_empty() => {}
            Writer::Chunked => {
                // Writing to a Vec can't fail.
                let _ = write!(output, "{:x}\r\n", piece.len());
                output.extend_from_slice(piece);
                output.extend_from_slice(b"\r\n");
            }
            Writer::UntilClose => output.extend_from_slice(piece),
        }
    }

    /// How much of content of this length is sent without framing, from where it is: what goes beyond a length that was
    /// stated is left out. Content of a length that is known is never in chunks.
    pub fn pass(&mut self, length: u64) -> u64 {
        match self {
            Writer::Sized { remaining } => {
                let passed = length.min(*remaining);
                *remaining -= passed;
                passed
            }
            Writer::UntilClose => length,
            Writer::Chunked | Writer::End => 0,
        }
    }

    /// Breaks the content off. Whether the end of the connection tells the client; else a reset alone does.
    pub fn break_off(&mut self) -> bool {
        !matches!(std::mem::replace(self, Writer::End), Writer::UntilClose)
    }

    /// Ends the content. False if it is shorter than was stated, which the end of the connection tells the client.
    pub fn end(&mut self, output: &mut Vec<u8>) -> bool {
        match std::mem::replace(self, Writer::End) {
            Writer::Sized { remaining } => remaining == 0,
            Writer::Chunked => {
                output.extend_from_slice(b"0\r\n\r\n");
                true
            }
            Writer::UntilClose | Writer::End => true,
        }
    }
}

/// Adds a field to a head that ends `output`, unless its value turns out to be empty.
pub fn add_field(output: &mut Vec<u8>, name: &str, put_value: impl FnOnce(&mut Vec<u8>)) {
    const END: &[u8] = b"\r\n";
    debug_assert!(output.ends_with(b"\r\n\r\n"));
    let before = output.len();
    output.truncate(before - END.len());
    output.extend_from_slice(name.as_bytes());
    output.extend_from_slice(b": ");
    let start = output.len();
    put_value(output);
    if output.len() == start {
        output.truncate(before - END.len());
    } else {
        output.extend_from_slice(END);
    }
    output.extend_from_slice(END);
}

/// The `Connection` field of a response (RFC 9112 §9.3), as `name: value`: HTTP/1.1 keeps a connection by saying nothing,
/// and a client of HTTP/1.0 that asked is told.
pub fn connection_field(version: Version, keep: bool) -> Option<&'static str> {
    match (keep, version) {
        (true, Version::Http11) => None,
        (true, Version::Http10) => Some("Connection: keep-alive"),
        (false, _) => Some("Connection: close"),
    }
}

fn put_length(output: &mut Vec<u8>, length: u64) {
    // Writing to a Vec can't fail.
    let _ = write!(output, "Content-Length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; DATE_LINE_BYTES] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    const KEEP: Recipient =
        Recipient { version: Version::Http11, is_head: false, keep_alive: true };
    const CLOSE: Recipient = Recipient { keep_alive: false, ..KEEP };
    const HEAD: Recipient = Recipient { is_head: true, ..KEEP };
    const OLD: Recipient = Recipient { version: Version::Http10, ..KEEP };

    /// What is sent of a response whose content comes in these pieces, behind something else; and whether it was whole,
    /// and the connection is kept.
    fn sent(
        response: &Response,
        length: Option<u64>,
        to: Recipient,
        pieces: &[&str],
    ) -> (String, bool, bool) {
        let mut output = b"before|".to_vec();
        let (mut writer, keep) = Writer::begin(&mut output, response, length, to, DATE);
        pieces.iter().for_each(|piece| writer.put(&mut output, piece.as_bytes()));
        let is_whole = writer.end(&mut output);
        assert!(writer.is_over());
        (String::from_utf8(output).expect("text"), is_whole, keep)
    }

    #[test]
    fn a_head_is_rendered_once_and_gets_what_changes_behind_it() {
        let response = Response::new(200, [("A", "b"), ("C", "d e")], Some(2));
        let expected = "before|HTTP/1.1 200 OK\r\nA: b\r\nC: d e\r\nContent-Length: 2\r\n\
                        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhi";
        assert_eq!(sent(&response, None, KEEP, &["hi"]), (expected.into(), true, true));
        let kept = expected.replace("GMT\r\n", "GMT\r\nConnection: keep-alive\r\n");
        assert_eq!(sent(&response, None, OLD, &["h", "i"]), (kept, true, true));
        let closed = expected.replace("GMT\r\n", "GMT\r\nConnection: close\r\n");
        for to in [CLOSE, Recipient { version: Version::Http10, ..CLOSE }] {
            assert_eq!(sent(&response, None, to, &["hi"]), (closed.clone(), true, false));
        }
    }

    #[test]
    fn a_length_that_is_known_late_is_added_late() {
        let response = Response::new(200, [], None);
        let (text, is_whole, keep) = sent(&response, Some(7), KEEP, &["seven", "", "!!"]);
        assert!(
            text.starts_with("before|HTTP/1.1 200 OK\r\nContent-Length: 7\r\nDate: "),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\nseven!!") && is_whole && keep, "{text}");
    }

    #[test]
    fn content_of_unknown_length_is_chunked_or_lasts_until_the_close() {
        let response = Response::new(200, [], None);
        let (text, is_whole, keep) = sent(&response, None, KEEP, &["0123456789abcdef", "", "x"]);
        let end = "\r\n\r\n10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n";
        assert!(text.contains("\r\nTransfer-Encoding: chunked\r\nDate: "), "{text}");
        assert!(text.ends_with(end) && is_whole && keep, "{text}");
        // HTTP/1.0 knows no chunks, whatever it asked for.
        let (text, is_whole, keep) = sent(&response, None, OLD, &["x", "y"]);
        assert!(text.ends_with("\r\nConnection: close\r\n\r\nxy") && is_whole && !keep, "{text}");
        assert!(!text.contains("Transfer-Encoding"), "{text}");
    }

    #[test]
    fn neither_a_head_nor_a_status_without_content_gets_any() {
        let sized = Response::new(200, [], Some(2));
        let (text, _, keep) = sent(&sized, None, HEAD, &["hi"]);
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n") && keep);
        let unsized_ = Response::new(200, [], None);
        let (text, _, keep) = sent(&unsized_, Some(2), HEAD, &["hi"]);
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n") && keep);
        let (text, _, keep) = sent(&unsized_, None, HEAD, &["hi"]);
        assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n") && text.ends_with("\r\n\r\n"));
        assert!(keep && !text.contains("0\r\n\r\n"), "{text}");
        let (text, _, keep) = sent(&unsized_, None, Recipient { is_head: true, ..OLD }, &["hi"]);
        assert!(text.ends_with("\r\nConnection: keep-alive\r\n\r\n") && keep, "{text}");
        for status in [204, 304] {
            for (length, late) in [(Some(0), None), (None, Some(0)), (None, None)] {
                let response = Response::new(status, [], length);
                let (text, _, keep) = sent(&response, late, KEEP, &["hi"]);
                assert!(!text.contains("Content-Length") && !text.contains("Transfer-Encoding"));
                assert!(text.ends_with("GMT\r\n\r\n") && keep, "{text}");
            }
        }
    }

    #[test]
    fn content_is_held_to_the_length_that_was_stated() {
        let response = Response::new(200, [], Some(4));
        let (text, is_whole, _) = sent(&response, None, KEEP, &["123", "45", "6"]);
        assert!(text.ends_with("\r\n\r\n1234") && is_whole, "{text}");
        let (text, is_whole, _) = sent(&response, None, KEEP, &["123"]);
        assert!(text.ends_with("\r\n\r\n123") && !is_whole, "{text}");
    }

    #[test]
    fn content_that_is_sent_from_where_it_is_is_held_to_the_length_that_was_stated() {
        for (stated, length, to, passed, is_whole) in [
            (Some(4), 4, KEEP, 4, true),
            (Some(4), 9, KEEP, 4, true),
            (Some(4), 3, KEEP, 3, false),
            (None, 3, OLD, 3, true),
            (Some(4), 4, HEAD, 0, true),
        ] {
            let response = Response::new(200, [], stated);
            let mut output = Vec::new();
            let (mut writer, _) = Writer::begin(&mut output, &response, Some(length), to, DATE);
            let before = output.len();
            let seen = (writer.pass(length), writer.end(&mut output));
            assert_eq!(seen, (passed, is_whole), "{length} of {stated:?}");
            assert_eq!(output.len(), before, "no framing");
        }
    }

    #[test]
    fn the_length_that_is_stated_is_the_one_that_counts() {
        let response = Response::new(200, [], Some(2));
        let (text, is_whole, _) = sent(&response, Some(9), KEEP, &["123456789"]);
        assert!(
            text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n12"),
            "{text}"
        );
        assert!(is_whole && text.matches("Content-Length").count() == 1, "{text}");
    }

    #[test]
    fn what_is_broken_off_can_be_told_from_what_is_whole() {
        let response = Response::new(200, [], None);
        for (length, to, by_end) in [(Some(9), KEEP, true), (None, KEEP, true), (None, OLD, false)]
        {
            let mut output = Vec::new();
            let (mut writer, _) = Writer::begin(&mut output, &response, length, to, DATE);
            writer.put(&mut output, b"x");
            let before = output.len();
            assert_eq!((writer.break_off(), writer.is_over()), (by_end, true), "{length:?} {to:?}");
            assert_eq!(output.len(), before, "nothing says that it is whole");
        }
    }

    #[test]
    fn a_goaway_is_as_long_as_it_says() {
        // A frame is a length in 3 bytes, a type, flags, a stream in 4, and as much as it said (RFC 9113 §4.1).
        let length = usize::from(GOAWAY[9 + 2]);
        assert_eq!((GOAWAY[3], GOAWAY[9 + 3]), (4, 7), "SETTINGS and GOAWAY");
        assert_eq!(GOAWAY.len(), 9 + 9 + length);
    }
}
