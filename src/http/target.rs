//! The request target: its form, its host, and its path decoded once (RFC 9112 §3.2, RFC 9110 §4.2).

use std::borrow::Cow;

use super::method::Method;
use super::refusal::Refusal;
use super::token::letters_digits_and;

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub struct Target<'b> {
    /// As it stands in the request line.
    pub raw: &'b [u8],
    /// The path, percent-decoded once, without repeated slashes (`Limits::merge_slashes`) and dot segments; `*` for
    /// `OPTIONS *`.
    pub path: Cow<'b, [u8]>,
    /// What follows the first `?`, as it came.
    pub query: Option<&'b [u8]>,
    /// The host without its port: that of an absolute target, else that of the Host field. What needed no
    /// percent-encoding has lost it (RFC 3986 §6.2.2.2); its case is as it came.
    pub host: Cow<'b, [u8]>,
}

const SYNTAX: Refusal = Refusal::bad_request("the request target is malformed");
const HOST: Refusal = Refusal::bad_request("the host is malformed");

/// Parses `raw` for a request whose Host field is `host_field` (empty if it has none).
pub(super) fn parse<'b>(
    method: Method<'_>,
    raw: &'b [u8],
    host_field: &'b [u8],
    merge_slashes: bool,
) -> Result<Target<'b>, Refusal> {
    let host = host(host_field)?;
    if raw[0] == b'/' {
        let (path, query) = path_and_query(raw, merge_slashes)?;
        return Ok(Target { raw, path, query, host });
    }
    if raw == b"*" && method == Method::Options {
        let path = Cow::Borrowed(raw);
        return Ok(Target { raw, path, query: None, host });
    }
    // An absolute target overrides the Host field (RFC 9112 §3.2.2).
    let (is_secure, rest) = strip_scheme(raw).ok_or(SYNTAX)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let host = self::host(authority)?;
    if host.is_empty() {
        return Err(HOST);
    }
    let (path, query) = match rest {
        [b'/', ..] => path_and_query(rest, merge_slashes)?,
        _ => (Cow::Borrowed(&b"/"[..]), path_and_query(rest, merge_slashes)?.1),
    };
    if is_secure {
        return Err(Refusal::MISDIRECTED);
    }
    Ok(Target { raw, path, query, host })
}

/// The answer to a CONNECT: there is no tunnel here, and a bad authority is the client's mistake.
pub(super) fn refuse_connect(authority: &[u8]) -> Refusal {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let port = colon.map_or(&[][..], |colon| &authority[colon + 1..]);
    match host(authority) {
        Ok(host) if !host.is_empty() && !port.is_empty() => Refusal::METHOD,
        _ => SYNTAX,
    }
}

/// Whether the scheme is `https`, and what follows it.
fn strip_scheme(raw: &[u8]) -> Option<(bool, &[u8])> {
    let strip = |scheme: &[u8]| {
        let (start, rest) = raw.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let plain = strip(b"http://").map(|rest| (false, rest));
    plain.or_else(|| strip(b"https://").map(|rest| (true, rest)))
}

type PathAndQuery<'b> = (Cow<'b, [u8]>, Option<&'b [u8]>);

/// Splits at the first `?`, checks every byte, and normalises the path if it needs it.
fn path_and_query(raw: &[u8], merge_slashes: bool) -> Result<PathAndQuery<'_>, Refusal> {
    // Visible ASCII but the fragment's sign, and the bytes of UTF-8, which browsers' address bars encode
    // and command lines often don't.
    let is_allowed = |byte: &u8| !matches!(byte, 0..=0x20 | 0x7f | b'#');
    let mut is_plain = true;
    let mut before = 0;
    let mut end = raw.len();
    // One pass finds the mark, and whether there is anything to normalise: in most paths there is not.
    for (at, byte) in raw.iter().enumerate() {
        if *byte == b'?' {
            end = at;
            break;
        }
        if !is_allowed(byte) {
            return Err(SYNTAX);
        }
        is_plain &= *byte != b'%' && !is_odd(before, *byte, merge_slashes);
        before = *byte;
    }
    let (path, query) = raw.split_at(end);
    if !query.iter().all(is_allowed) {
        return Err(SYNTAX);
    }
    let path =
        if is_plain { Cow::Borrowed(path) } else { Cow::Owned(normalise(path, merge_slashes)?) };
    Ok((path, query.get(1..)))
}

