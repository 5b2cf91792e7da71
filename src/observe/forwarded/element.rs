//! One element of X-Forwarded-For, and one line of Forwarded (RFC 7239 §4): what address each states.

use std::borrow::Cow;
use std::net::IpAddr;

use super::PROXIES_MAX;

/// The last elements of one line of Forwarded: the address of each, or `None` if it states none, because the proxy doesn't
/// know it or keeps it to itself.
pub(super) struct Line {
    hops: [Option<IpAddr>; PROXIES_MAX],
    /// How many elements there were.
    count: usize,
    /// The end is no list of elements: where one of them begins can't be known. Counts as one that states nothing.
    is_malformed: bool,
}

impl Line {
    /// Reads a line from its beginning: only from there it can be told which commas are within quotes.
    pub(super) fn read(mut line: &[u8]) -> Line {
        let mut read = Line { hops: [None; PROXIES_MAX], count: 0, is_malformed: false };
        loop {
            line = skip_space(line);
            match line {
                [] => return read,
                [b',', after @ ..] => line = after,
                element => match element_of(element) {
                    Some((hop, after)) => {
                        read.hops[read.count % PROXIES_MAX] = hop;
                        read.count += 1;
                        line = after;
                    }
                    None => return Line { is_malformed: true, ..read },
                },
            }
        }
    }

    /// The elements, of which the last comes first.
    pub(super) fn rev(self) -> impl Iterator<Item = Option<IpAddr>> {
        let Line { hops, count, is_malformed } = self;
        let first = count.saturating_sub(PROXIES_MAX);
        let sound = (first..count).rev().map(move |index| hops[index % PROXIES_MAX]);
        is_malformed.then_some(None).into_iter().chain(sound)
    }
}

/// `forwarded-element`, up to the comma behind it or the end: what its `for` states, and what follows.
fn element_of(mut rest: &[u8]) -> Option<(Option<IpAddr>, &[u8])> {
    let mut hop = None;
    let mut is_stated = false;
    loop {
        // Between two semicolons there may be nothing.
        if !matches!(rest.first(), None | Some(b';' | b',')) {
            let (Pair { name, value }, after) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") {
                if is_stated {
                    return None; // RFC 7239 §4: once in an element.
                }
                (is_stated, hop) = (true, address(&value));
            }
            rest = skip_space(after);
        }
        match rest {
            [] | [b',', ..] => return Some((hop, rest)),
            [b';', after @ ..] => rest = skip_space(after),
            _ => return None,
        }
    }
}

/// `forwarded-pair`: the value is without quotes.
struct Pair<'f> {
    name: &'f [u8],
    value: Cow<'f, [u8]>,
}

/// `token "=" ( token / quoted-string )`, and what follows.
fn pair(rest: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let (name, rest) = token(rest)?;
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest) = match rest.strip_prefix(b"\"") {
        None => token(rest).map(|(value, rest)| (Cow::Borrowed(value), rest))?,
        Some(rest) => unquoted(rest)?,
    };
    Some((Pair { name, value }, rest))
}

/// A token (RFC 9110 §5.6.2), and what follows.
fn token(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = rest.iter().position(|byte| !is_of_token(byte)).unwrap_or(rest.len());
    (length > 0).then(|| rest.split_at(length))
}

/// What is left of a quoted string (RFC 9110 §5.6.4) after its first quote, and what follows its last one. Copied only if
/// it quotes single characters.
fn unquoted(rest: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if rest[plain] == b'"' {
        return Some((Cow::Borrowed(&rest[..plain]), &rest[plain + 1..]));
    }
    let mut value = rest[..plain].to_vec();
    let mut bytes = rest[plain..].iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((Cow::Owned(value), &rest[plain + at + 1..])),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, byte) => value.push(*byte),
        }
    }
}

fn skip_space(rest: &[u8]) -> &[u8] {
    rest.trim_ascii_start()
}

/// The address of an element of X-Forwarded-For, or of `node` (RFC 7239 §6), which may have a port: `None` for "unknown", an
/// identifier (`_hidden`), and what is neither.
pub(super) fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let address = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            IpAddr::V6(address.parse().ok().filter(|_| is_whole)?)
        }
        None => match node.split_once(':') {
            Some((address, port)) if is_port(port) => IpAddr::V4(address.parse().ok()?),
            // X-Forwarded-For has IPv6 addresses without brackets.
            _ => node.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

/// `node-port`: a number, or an identifier.
fn is_port(port: &str) -> bool {
    let is_of_identifier = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix('_') {
        Some(identifier) => !identifier.is_empty() && identifier.bytes().all(is_of_identifier),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}
