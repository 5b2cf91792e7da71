//! The request target: its form, its host, and its path decoded once (RFC 9112 §3.2, RFC 9110 §4.2).

use std::borrow::Cow;

use super::Refusal;
use super::head::Method;

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub struct Target<'b> {
    /// As it stands in the request line.
    pub raw: &'b [u8],
    /// The path, percent-decoded once and without dot segments; `*` for `OPTIONS *`.
    pub path: Cow<'b, [u8]>,
    /// What follows the first `?`, as it came.
    pub query: Option<&'b [u8]>,
    /// The host without its port, as it came: that of an absolute target, else that of the Host field.
    pub host: &'b [u8],
}

const SYNTAX: Refusal = Refusal::bad_request("the request target is malformed");
const HOST: Refusal = Refusal::bad_request("the host is malformed");

/// Parses `raw` for a request whose Host field is `host_field` (empty if it has none).
pub(super) fn parse<'b>(
    method: Method,
    raw: &'b [u8],
    host_field: &'b [u8],
) -> Result<Target<'b>, Refusal> {
    let host = host(host_field)?;
    if raw[0] == b'/' {
        let (path, query) = path_and_query(raw)?;
        return Ok(Target { raw, path, query, host });
    }
    if raw == b"*" && method == Method::Options {
        let path = Cow::Borrowed(raw);
        return Ok(Target { raw, path, query: None, host });
    }
    // An absolute target overrides the Host field (RFC 9112 §3.2.2).
    let rest = strip_scheme(raw).ok_or(SYNTAX)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let host = self::host(authority)?;
    if host.is_empty() {
        return Err(HOST);
    }
    let (path, query) = match rest {
        [] => (Cow::Borrowed(&b"/"[..]), None),
        [b'/', ..] => path_and_query(rest)?,
        _ => (Cow::Borrowed(&b"/"[..]), path_and_query(rest)?.1),
    };
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

fn strip_scheme(raw: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = raw.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

type PathAndQuery<'b> = (Cow<'b, [u8]>, Option<&'b [u8]>);

/// Splits at the first `?`, checks every byte, and normalises the path if it needs it.
fn path_and_query(raw: &[u8]) -> Result<PathAndQuery<'_>, Refusal> {
    // Visible ASCII but the fragment's sign, and the bytes of UTF-8, which browsers' address bars encode
    // and command lines often don't.
    if raw.iter().any(|byte| matches!(byte, 0..=0x20 | 0x7f | b'#')) {
        return Err(SYNTAX);
    }
    let (path, query) = match memchr::memchr(b'?', raw) {
        Some(mark) => (&raw[..mark], Some(&raw[mark + 1..])),
        None => (raw, None),
    };
    let plain = memchr::memchr(b'%', path).is_none() && !has_dot_segment(path);
    let path = if plain { Cow::Borrowed(path) } else { Cow::Owned(normalise(path)?) };
    Ok((path, query))
}

/// Whether a segment might be `.` or `..`: `/.` is in every such path.
fn has_dot_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"/.")
}

/// Decodes percent-encoding once, then removes dot segments (RFC 3986 §5.2.4), in that order, so that an
/// encoded dot or slash can't hide a climb. A climb above the root is refused, not clamped.
fn normalise(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let decoded = percent_decode(path)?;
    if !has_dot_segment(&decoded) {
        return Ok(decoded);
    }
    let mut output: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
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
        // A dot segment at the end names a folder: what is left keeps its slash.
        if last {
            output.push(b'/');
        }
    }
    Ok(output)
}

fn percent_decode(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return Err(SYNTAX);
        };
        rest = after;
        match (hex(*high), hex(*low)) {
            (Some(0), Some(0)) | (None, _) | (_, None) => return Err(SYNTAX),
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
        }
    }
    Ok(decoded)
}

/// Checks `uri-host [":" port]` (RFC 9110 §7.2) and returns the host alone. An empty one is allowed here.
fn host(value: &[u8]) -> Result<&[u8], Refusal> {
    let (host, port) = if let [b'[', inner @ ..] = value {
        let end = inner.iter().position(|byte| *byte == b']').ok_or(HOST)?;
        let address = std::str::from_utf8(&inner[..end]).map_err(|_| HOST)?;
        address.parse::<core::net::Ipv6Addr>().map_err(|_| HOST)?;
        value.split_at(end + 2)
    } else {
        let end = memchr::memchr(b':', value).unwrap_or(value.len());
        let (host, port) = value.split_at(end);
        // reg-name (RFC 3986 §3.2.2) without the comma, which a list of hosts would have.
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte);
        if !host.iter().all(valid) {
            return Err(HOST);
        }
        (host, port)
    };
    match port {
        [] | [b':'] => Ok(host),
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let number =
                digits.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'));
            if number > u32::from(u16::MAX) { Err(HOST) } else { Ok(host) }
        }
        _ => Err(HOST),
    }
}
