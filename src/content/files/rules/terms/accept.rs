//! Which media types a request accepts (RFC 9110 §12.5.1).

use super::Term;
use super::list::{WEIGHT_MAX, Weight, elements, split, weight};
use crate::http::Fields;

/// How much a request wants a media type, `kind` `/` `subtype`, in thousandths; 0: not at all. The range that says most
/// about the type counts. Ranges with parameters of a type are for that form of it alone, and say nothing about others.
pub(in super::super) fn quality(fields: Fields<'_>, kind: &str, subtype: &str) -> Weight {
    if !Term::Accept.is_in(fields) {
        return WEIGHT_MAX;
    }
    let is = |name: &[u8], expected: &str| name.eq_ignore_ascii_case(expected.as_bytes());
    let ranges = elements(Term::Accept.values(fields)).filter_map(|element| {
        let mut parts = split(element, b';');
        let range = parts.next()?;
        let slash = memchr::memchr(b'/', range)?;
        let (range_kind, range_subtype) = (&range[..slash], &range[slash + 1..]);
        let precision = match (is(range_kind, kind), is(range_subtype, subtype)) {
            (true, true) => 3,
            (true, false) if range_subtype == b"*" => 2,
            _ if range == b"*/*" => 1,
            _ => return None,
        };
        let mut parameters = parts.filter(|parameter| !parameter.is_empty()).peekable();
        let is_plain = parameters.peek().is_none_or(|first| first[0].eq_ignore_ascii_case(&b'q'));
        if !is_plain {
            return None;
        }
        Some((precision, weight(parameters)?))
    });
    ranges.max_by_key(|(precision, _)| *precision).map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::super::super::response::tests::with_request;
    use super::*;

    #[test]
    fn the_most_specific_range_counts() {
        // The example of RFC 9110 §12.5.1, and what clients send.
        let example = "Accept: text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, \
                       text/plain;format=fixed;q=0.4, */*;q=0.5\r\n";
        let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,\
                       image/webp,*/*;q=0.8\r\n";
        for (lines, media_type, expected) in [
            (example, "text/plain", 700),
            (example, "text/html", 300),
            (example, "image/jpeg", 500),
            (browser, "text/html", 1000),
            (browser, "application/json", 800),
            ("", "text/html", 1000),
            ("Accept:\r\n", "text/html", 0),
            ("Accept: application/json\r\n", "text/html", 0),
            ("Accept: application/json\r\nAccept: Text/HTML;Q=0.2\r\n", "text/html", 200),
            ("Accept: */*, text/html;q=0\r\n", "text/html", 0),
            ("Accept: */json, */ *, html\r\n", "text/html", 0),
            ("Accept: text/html;q=2, */*;q=0.1\r\n", "text/html", 100),
            ("Accept: text/html;level=\"1,2\", a/b\r\n", "text/html", 0),
        ] {
            let (kind, subtype) = media_type.split_once('/').expect("a type");
            let found =
                with_request("GET", "/", lines, |request| quality(request.fields, kind, subtype));
            assert_eq!(found, expected, "{media_type} by {lines}");
        }
    }
}