/// Whether these two bytes may begin a segment `.` or `..`, or one that is empty and left out.
fn is_odd(before: u8, byte: u8, merge_slashes: bool) -> bool {
    before == b'/' && (byte == b'.' || merge_slashes && byte == b'/')
}

/// Decodes percent-encoding once, then merges slashes and removes dot segments (RFC 3986 §5.2.4), in that order, so
/// that an encoded dot or slash can't hide a climb, and `//..` climbs as it does in a file system. A climb above the
/// root is refused, not clamped.
fn normalise(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, Refusal> {
    let decoded = percent_decode(path)?;
    if !decoded.windows(2).any(|pair| is_odd(pair[0], pair[1], merge_slashes)) {
        return Ok(decoded);
    }
    let mut output: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
            b"" if merge_slashes => {}
            b".." => {
                let parent = output.iter().rposition(|byte| *byte == b'/').ok_or(SYNTAX)?;
                output.truncate(parent);
            }
            _ => {
                output.push(b'/');
                output.extend_from_slice(segment);
                continue;
            }
        }
        // A dot segment or a slash at the end names a folder: what is left keeps its slash.
        if last {
            output.push(b'/');
        }
    }
    Ok(output)
}

fn percent_decode(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        match escaped(rest) {
            None | Some((0, _)) => return Err(SYNTAX),
            Some((byte, after)) => {
                rest = after;
                decoded.push(byte);
            }
        }
    }
    Ok(decoded)
}

/// The byte that two hexadecimal digits behind a `%` stand for, and what follows them.
fn escaped(rest: &[u8]) -> Option<(u8, &[u8])> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let [high, low, after @ ..] = rest else {
        return None;
    };
    Some((hex(*high)? << 4 | hex(*low)?, after))
}

/// Checks `uri-host [":" port]` (RFC 9110 §7.2) and returns the host alone, normalised. Nothing at all is allowed here,
/// a port without a host is not (§4.2.1).
fn host(value: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    let is_literal = value.starts_with(b"[");
    let end = if is_literal {
        memchr::memchr(b']', value).ok_or(HOST)? + 1
    } else {
        memchr::memchr(b':', value).unwrap_or(value.len())
    };
    let (host, port) = value.split_at(end);
    if !is_port(port) || host.is_empty() && !port.is_empty() {
        return Err(HOST);
    }
    if is_literal {
        return if is_address(&host[1..end - 1]) { Ok(Cow::Borrowed(host)) } else { Err(HOST) };
    }
    if host.iter().all(|byte| is_name_byte(*byte)) {
        return Ok(Cow::Borrowed(host));
    }
    decode_name(host).map(Cow::Owned).ok_or(HOST)
}

/// Nothing, or a colon and any digits for 0 to 65,535 (RFC 3986 §3.2.3).
fn is_port(port: &[u8]) -> bool {
    let [b':', digits @ ..] = port else {
        return port.is_empty();
    };
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit as u16)
    });
    number.is_some()
}

/// What stands in the brackets: an IPv6 address, or `v1.x` of a version to come (RFC 3986 §3.2.2).
fn is_address(address: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = address {
        let dot = memchr::memchr(b'.', future).unwrap_or(0);
        let (version, rest) = future.split_at(dot);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && rest.len() > 1
            && rest.iter().all(|byte| *byte == b':' || is_name_byte(*byte));
    }
    let text = std::str::from_utf8(address).unwrap_or_default();
    text.parse::<core::net::Ipv6Addr>().is_ok()
}

/// What may stand in a registered name as it is (RFC 3986 §3.2.2), without the comma, which a list of hosts would have.
fn is_name_byte(byte: u8) -> bool {
    const NAME: [bool; 256] = letters_digits_and(b"-._~!$&'()*+;=");
    NAME[usize::from(byte)]
}

/// A registered name in which what needs no percent-encoding has none (RFC 3986 §6.2.2.2). Other escapes stay: decoded,
/// a slash or a colon would make another host of it.
fn decode_name(name: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        match byte {
            b'%' => {
                let (byte, behind) = escaped(after)?;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    decoded.push(byte);
                } else {
                    decoded.extend_from_slice(&rest[..3]);
                }
                rest = behind;
            }
            _ if is_name_byte(*byte) => {
                decoded.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(decoded)
}
