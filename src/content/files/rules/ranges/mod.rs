//! Ranges of a file (RFC 9110 §14): which parts of it a request gets.

mod multipart;

pub use multipart::Part;
pub(super) use multipart::{Multipart, boundary};

use super::terms::elements;

/// Most ranges of a request; one that wants more gets the whole file. The same as Apache's limits.
const RANGES_MAX: usize = 200;
/// Most of them that overlap with an earlier one.
const OVERLAPS_MAX: usize = 20;
/// Most of them that begin before the one in front of them.
const REVERSALS_MAX: usize = 20;

/// Ranges with less between them become one: the head of a part would be longer (RFC 9110 §15.3.7.2).
const GAP_MAX: u64 = 80;

/// Some bytes of a file, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What a Range field selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// The whole file: the field is ignored, because it is malformed, of another unit, or wants too much.
    Whole,
    /// These bytes.
    One(Span),
    /// Two and more: apart from each other, in the order in which they were asked for.
    Several(Vec<Span>),
    /// Nothing that there is.
    Unsatisfiable,
}

impl Span {
    fn end(self) -> u64 {
        self.offset + self.length
    }

    fn overlaps(self, other: Span) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Whether there is nothing between them, or too little to be left out.
    fn adjoins(self, other: Span) -> bool {
        self.offset <= other.end() + GAP_MAX && other.offset <= self.end() + GAP_MAX
    }

    fn united(self, other: Span) -> Span {
        let offset = self.offset.min(other.offset);
        Span { offset, length: self.end().max(other.end()) - offset }
    }
}

/// What the value of a Range field selects of a file of so many bytes.
pub(super) fn select(value: &[u8], file_bytes: u64) -> Selection {
    const UNIT: &[u8] = b"bytes=";
    let Some((unit, set)) = value.split_at_checked(UNIT.len()) else { return Selection::Whole };
    if !unit.eq_ignore_ascii_case(UNIT) {
        return Selection::Whole;
    }
    let mut selected = Selected::default();
    for (index, range) in elements([set].into_iter()).enumerate() {
        let range = (index < RANGES_MAX).then(|| parse(range, file_bytes)).flatten();
        match range {
            None => return Selection::Whole,
            Some(Range::Span(span)) => selected.add(span),
            Some(Range::Unsatisfiable) => selected.are_unsatisfiable = true,
        }
        if selected.overlaps > OVERLAPS_MAX || selected.reversals > REVERSALS_MAX {
            return Selection::Whole;
        }
    }
    match selected.spans[..] {
        [] if selected.are_unsatisfiable => Selection::Unsatisfiable,
        [] => Selection::Whole,
        [span] => Selection::One(span),
        _ => Selection::Several(selected.spans),
    }
}

/// The ranges of a field so far.
#[derive(Default)]
struct Selected {
    /// Apart from each other.
    spans: Vec<Span>,
    overlaps: usize,
    reversals: usize,
    previous_offset: u64,
    are_unsatisfiable: bool,
}

impl Selected {
    /// Adds a range. Those that it adjoins become one with it, in the place of the first.
    fn add(&mut self, span: Span) {
        self.overlaps += usize::from(self.spans.iter().any(|other| other.overlaps(span)));
        self.reversals += usize::from(span.offset < self.previous_offset);
        self.previous_offset = span.offset;
        let mut united = span;
        let mut place = None;
        // What it grows by may adjoin others in turn.
        while let Some(index) = self.spans.iter().position(|other| other.adjoins(united)) {
            united = united.united(self.spans.remove(index));
            place = Some(place.unwrap_or(index).min(index));
        }
        self.spans.insert(place.unwrap_or(self.spans.len()), united);
    }
}

enum Range {
    Span(Span),
    Unsatisfiable,
}

