//! Conditional requests (RFC 9110 §13): whether a request that has conditions is answered as if it had none.

use std::time::UNIX_EPOCH;

use super::terms::Term;
use super::validators::{EntityTag, Validators};
use crate::http::Fields;

/// What the conditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered as if there were none.
    Proceed,
    /// 304: the client has what there is.
    NotModified,
    /// 412: the client wanted something else than there is.
    Failed,
}

/// Holds conditions against a file that is there, in the order of RFC 9110 §13.2.2.
pub(super) fn evaluate(fields: Fields<'_>, validators: &Validators) -> Verdict {
    let modified_s = validators.modified_s;
    // Steps 1 and 2. A date counts only where there is no tag in its place, it is one, and the file has one.
    let has_if_match = Term::IfMatch.is_in(fields);
    let unmodified_since = date(fields, Term::IfUnmodifiedSince).zip(modified_s);
    let is_wanted = match unmodified_since {
        _ if has_if_match => lists(fields, Term::IfMatch, validators, EntityTag::equals_strongly),
        Some((since, modified)) => modified <= since,
        None => true,
    };
    if !is_wanted {
        return Verdict::Failed;
    }
    // Steps 3 and 4.
    let has_if_none_match = Term::IfNoneMatch.is_in(fields);
    let modified_since = date(fields, Term::IfModifiedSince).zip(modified_s);
    let is_known = match modified_since {
        _ if has_if_none_match => {
            lists(fields, Term::IfNoneMatch, validators, EntityTag::equals_weakly)
        }
        Some((since, modified)) => modified <= since,
        None => false,
    };
    if is_known { Verdict::NotModified } else { Verdict::Proceed }
}

/// Whether the ranges that a request wants are still those of what it has a part of: step 5, `If-Range` (RFC 9110
/// §13.1.5). By strong comparison alone; a date is a strong validator only some time after it.
pub(super) fn has_same(fields: Fields<'_>, validators: &Validators) -> bool {
    if !Term::IfRange.is_in(fields) {
        return true;
    }
    let Some(value) = Term::IfRange.value(fields) else { return false };
    if value.ends_with(b"\"") {
        let found = Tags::of(value).next();
        return found
            .zip(validators.tag.as_ref())
            .is_some_and(|(found, tag)| found.is_alone && tag.equals_strongly(&found));
    }
    let stated = date(fields, Term::IfRange);
    validators.is_date_strong && stated.is_some() && stated == validators.modified_s
}

/// Whether a list has the tag of the file, or `*`, which stands for any file.
fn lists(
    fields: Fields<'_>,
    term: Term,
    validators: &Validators,
    equals: fn(&EntityTag, &Tag<'_>) -> bool,
) -> bool {
    if term.value(fields) == Some(b"*") {
        return true;
    }
    let Some(tag) = &validators.tag else { return false };
    term.values(fields).flat_map(Tags::of).any(|other| equals(tag, &other))
}

/// The date that a field states, in seconds since the epoch; none, if it is no date, or not one alone.
fn date(fields: Fields<'_>, term: Term) -> Option<u64> {
    let value = std::str::from_utf8(term.value(fields)?).ok()?;
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// A tag in a request.
struct Tag<'v> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'v [u8],
    /// Whether nothing is behind it.
    is_alone: bool,
}

/// The tags of a list, up to what is none. Not split at commas: a tag may have some, and backslashes escape nothing in it
/// (RFC 9110 §8.8.3).
struct Tags<'v>(&'v [u8]);

impl<'v> Tags<'v> {
    fn of(value: &'v [u8]) -> Tags<'v> {
        Tags(value)
    }
}

impl<'v> Iterator for Tags<'v> {
    type Item = Tag<'v>;

    fn next(&mut self) -> Option<Tag<'v>> {
        let start = self.0.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        let rest = &std::mem::take(&mut self.0)[start..];
        let (is_weak, rest) = match rest.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let content = rest.strip_prefix(b"\"")?;
        let (opaque, after) = rest.split_at(memchr::memchr(b'"', content)? + 2);
        if matches!(after.first(), None | Some(b',' | b' ' | b'\t')) {
            self.0 = after;
        }
        Some(Tag { is_weak, opaque, is_alone: after.is_empty() })
    }
}

impl EntityTag {
    fn equals_strongly(&self, other: &Tag<'_>) -> bool {
        !self.is_weak() && !other.is_weak && self.opaque() == other.opaque
    }

