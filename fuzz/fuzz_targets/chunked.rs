//! A chunked body, against a second decoder, whole and in pieces.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the oracle")]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use laneway::internals::http;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u16>, &[u8])| {
    let (places, stream) = input;
    let places: Vec<usize> = places.into_iter().map(usize::from).collect();
    oracle::check_chunks(stream, &places);
});