/// `int-range` or `suffix-range` (RFC 9110 §14.1.2); `None` if it is neither, or ends before it begins.
fn parse(range: &[u8], file_bytes: u64) -> Option<Range> {
    let dash = memchr::memchr(b'-', range)?;
    let (first, last) = (&range[..dash], &range[dash + 1..]);
    if first.is_empty() {
        let length = match number(last)? {
            0 => return Some(Range::Unsatisfiable),
            length => length.min(file_bytes),
        };
        // The last bytes of an empty file can be had, and are none: no part of it can be stated, but the whole.
        return (length > 0).then_some(Range::Span(Span { offset: file_bytes - length, length }));
    }
    let offset = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < offset {
        return None;
    }
    if offset >= file_bytes {
        return Some(Range::Unsatisfiable);
    }
    // Not beyond `u64`: the last byte of a file is below its length.
    let length = last.min(file_bytes - 1) - offset + 1;
    Some(Range::Span(Span { offset, length }))
}

/// Digits; a number that is too large is as large as any.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = digits.iter().map(|digit| u64::from(digit - b'0'));
    Some(digits.fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(digit)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What is selected, as first and last byte of each.
    fn selected(value: &str, file_bytes: u64) -> Result<Vec<(u64, u64)>, Selection> {
        let pair = |span: Span| (span.offset, span.end() - 1);
        match select(value.as_bytes(), file_bytes) {
            Selection::One(span) => Ok(vec![pair(span)]),
            Selection::Several(spans) => Ok(spans.into_iter().map(pair).collect()),
            other => Err(other),
        }
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        use Selection::{Unsatisfiable, Whole};
        for (value, expected) in [
            // The examples of RFC 9110 §14.1.2, of 10,000 bytes.
            ("bytes=0-499", Ok(vec![(0, 499)])),
            ("bytes=500-999", Ok(vec![(500, 999)])),
            ("bytes=-500", Ok(vec![(9500, 9999)])),
            ("bytes=9500-", Ok(vec![(9500, 9999)])),
            ("bytes=0-0,-1", Ok(vec![(0, 0), (9999, 9999)])),
            ("bytes= 0-999, 4500-5499, -1000", Ok(vec![(0, 999), (4500, 5499), (9000, 9999)])),
            ("bytes=500-600,601-999", Ok(vec![(500, 999)])),
            ("bytes=500-700,601-999", Ok(vec![(500, 999)])),
            // "If the last-pos value is absent, or is greater than or equal to the current length": to the end.
            ("bytes=9999-10000", Ok(vec![(9999, 9999)])),
            ("bytes=0-18446744073709551615", Ok(vec![(0, 9999)])),
            ("bytes=0-99999999999999999999999", Ok(vec![(0, 9999)])),
            ("bytes=-18446744073709551616", Ok(vec![(0, 9999)])),
            ("BYTES=1-2", Ok(vec![(1, 2)])),
            ("bytes=,1-2,,", Ok(vec![(1, 2)])),
            // In the order in which they were asked for, without what can't be had.
            ("bytes=9000-9001,1-2,10000-", Ok(vec![(9000, 9001), (1, 2)])),
            ("bytes=10000-,1-2", Ok(vec![(1, 2)])),
            // As near as the head of a part is long, and one further.
            ("bytes=0-0,81-81", Ok(vec![(0, 81)])),
            ("bytes=0-0,82-82", Ok(vec![(0, 0), (82, 82)])),
            // One that unites two others, in the place of the first.
            ("bytes=0-9,5000-5009,1000-1009,0-1000", Ok(vec![(0, 1009), (5000, 5009)])),
            ("bytes=10000-", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
            ("bytes=-0,99999-", Err(Unsatisfiable)),
            ("bytes=99999999999999999999-", Err(Unsatisfiable)),
            // Ignored as a whole if a part of it is none.
            ("bytes=5-2", Err(Whole)),
            ("bytes=0-1,5-2", Err(Whole)),
            ("bytes=abc", Err(Whole)),
            ("bytes=-", Err(Whole)),
            ("bytes=--1", Err(Whole)),
            ("bytes=1-2-3", Err(Whole)),
            ("bytes=+1-2", Err(Whole)),
            ("bytes=1 - 2", Err(Whole)),
            ("bytes=0x1-2", Err(Whole)),
            ("bytes=", Err(Whole)),
            ("bytes=,", Err(Whole)),
            ("bytes", Err(Whole)),
            ("bytes 0-1", Err(Whole)),
            ("bytes =0-1", Err(Whole)),
            ("items=0-1", Err(Whole)),
            ("", Err(Whole)),
        ] {
            assert_eq!(selected(value, 10_000), expected, "{value}");
        }
    }

    #[test]
    fn of_an_empty_file_there_is_nothing_to_be_had() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
            assert_eq!(selected(value, 0), Err(Selection::Unsatisfiable), "{value}");
        }
        assert_eq!(selected("bytes=-1", 0), Err(Selection::Whole));
    }

    #[test]
    fn a_request_that_wants_too_much_gets_the_whole() {
        let list = |ranges: &[String]| selected(&format!("bytes={}", ranges.join(",")), 1_000_000);
        let apart: Vec<_> = (0..=200).map(|at| format!("{0}-{0}", at * 1000)).collect();
        assert_eq!(list(&apart[..200]).map(|parts| parts.len()), Ok(200));
        assert_eq!(list(&apart), Err(Selection::Whole));
        let overlapping: Vec<_> =
            (0..=21).map(|at| format!("{}-{}", at * 1000, at * 1000 + 1000)).collect();
        assert_eq!(list(&overlapping[..21]).map(|parts| parts.len()), Ok(1));
        assert_eq!(list(&overlapping), Err(Selection::Whole));
        let backwards: Vec<_> = (0..=21).rev().map(|at| format!("{0}-{0}", at * 1000)).collect();
        assert_eq!(list(&backwards[..21]).map(|parts| parts.len()), Ok(21));
        assert_eq!(list(&backwards), Err(Selection::Whole));
        assert_eq!(selected(&format!("bytes={}", "0-,".repeat(1300)), 10), Err(Selection::Whole));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each byte that was asked for is sent once, and hardly any other.
        #[test]
        fn what_is_selected_is_what_was_asked_for(
            file_bytes in 1_u64..3000,
            asked in vec((0_u64..3200, 0_u64..200), 1..20),
        ) {
            let list: Vec<_> =
                asked.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let spans = match select(format!("bytes={}", list.join(", ")).as_bytes(), file_bytes) {
                Selection::One(span) => vec![span],
                Selection::Several(spans) => spans,
                Selection::Unsatisfiable => {
                    prop_assert!(asked.iter().all(|(first, _)| *first >= file_bytes));
                    return Ok(());
                }
                Selection::Whole => return Ok(()),
            };
            let sent = |byte: u64| {
                spans.iter().filter(|span| (span.offset..span.end()).contains(&byte)).count()
            };
            let wanted =
                |byte: u64| asked.iter().any(|(first, more)| (*first..=first + more).contains(&byte));
            for byte in 0..file_bytes {
                prop_assert!(sent(byte) <= 1, "{byte}");
                prop_assert!(sent(byte) == 1 || !wanted(byte), "{byte}");
            }
            for span in &spans {
                prop_assert!(span.length > 0 && span.end() <= file_bytes);
                prop_assert!(wanted(span.offset) && wanted(span.end() - 1), "{span:?}");
            }
        }

        #[test]
        fn no_value_is_too_odd(value in "(bytes=)?[-0-9, \t\"=a]{0,40}", file_bytes in any::<u64>()) {
            if let Selection::One(span) = select(value.as_bytes(), file_bytes) {
                prop_assert!(span.offset.checked_add(span.length).is_some_and(|end| end <= file_bytes));
            }
        }
    }
}
