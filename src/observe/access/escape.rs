//! Bytes that a client has sent, as text of a log line: whatever they are, they are one line, and end neither a text in
//! quotes nor an object of JSON. They are cut at so many bytes of what comes out, and end with [`CUT`] then.

/// Stands where a text was cut.
pub(super) const CUT: &str = "…";
/// The same in ASCII.
pub(super) const CUT_ASCII: &str = "...";

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Adds what stands between the quotes of a string of JSON, in UTF-8: `bytes_max` bytes at most. Quotes, backslashes, C0,
/// DEL and C1 controls and U+2028 and U+2029, which some programs take for line ends, are escaped; what isn't UTF-8 becomes
/// U+FFFD.
pub(super) fn put_json(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) {
    if text.len() <= bytes_max && is_plain(text) {
        return out.extend_from_slice(text);
    }
    let end = out.len() + bytes_max;
    // Where there is room for the mark still.
    let mut fits = out.len();
    let mut piece = [0; 4];
    for chunk in text.utf8_chunks() {
        let invalid = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for character in chunk.valid().chars().chain(invalid) {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let code = character as usize;
                    let digits = [12, 8, 4, 0].map(|shift| HEX[code >> shift & 0xf]);
                    out.extend_from_slice(b"\\u");
                    out.extend_from_slice(&digits);
                }
                plain => out.extend_from_slice(plain.encode_utf8(&mut piece).as_bytes()),
            }
            if out.len() > end {
                out.truncate(fits);
                return out.extend_from_slice(CUT.as_bytes());
            }
            if out.len() + CUT.len() <= end {
                fits = out.len();
            }
        }
    }
}

/// Whether nothing in a text has to be escaped in either format, as in most.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    words.iter().all(|word| are_plain(u64::from_le_bytes(*word)))
        && rest.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// The same of eight bytes at once.
fn are_plain(word: u64) -> bool {
    let each = |byte: u8| u64::from_le_bytes([byte; 8]);
    // The highest bit of a byte stays clear in `x - 1` unless one was borrowed for it, which 0 is the first to do.
    let has_zero = |word: u64| word.wrapping_sub(each(1)) & !word;
    let below_space = word.wrapping_sub(each(b' ')) & !word;
    let is = |byte: u8| has_zero(word ^ each(byte));
    (below_space | is(b'"') | is(b'\\') | is(0x7f) | word) & each(0x80) == 0
}

/// Adds what stands between the quotes of a field of the combined format, in ASCII, as nginx and Apache do: `bytes_max`
/// bytes at most. Quotes, backslashes and all that isn't visible ASCII are `\xXX`. If there is nothing, a dash.
pub(super) fn put_combined(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) {
    if text.is_empty() {
        return out.push(b'-');
    }
    if text.len() <= bytes_max && is_plain(text) {
        return out.extend_from_slice(text);
    }
    let end = out.len() + bytes_max;
    let mut fits = out.len();
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                let digits = [4, 0].map(|shift| HEX[usize::from(byte >> shift & 0xf)]);
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&digits);
            }
            plain => out.push(*plain),
        }
        if out.len() > end {
            out.truncate(fits);
            return out.extend_from_slice(CUT_ASCII.as_bytes());
        }
        if out.len() + CUT_ASCII.len() <= end {
            fits = out.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &[u8], bytes_max: usize) -> String {
        let mut out = b"before".to_vec();
        put_json(&mut out, text, bytes_max);
        String::from_utf8(out.split_off(6)).expect("UTF-8")
    }

    fn combined(text: &[u8], bytes_max: usize) -> String {
        let mut out = b"before".to_vec();
        put_combined(&mut out, text, bytes_max);
        String::from_utf8(out.split_off(6)).expect("ASCII")
    }

    #[test]
    fn what_could_end_a_line_or_a_text_is_escaped() {
        for (text, in_json, in_combined) in [
            (&b"/plain?a=b"[..], "/plain?a=b", "/plain?a=b"),
            (b"", "", "-"),
            (b"a\"b\\c", "a\\\"b\\\\c", "a\\x22b\\x5cc"),
            (b"a\r\nb\tc\0", "a\\u000d\\u000ab\\u0009c\\u0000", "a\\x0d\\x0ab\\x09c\\x00"),
            (b"\x1b[31m\x7f", "\\u001b[31m\\u007f", "\\x1b[31m\\x7f"),
            (
                "\u{85}\u{9b}é\u{2028}".as_bytes(),
                "\\u0085\\u009bé\\u2028",
                "\\xc2\\x85\\xc2\\x9b\\xc3\\xa9\\xe2\\x80\\xa8",
            ),
            (b"\x85\x9b\xffx", "\u{fffd}\u{fffd}\u{fffd}x", "\\x85\\x9b\\xffx"),
        ] {
            assert_eq!(json(text, 99), in_json, "{}", text.escape_ascii());
            assert_eq!(combined(text, 99), in_combined, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_says_so() {
        assert_eq!(
            (json(b"12345678", 8).as_str(), json(b"123456789", 8).as_str()),
            ("12345678", "12345…")
        );
        assert_eq!(
            (combined(b"12345678", 8).as_str(), combined(b"123456789", 8).as_str()),
            ("12345678", "12345...")
        );
        // Neither an escape nor a character is cut in two.
        assert_eq!(
            (json(b"1234\n67", 12).as_str(), json(b"1234\n678", 12).as_str()),
            ("1234\\u000a67", "1234…")
        );
        assert_eq!(json("123éé".as_bytes(), 6), "123…");
        assert_eq!(combined(b"12\n4567", 8), "12...");
    }

    #[test]
    fn each_byte_that_is_special_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let is_special = !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\');
            for length in 1..20 {
                for at in 0..length {
                    for others in [b' ', b'!', b'#', b'~', b']'] {
                        let mut text = vec![others; length];
                        text[at] = byte;
                        assert_eq!(is_plain(&text), !is_special, "{byte} at {at} of {length}");
                    }
                }
            }
        }
        assert!(is_plain(b""));
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_that_a_parser_reads_back(text: Vec<u8>, bytes_max in 8_usize..64) {
            let whole = json(&text, usize::MAX / 2);
            let read: String = serde_json::from_str(&format!("\"{whole}\"")).expect("JSON");
            prop_assert_eq!(&read, &String::from_utf8_lossy(&text));
            for out in [whole, json(&text, bytes_max), combined(&text, usize::MAX / 2), combined(&text, bytes_max)] {
                prop_assert!(!out.contains(|of: char| of.is_control() || matches!(of, '\u{2028}' | '\u{2029}')), "{:?}", out);
            }
            let cut = json(&text, bytes_max);
            prop_assert!(cut.len() <= bytes_max);
            let read: String = serde_json::from_str(&format!("\"{cut}\"")).expect("JSON");
            let text_read = String::from_utf8_lossy(&text);
            prop_assert!(read == text_read || text_read.starts_with(read.strip_suffix('…').expect("a mark")));
            let cut = combined(&text, bytes_max);
            prop_assert!(cut.len() <= bytes_max && cut.is_ascii() && !cut.contains('"'));
        }
    }
}
