//! Tokens: what wakes a loop, as the number by which the kernel tells of it. They are made and read here alone.
//!
//! ```text
//! bits 59 … 32        bits 31 … 0
//! generation          index of a place      a connection of a client
//! 0                   from `RESERVED` on    a source
//! generations - 1     `u32::MAX`            the control socket
//! 0                   `u32::MAX - 1`        the jobs
//! number of a poll    `u32::MAX`            a poll of a ring's own, which no loop sees
//! ```

use crate::sys::ring::TOKEN_MAX;

/// What wakes a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The supervisor has said something, or is gone.
    Control,
    /// A connection may wait in the source with this number, which is less than [`SOURCES`].
    Source(u32),
    /// Something happened to the connection of a client.
    Client(Key),
    /// Jobs that were done elsewhere were woken.
    Jobs,
}

/// Which connection of a lane: its place, and which of those that were ever there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The place; less than [`PLACES`].
    pub index: u32,
    /// Less than [`GENERATIONS`].
    pub generation: u32,
}

/// So many numbers of sources there are.
pub const SOURCES: u32 = 1 << 20;
/// So many places there are for connections.
pub const PLACES: u32 = RESERVED;
/// So many connections that had one place are told apart; then they come again.
pub const GENERATIONS: u32 = 1 << 28;

/// The lower half of a token of something else than a connection, at least.
const RESERVED: u32 = JOBS - SOURCES;
const JOBS: u32 = u32::MAX - 1;

const CONTROL: u64 = TOKEN_MAX;
const _: () = assert!(CONTROL == halves(GENERATIONS - 1, u32::MAX));

const fn halves(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

impl Token {
    /// The number.
    ///
    /// # Panics
    /// If the number of a source is [`SOURCES`] or more: it would be another token.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        match self {
            Token::Control => CONTROL,
            Token::Source(number) => {
                assert!(number < SOURCES, "the number of a source");
                halves(0, RESERVED + number)
            }
            Token::Client(key) => key.to_token(),
            Token::Jobs => halves(0, JOBS),
        }
    }

    /// What a number stands for that was made by [`Token::to_bits`].
    #[inline]
    pub const fn from_bits(bits: u64) -> Token {
        match (bits >> 32, bits as u32) {
            (_, u32::MAX) => Token::Control,
            (_, JOBS) => Token::Jobs,
            (_, lower @ RESERVED..) => Token::Source(lower - RESERVED),
            (generation, index) => Token::Client(Key { index, generation: generation as u32 }),
        }
    }
}

impl Key {
    /// The number of [`Token::Client`].
    #[inline]
    pub const fn to_token(self) -> u64 {
        halves(self.generation, self.index)
    }
}

/// The token of the poll with this number, for a ring alone. The same numbers come again after [`GENERATIONS`].
pub(super) const fn of_poll(number: u64) -> u64 {
    halves((number % GENERATIONS as u64) as u32, u32::MAX)
}

/// The index of the place of the connection with this token; of something else, one that is no connection's.
#[inline]
pub(super) const fn index_of(token: u64) -> usize {
    token as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_what_it_was_made_from_and_fits_an_operation_of_the_ring() {
        let key = |index, generation| Token::Client(Key { index, generation });
        for token in [
            Token::Control,
            Token::Jobs,
            Token::Source(0),
            Token::Source(1),
            Token::Source(SOURCES - 1),
            key(0, 0),
            key(7, 3),
            key(0, GENERATIONS - 1),
            key(PLACES - 1, 0),
            key(PLACES - 1, GENERATIONS - 1),
        ] {
            assert!(token.to_bits() <= TOKEN_MAX, "{token:?}");
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }

    #[test]
    #[should_panic(expected = "the number of a source")]
    fn a_number_of_a_source_that_would_be_another_token_is_refused() {
        Token::Source(SOURCES).to_bits();
    }

    #[test]
    fn what_is_no_connection_has_the_index_of_none() {
        let polls = [0, 1, u64::from(GENERATIONS) - 1, u64::MAX].map(of_poll);
        let others = [Token::Control, Token::Jobs, Token::Source(0), Token::Source(SOURCES - 1)];
        for token in others.map(Token::to_bits).into_iter().chain(polls) {
            assert!(index_of(token) >= PLACES as usize, "{token:#x}");
        }
        assert!(of_poll(1) != of_poll(2) && of_poll(1) == of_poll(1 + u64::from(GENERATIONS)));
    }
}
