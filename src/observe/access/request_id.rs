//! The id of a request: the one that it came with, if that is harmless, or one that no other request has.

/// Longest id that is taken from a client, in bytes.
pub(super) const ID_BYTES_MAX: usize = 128;

/// Whether an id of a client's can be repeated in a log and in a response: letters, digits and what ids are made of.
pub(super) fn is_sane(id: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@,;".contains(byte);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_allowed)
}

/// Makes ids: 16 digits by which one worker's differ from those of any other, and a count. It makes no system call.
pub(super) struct RequestIds {
    id: [u8; 24],
    made: u32,
    seed: u64,
}

impl RequestIds {
    /// Those of one worker, which alone has this seed.
    pub(super) fn new(seed: u64) -> RequestIds {
        let mut ids = RequestIds { id: [0; 24], made: 0, seed };
        ids.put(0, seed);
        ids
    }

    /// The next one.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.made == u32::MAX {
            // After some days at full load: from here on they have another seed.
            self.seed = self.seed.wrapping_add(1);
            self.put(0, self.seed);
            self.made = 0;
        }
        self.made += 1;
        self.put(1, self.made.into());
        &self.id
    }

    /// Writes the seed (0) or the count (1), in hexadecimal digits.
    fn put(&mut self, part: usize, number: u64) {
        let digits = if part == 0 { &mut self.id[..16] } else { &mut self.id[16..] };
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdef"[rest as usize & 0xf];
            rest >>= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_only_if_it_is_harmless() {
        let longest = [b'a'; ID_BYTES_MAX];
        let sane: [&[u8]; 5] = [
            b"a",
            b"550e8400-e29b-41d4-a716-446655440000",
            b"Root=1-67891233-abcdef012345678912345678",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &longest,
        ];
        for id in sane {
            assert!(is_sane(id), "{}", id.escape_ascii());
        }
        let too_long = [b'a'; ID_BYTES_MAX + 1];
        let wrong: [&[u8]; 8] =
            [b"", b"a b", b"a\"b", b"a\\b", b"a\r\nb", b"a\x1b", "é".as_bytes(), &too_long];
        for id in wrong {
            assert!(!is_sane(id), "{}", id.escape_ascii());
        }
    }

    #[test]
    fn no_id_comes_twice() {
        let mut ids = RequestIds::new(0x0123_4567_89ab_cdef);
        assert_eq!(ids.next(), b"0123456789abcdef00000001");
        assert_eq!(ids.next(), b"0123456789abcdef00000002");
        ids.made = u32::MAX - 1;
        assert_eq!(ids.next(), b"0123456789abcdefffffffff");
        assert_eq!(ids.next(), b"0123456789abcdf000000001");
        assert!(is_sane(ids.next()));
    }
}
