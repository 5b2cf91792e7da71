//! The fields of a request that decide what is sent of a file: which of them there are, and what they say.

mod accept;
mod list;

use crate::http::Fields;

pub(super) use accept::quality;
pub(super) use list::{Weight, elements, split, weight};

/// A field that decides what is sent of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Accept,
    AcceptEncoding,
    IfMatch,
    IfModifiedSince,
    IfNoneMatch,
    IfRange,
    IfUnmodifiedSince,
    Range,
    SecFetchMode,
}

impl Term {
    fn name(self) -> &'static str {
        match self {
            Term::Accept => "Accept",
            Term::AcceptEncoding => "Accept-Encoding",
            Term::IfMatch => "If-Match",
            Term::IfModifiedSince => "If-Modified-Since",
            Term::IfNoneMatch => "If-None-Match",
            Term::IfRange => "If-Range",
            Term::IfUnmodifiedSince => "If-Unmodified-Since",
            Term::Range => "Range",
            Term::SecFetchMode => "Sec-Fetch-Mode",
        }
    }

    /// The value of each field line of this name, in order; together they are one list (RFC 9110 §5.3).
    pub(super) fn values(self, fields: Fields<'_>) -> impl Iterator<Item = &[u8]> {
        let name = self.name().as_bytes();
        fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a field that is no list. One that comes twice has none, since it can't be told which one counts.
    pub(super) fn value(self, fields: Fields<'_>) -> Option<&[u8]> {
        let mut values = self.values(fields);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is such a field.
    pub(super) fn is_in(self, fields: Fields<'_>) -> bool {
        self.values(fields).next().is_some()
    }
}

/// Whether a request with these fields asks for the whole file whatever it has become: without a condition or a range.
pub fn is_plain(fields: Fields<'_>) -> bool {
    // Most names are neither as long as `Range` nor begin as all others do.
    !fields.iter().any(|(name, _)| match name.first() {
        Some(b'R' | b'r') => name.eq_ignore_ascii_case(b"range"),
        Some(b'I' | b'i') => name.len() > 3 && name[..3].eq_ignore_ascii_case(b"if-"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::response::tests::with_request;
    use super::*;

    #[test]
    fn a_request_without_conditions_and_ranges_is_plain() {
        for (lines, expected) in [
            ("Accept: */*\r\nAccept-Encoding: br\r\nReferer: x\r\nI: f\r\nRanges: x\r\n", true),
            ("RANGE: x\r\n", false),
            ("range: x\r\n", false),
            ("If-Match: x\r\n", false),
            ("if-none-match: x\r\n", false),
            ("IF-MODIFIED-SINCE: x\r\n", false),
            ("If-Unmodified-Since: x\r\n", false),
            ("If-Range: x\r\n", false),
        ] {
            let plain = with_request("GET", "/", lines, |request| is_plain(request.fields));
            assert_eq!(plain, expected, "{lines}");
        }
    }

    #[test]
    fn what_comes_twice_is_a_list_or_nothing() {
        let lines = "If-Match: a\r\nX: y\r\nif-match: b\r\nRange: c\r\n";
        with_request("GET", "/", lines, |request| {
            let fields = request.fields;
            assert_eq!(Term::IfMatch.values(fields).collect::<Vec<_>>(), [b"a", b"b"]);
            assert_eq!(Term::IfMatch.value(fields), None);
            assert_eq!(Term::Range.value(fields), Some(&b"c"[..]));
            assert!(Term::Range.is_in(fields) && !Term::IfRange.is_in(fields));
        });
    }
}