    fn equals_weakly(&self, other: &Tag<'_>) -> bool {
        self.opaque() == other.opaque
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::response::tests::with_request;
    use super::super::validators::Metadata;
    use super::Verdict::*;
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, as in RFC 9110 §5.6.7.
    const MODIFIED_S: u64 = 784_111_777;
    const TAG: &str = "\"2ebc98a1.7-a\"";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators(modified_s: u64, age: Duration) -> Validators {
        let metadata = Metadata { size: 10, modified_s: modified_s as i64, modified_ns: 7 };
        Validators::new(&metadata, None, None, Duration::new(modified_s, 7) + age)
    }

    fn settled() -> Validators {
        validators(MODIFIED_S, Duration::from_secs(60))
    }

    fn fresh() -> Validators {
        validators(MODIFIED_S, Duration::ZERO)
    }

    /// The field lines of a case; `TAG` and the dates stand in it by name.
    fn lines(text: &str) -> String {
        let text = text.replace("TAG", TAG).replace("BEFORE", BEFORE).replace("AFTER", AFTER);
        text.replace("DATE", DATE).replace("; ", "\r\n") + "\r\n"
    }

    fn verdict(text: &str, validators: &Validators) -> Verdict {
        with_request("GET", "/", &lines(text), |request| evaluate(request.fields, validators))
    }

    #[test]
    fn conditions_are_held_against_a_file_in_the_order_of_the_rfc() {
        for (text, expected) in [
            ("X: y", Proceed),
            // §13.1.1: strong comparison, a list, any.
            ("If-Match: TAG", Proceed),
            ("If-Match: \"x\", TAG", Proceed),
            ("If-Match: \"x\"; If-Match: TAG", Proceed),
            ("If-Match: *", Proceed),
            ("If-Match: W/TAG", Failed),
            ("If-Match: \"x\"", Failed),
            ("If-Match: x", Failed),
            ("If-Match:", Failed),
            ("If-Match: *, \"x\"", Failed),
            // §13.1.4: "MUST ignore If-Unmodified-Since if the request contains an If-Match header field", "if the received
            // field value is not a valid HTTP-date".
            ("If-Unmodified-Since: DATE", Proceed),
            ("If-Unmodified-Since: AFTER", Proceed),
            ("If-Unmodified-Since: BEFORE", Failed),
            ("If-Unmodified-Since: yesterday", Proceed),
            ("If-Unmodified-Since: BEFORE; If-Unmodified-Since: BEFORE", Proceed),
            ("If-Unmodified-Since: BEFORE; If-Match: TAG", Proceed),
            ("If-Unmodified-Since: AFTER; If-Match: \"x\"", Failed),
            // §13.1.2: weak comparison, a list, any.
            ("If-None-Match: TAG", NotModified),
            ("If-None-Match: W/TAG", NotModified),
            ("If-None-Match: \"x,\\\", W/\"y\" ,\t,TAG", NotModified),
            ("If-None-Match: \"x\"; If-None-Match: TAG", NotModified),
            ("If-None-Match: *", NotModified),
            ("If-None-Match: \"x\"", Proceed),
            ("If-None-Match: w/TAG", Proceed),
            ("If-None-Match: 2ebc98a1.7-a", Proceed),
            ("If-None-Match: \"x\"TAG", Proceed),
            ("If-None-Match:", Proceed),
            // §13.1.3: "MUST ignore If-Modified-Since if the request contains an If-None-Match header field", or no date.
            ("If-Modified-Since: DATE", NotModified),
            ("If-Modified-Since: AFTER", NotModified),
            ("If-Modified-Since: BEFORE", Proceed),
            ("If-Modified-Since: now", Proceed),
            ("If-Modified-Since: DATE; If-None-Match: \"x\"", Proceed),
            ("If-Modified-Since: BEFORE; If-None-Match: TAG", NotModified),
            // All three forms of a date, and none that says another day than it is.
            ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", NotModified),
            ("If-Modified-Since: Sun Nov  6 08:49:37 1994", NotModified),
            ("If-Modified-Since: Sun, 07 Nov 1994 08:49:37 GMT", Proceed),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 UTC", Proceed),
            // What fails first decides; what doesn't is followed by the next step.
            ("If-Match: \"x\"; If-None-Match: TAG", Failed),
            ("If-Match: TAG; If-None-Match: TAG", NotModified),
            ("If-Unmodified-Since: BEFORE; If-Modified-Since: DATE", Failed),
            ("If-Unmodified-Since: DATE; If-Modified-Since: DATE", NotModified),
        ] {
            assert_eq!(verdict(text, &settled()), expected, "{text}");
        }
    }

    #[test]
    fn without_a_tag_or_a_date_conditions_on_it_are_never_met() {
        let none = validators(1, Duration::from_secs(60));
        assert_eq!((&none.tag, none.modified_s), (&None, None));
        for (text, expected) in [
            ("If-Match: TAG", Failed),
            ("If-Match: *", Proceed),
            ("If-None-Match: TAG", Proceed),
            ("If-None-Match: *", NotModified),
            ("If-Modified-Since: AFTER", Proceed),
            ("If-Unmodified-Since: BEFORE", Proceed),
        ] {
            assert_eq!(verdict(text, &none), expected, "{text}");
        }
    }

    #[test]
    fn a_weak_tag_is_good_for_a_304_alone() {
        let fresh = fresh();
        let tag = fresh.tag.as_ref().expect("a tag").text();
        assert!(tag.starts_with("W/"), "{tag}");
        assert_eq!(verdict(&format!("If-None-Match: {tag}"), &fresh), NotModified);
        assert_eq!(verdict(&format!("If-Match: {tag}"), &fresh), Failed);
        assert_eq!(verdict(&format!("If-None-Match: {tag}"), &settled()), Proceed);
    }

    #[test]
    fn ranges_are_given_of_what_is_surely_the_same() {
        for (text, expected) in [
            ("X: y", true),
            ("If-Range: TAG", true),
            ("If-Range: W/TAG", false),
            ("If-Range: \"x\"", false),
            ("If-Range: \"x\", TAG", false),
            ("If-Range: TAG, \"x\"", false),
            ("If-Range: TAG; If-Range: TAG", false),
            ("If-Range: *", false),
            ("If-Range:", false),
            // "exactly matches": neither before nor after.
            ("If-Range: DATE", true),
            ("If-Range: BEFORE", false),
            ("If-Range: AFTER", false),
            ("If-Range: yesterday", false),
        ] {
            let is_same = |validators: &Validators| {
                with_request("GET", "/", &lines(text), |request| {
                    has_same(request.fields, validators)
                })
            };
            assert_eq!(is_same(&settled()), expected, "{text}");
            // Within the second of the change neither the tag nor the date is strong.
            assert_eq!(is_same(&fresh()), text == "X: y", "{text}");
        }
        let none = validators(1, Duration::from_secs(60));
        let date = "If-Range: Thu, 01 Jan 1970 00:00:01 GMT\r\n";
        assert!(!with_request("GET", "/", date, |request| has_same(request.fields, &none)));
    }
}
