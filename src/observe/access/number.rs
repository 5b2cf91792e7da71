//! Numbers, times and addresses in a line, as text: several of each stand in every line, so the formatter of the standard
//! library would be a large part of what a line costs.

use std::io::Write;
use std::net::IpAddr;

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

fn pair(number: u64) -> [u8; 2] {
    PAIRS[number as usize % PAIRS.len()]
}

/// Adds a number.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let (mut digits, mut at, mut rest) = ([0; DIGITS_MAX], DIGITS_MAX, number);
    while rest >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(rest % 100));
        rest /= 100;
    }
    if rest > 0 {
        at -= 1;
        digits[at] = b'0' + rest as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Adds so many microseconds as seconds.
pub(super) fn put_seconds(out: &mut Vec<u8>, us: u64) {
    put_number(out, us / 1_000_000);
    out.extend_from_slice(&fraction(us % 1_000_000));
}

/// So many microseconds, less than a second, as what stands behind its seconds.
pub(super) fn fraction(us: u64) -> [u8; 7] {
    let [[a, b], [c, d], [e, f]] = [pair(us / 10_000), pair(us / 100), pair(us)];
    [b'.', a, b, c, d, e, f]
}

/// Adds an address; one of IPv4 that a socket of IPv6 tells as such.
pub(super) fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, others @ ..] = ip.octets();
            put_number(out, first.into());
            for part in others {
                out.push(b'.');
                put_number(out, part.into());
            }
        }
        IpAddr::V6(ip) => {
            // Writing to a Vec can't fail.
            let _ = write!(out, "{ip}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_what_the_standard_library_writes() {
        let few = (0..1_100).chain([9_999, 10_000, 65_535, 99_999, 100_000, 999_999]);
        for number in few.chain([1_000_000, 10_000_001, u64::MAX - 1, u64::MAX]) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
            out.clear();
            put_seconds(&mut out, number);
            let expected = format!("{}.{:06}", number / 1_000_000, number % 1_000_000);
            assert_eq!(out, expected.as_bytes());
        }
        for ip in ["0.0.0.0", "255.10.1.0", "::1", "2001:db8::1"] {
            let mut out = Vec::new();
            put_ip(&mut out, ip.parse().expect("an address"));
            assert_eq!(out, ip.as_bytes());
        }
        let mut out = Vec::new();
        put_ip(&mut out, "::ffff:1.2.3.4".parse().expect("an address"));
        assert_eq!(out, b"1.2.3.4");
    }
}
