//! A header of the PROXY protocol: a verdict stands whatever follows, and no earlier one contradicts it.
#![no_main]

use laneway::internals::worker::connection::introduction::header::{Parsed, V2_BYTES_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let verdict = parse(bytes);
    let known_from = match verdict {
        Parsed::Incomplete => {
            assert!(bytes.len() < V2_BYTES_MAX);
            bytes.len() + 1
        }
        Parsed::Whole { length, .. } => length,
        Parsed::Malformed => (0..=bytes.len())
            .find(|end| parse(&bytes[..*end]) != Parsed::Incomplete)
            .expect("the whole is malformed"),
    };
    for end in 0..=bytes.len() {
        let expected = if end < known_from { Parsed::Incomplete } else { verdict };
        assert_eq!(parse(&bytes[..end]), expected);
    }
});
