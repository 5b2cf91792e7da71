//! A second decoder of chunked bodies, as plain as RFC 9112 §7.1 reads: whole input, one line after the other.

/// The content and the length of a complete chunked body at the start of `input`. Extensions and trailers are
/// cut off unread, so this accepts more than it should; it never finds another content or another end.
pub(crate) fn decode(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        let (line, next) = line(input, at)?;
        let digits = match line.iter().position(|byte| *byte == b';') {
            Some(semicolon) => line[..semicolon].trim_ascii_end(),
            None => line,
        };
        let digits = std::str::from_utf8(digits).ok()?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        at = next;
        if significant.is_empty() {
            break;
        }
        let size = usize::from_str_radix(significant, 16).ok()?;
        let end = at.checked_add(size)?;
        content.extend_from_slice(input.get(at..end)?);
        if input.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let (line, next) = line(input, at)?;
        at = next;
        if line.is_empty() {
            return Some((content, at));
        }
    }
}

/// The line at `at` without its CRLF, and where the next begins.
fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..end], at + end + 2))
}
