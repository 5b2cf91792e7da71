//! Lists in field values (RFC 9110 §5.6.1), their parameters and weights (§12.4.2).

/// A weight (`q`) in thousandths.
pub(in super::super) type Weight = u16;

/// What a weight is if none is stated.
pub(in super::super) const WEIGHT_MAX: Weight = 1000;

/// The elements of the lists that these values are, without the white space around them. Empty ones are left out. A
/// comma within quotes separates nothing.
pub(in super::super) fn elements<'v>(
    values: impl Iterator<Item = &'v [u8]>,
) -> impl Iterator<Item = &'v [u8]> {
    values.flat_map(|value| split(value, b',')).filter(|element| !element.is_empty())
}

/// Splits at each `separator` that stands in no quoted string (RFC 9110 §5.6.4).
pub(in super::super) fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let mut is_quoted = false;
        let mut is_escaped = false;
        let end = value.iter().position(|byte| {
            let was_escaped = std::mem::take(&mut is_escaped);
            match byte {
                b'"' if !was_escaped => is_quoted = !is_quoted,
                b'\\' if is_quoted && !was_escaped => is_escaped = true,
                _ => {}
            }
            *byte == separator && !is_quoted
        });
        let (part, after) = match end {
            Some(end) => (&value[..end], Some(&value[end + 1..])),
            None => (value, None),
        };
        rest = after;
        Some(part.trim_ascii())
    })
}

/// The weight among these parameters; `None` if it is malformed.
pub(in super::super) fn weight<'v>(
    mut parameters: impl Iterator<Item = &'v [u8]>,
) -> Option<Weight> {
    let stated = parameters.find_map(|parameter| match parameter {
        [b'q' | b'Q', b'=', value @ ..] => Some(value),
        _ => None,
    });
    stated.map_or(Some(WEIGHT_MAX), thousandths)
}

/// `qvalue` (RFC 9110 §12.4.2): 0 to 1, with three digits behind the point at most.
fn thousandths(value: &[u8]) -> Option<Weight> {
    let (whole, digits) = match value {
        [whole, b'.', digits @ ..] => (whole, digits),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| Weight::from(digits.get(at).map_or(0, |digit| digit - b'0'));
    let fraction = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b'0' => Some(fraction),
        b'1' if fraction == 0 => Some(WEIGHT_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_over_lines_without_empty_elements_and_not_within_quotes() {
        let values: [&[u8]; 3] = [b"a, b\t,,", b"", br#" "x,\",y" ,c"#];
        let found: Vec<_> = elements(values.into_iter()).collect();
        assert_eq!(found, [&b"a"[..], b"b", br#""x,\",y""#, b"c"]);
        // A quoted string that doesn't end lasts to the end of its own line.
        let values: [&[u8]; 2] = [b"\"a, b", b"c"];
        assert_eq!(elements(values.into_iter()).collect::<Vec<_>>(), [&b"\"a, b"[..], b"c"]);
    }

    #[test]
    fn a_weight_has_three_digits_at_most_and_is_one_at_most() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("Q=1.000", Some(1000)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=0.5", Some(500)),
            ("q=0.001", Some(1)),
            ("level=1", Some(1000)),
            ("q=1.001", None),
            ("q=2", None),
            ("q=0.0001", None),
            ("q=-1", None),
            ("q=.5", None),
            ("q=", None),
            ("q=0.x", None),
            ("q=0,5", None),
        ] {
            assert_eq!(weight([text.as_bytes()].into_iter()), expected, "{text}");
        }
        assert_eq!(weight(std::iter::empty()), Some(1000));
    }
}
