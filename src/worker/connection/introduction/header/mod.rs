//! The header of the PROXY protocol, versions 1 and 2, by which a proxy says whose connection it passes on
//! (haproxy.org/download/2.6/doc/proxy-protocol.txt). Bytes in, an address out.
//!
//! It is read strictly: what two readers could end in two places would begin a request in two places. Version 1 is a
//! line of text, version 2 is binary:
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n
//!
//! | signature: 12 bytes | 2, command | family, transport | length: 2 bytes | source, destination, ports | further values |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its line end: what the longest addresses and ports make.
pub const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is taken. Its length could say 64 KiB, which no proxy sends: what there may be beside
/// the addresses is a few names and identifiers.
pub const V2_BYTES_MAX: usize = 4096;

/// With what version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 that tells how long it is.
const V2_FIXED_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header so far, of which more has to come.
    Incomplete,
    /// A header.
    Whole {
        /// How many of the bytes it is.
        length: usize,
        /// What it says.
        source: Source,
    },
    /// No header.
    Malformed,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// That of a client with this address.
    Client(SocketAddr),
    /// The proxy's own, such as a health check; or that of a client of which no address is stated.
    Unstated,
}

/// Reads the header that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Parsed {
    match bytes.first() {
        None => Parsed::Incomplete,
        Some(b'\r') => parse_v2(bytes),
        Some(_) => parse_v1(bytes),
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    const BEGIN: &[u8] = b"PROXY ";
    let begun = bytes.len().min(BEGIN.len());
    if bytes[..begun] != BEGIN[..begun] {
        return Parsed::Malformed;
    }
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < V1_BYTES_MAX { Parsed::Incomplete } else { Parsed::Malformed };
    };
    let line = within[BEGIN.len()..end].strip_suffix(b"\r");
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(source_of_line) {
        Some(source) => Parsed::Whole { length: end + 1, source },
        None => Parsed::Malformed,
    }
}

/// What follows `PROXY ` says.
fn source_of_line(line: &str) -> Option<Source> {
    if line.contains('\r') {
        return None;
    }
    let mut words = line.split(' ');
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // What follows it has no meaning.
        "UNKNOWN" => return Some(Source::Unstated),
        _ => return None,
    };
    let address = |word: &str| -> Option<IpAddr> {
        if is_v4 {
            word.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        } else {
            word.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
    };
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then(|| client(source, source_port))
}

/// A number without sign and leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = word.len() > 1 && word.starts_with('0');
    word.parse().ok().filter(|_| is_plain && !is_padded)
}

fn client(address: IpAddr, port: u16) -> Source {
    Source::Client(SocketAddr::new(address.to_canonical(), port))
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Parsed::Malformed;
    }
    let [_, _, _, _, _, _, _, _, _, _, _, _, command, family, high, low, ..] = *bytes else {
        return Parsed::Incomplete;
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX || !matches!(command, 0x20 | 0x21) {
        return Parsed::Malformed;
    }
    let Some(header) = bytes.get(..length) else {
        return Parsed::Incomplete;
    };
    // LOCAL: whatever else is in it has no meaning.
    let source =
        if command == 0x20 { Some(Source::Unstated) } else { source_of_v2(header, family) };
    source.map_or(Parsed::Malformed, |source| Parsed::Whole { length, source })
}

/// What a whole header of version 2 says whose command is PROXY.
fn source_of_v2(header: &[u8], family: u8) -> Option<Source> {
    let stated = &header[V2_FIXED_BYTES..];
    let (source, address_bytes) = match family {
        // Over TCP: source, destination, port of the source, port of the destination.
        0x11 => {
            let (address, port) = (stated.first_chunk::<4>()?, port_at(stated, 8)?);
            (client(Ipv4Addr::from(*address).into(), port), 12)
        }
        0x21 => {
            let (address, port) = (stated.first_chunk::<16>()?, port_at(stated, 32)?);
            (client(Ipv6Addr::from(*address).into(), port), 36)
        }
        // Of datagrams, which no connection consists of, of a Unix socket, or of what isn't said: no address of a client.
        0x12 => (Source::Unstated, 12),
        0x22 => (Source::Unstated, 36),
        0x30..=0x32 => (Source::Unstated, 216),
        0x00..=0x02 | 0x10 | 0x20 => return Some(Source::Unstated),
        _ => return None,
    };
    let values = stated.get(address_bytes..)?;
    is_sound(header, values).then_some(source)
}

fn port_at(stated: &[u8], at: usize) -> Option<u16> {
    // Behind it stands the other port.
    let ports = stated.get(at..)?.first_chunk::<4>()?;
    Some(u16::from_be_bytes([ports[0], ports[1]]))
}

/// Whether the values behind the addresses fill the header, and its checksum is right, if it has one.
fn is_sound(header: &[u8], mut values: &[u8]) -> bool {
    const CHECKSUM: u8 = 0x03;
    while let [kind, high, low, rest @ ..] = values {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, after)) = rest.split_at_checked(length) else {
            return false;
        };
        if *kind == CHECKSUM {
            let Ok(stated) = <[u8; 4]>::try_from(value) else {
                return false;
            };
            let at = header.len() - rest.len();
            if crc32c(&header[..at], &header[at + 4..]) != u32::from_be_bytes(stated) {
                return false;
            }
        }
        values = after;
    }
    values.is_empty()
}

/// The checksum CRC-32C (RFC 3720 §B.4) of `before`, four bytes of zero in the place of the checksum itself, and `after`.
fn crc32c(before: &[u8], after: &[u8]) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82f6_3b78;
    let bytes = before.iter().chain(&[0; 4]).chain(after);
    let remainder = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let is_odd = crc & 1 == 1;
            (crc >> 1) ^ if is_odd { POLYNOMIAL_REVERSED } else { 0 }
        })
    });
    !remainder
}

#[cfg(test)]
mod tests;
