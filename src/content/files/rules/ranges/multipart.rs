//! Several parts of a file as one content: `multipart/byteranges` (RFC 9110 §14.6, RFC 2046 §5.1).

use std::hash::{BuildHasher, RandomState};

use super::Span;

/// One part: what goes in front of it, and which bytes of the file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The delimiter and the fields of the part.
    pub head: Vec<u8>,
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

/// All parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Multipart {
    pub(in super::super) content_type: String,
    pub(in super::super) parts: Vec<Part>,
    /// What goes behind the last part.
    pub(in super::super) end: Vec<u8>,
}

/// What separates the parts of one response. It must not stand in the file: it is made of a random number, so that no
/// content can be written to have it.
pub(in super::super) fn boundary() -> u64 {
    RandomState::new().hash_one(())
}

impl Multipart {
    pub(in super::super) fn new(
        spans: &[Span],
        content_type: &str,
        file_bytes: u64,
        boundary: u64,
    ) -> Multipart {
        let part = |(index, span): (usize, &Span)| {
            let before = if index == 0 { "" } else { "\r\n" };
            let Span { offset, length } = *span;
            let last = offset + length - 1;
            let head = format!(
                "{before}--{boundary:016x}\r\nContent-Type: {content_type}\r\n\
                 Content-Range: bytes {offset}-{last}/{file_bytes}\r\n\r\n"
            );
            Part { head: head.into(), offset, length }
        };
        Multipart {
            content_type: format!("multipart/byteranges; boundary={boundary:016x}"),
            parts: spans.iter().enumerate().map(part).collect(),
            end: format!("\r\n--{boundary:016x}--\r\n").into(),
        }
    }

    /// How long it is altogether, in bytes.
    pub(in super::super) fn length(&self) -> u64 {
        let parts = self.parts.iter().map(|part| part.head.len() as u64 + part.length);
        parts.sum::<u64>() + self.end.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_between_delimiters() {
        let spans = [Span { offset: 0, length: 2 }, Span { offset: 7, length: 3 }];
        let multipart = Multipart::new(&spans, "text/plain", 10, 0xabc);
        let file = b"0123456789";
        let mut content = Vec::new();
        for part in &multipart.parts {
            content.extend_from_slice(&part.head);
            content.extend_from_slice(&file[part.offset as usize..][..part.length as usize]);
        }
        content.extend_from_slice(&multipart.end);
        let expected = "--0000000000000abc\r\nContent-Type: text/plain\r\n\
                        Content-Range: bytes 0-1/10\r\n\r\n01\r\n\
                        --0000000000000abc\r\nContent-Type: text/plain\r\n\
                        Content-Range: bytes 7-9/10\r\n\r\n789\r\n--0000000000000abc--\r\n";
        assert_eq!(String::from_utf8_lossy(&content), expected);
        assert_eq!(multipart.length(), content.len() as u64);
        assert_eq!(multipart.content_type, "multipart/byteranges; boundary=0000000000000abc");
    }

    #[test]
    fn no_two_responses_have_the_same_boundary() {
        assert_ne!(boundary(), boundary());
    }
}
