//! Tokens: what wakes the supervisor's loop, as the number by which epoll tells of it. They are made and read here
//! alone.
//!
//! ```text
//! bits 63 … 60    bits 59 … 0
//! kind            the number of a process or of a client, or 0
//! ```

use crate::control::ProcessNumber;

/// What wakes the supervisor's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A signal has come.
    Signals,
    /// The child that executes the new supervisor's binary has said that it can't, or has become that supervisor.
    Launcher,
    /// The new supervisor has said something, or is gone.
    Heir,
    /// The supervisor before this one has said something, or is gone.
    Predecessor,
    /// The child that reads the configuration has said something, or is gone.
    Loader,
    /// Something has happened to the configuration file.
    Configuration,
    /// A client may wait at the command socket.
    CommandSocket,
    /// A client of the command socket has sent something, takes more, or is gone.
    Client(ClientNumber),
    /// A worker process has reported something, or takes more commands.
    Control(ProcessNumber),
    /// A worker process has ended.
    End(ProcessNumber),
}

/// A client of the command socket, of all that ever connected: the later one has the greater number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientNumber(u64);

impl ClientNumber {
    /// The one after this.
    #[must_use]
    pub(crate) fn next(self) -> ClientNumber {
        ClientNumber(self.0 + 1)
    }
}

const KIND_SHIFT: u32 = 60;

impl Token {
    /// The number.
    ///
    /// # Panics
    /// If the number of a process or client needs more than 60 bits: it would be another token.
    pub(crate) fn to_bits(self) -> u64 {
        let (kind, number) = match self {
            Token::Signals => (0, 0),
            Token::Heir => (1, 0),
            Token::Predecessor => (2, 0),
            Token::Loader => (3, 0),
            Token::CommandSocket => (4, 0),
            Token::Client(ClientNumber(number)) => (5, number),
            Token::Control(ProcessNumber(number)) => (6, number),
            Token::End(ProcessNumber(number)) => (7, number),
            Token::Launcher => (8, 0),
            Token::Configuration => (9, 0),
        };
        assert!(number >> KIND_SHIFT == 0, "a number of 60 bits");
        kind << KIND_SHIFT | number
    }

    /// What a number stands for that was made by [`Token::to_bits`]; none if it wasn't.
    pub(crate) fn from_bits(bits: u64) -> Option<Token> {
        let number = bits & ((1 << KIND_SHIFT) - 1);
        Some(match bits >> KIND_SHIFT {
            0 => Token::Signals,
            1 => Token::Heir,
            2 => Token::Predecessor,
            3 => Token::Loader,
            4 => Token::CommandSocket,
            5 => Token::Client(ClientNumber(number)),
            6 => Token::Control(ProcessNumber(number)),
            7 => Token::End(ProcessNumber(number)),
            8 => Token::Launcher,
            9 => Token::Configuration,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_what_it_was_made_of_up_to_the_greatest_number() {
        let greatest = (1 << KIND_SHIFT) - 1;
        let mut tokens = vec![
            Token::Signals,
            Token::Launcher,
            Token::Heir,
            Token::Predecessor,
            Token::Loader,
            Token::Configuration,
            Token::CommandSocket,
        ];
        for number in [0, 1, greatest] {
            tokens.push(Token::Client(ClientNumber(number)));
            tokens.push(Token::Control(ProcessNumber(number)));
            tokens.push(Token::End(ProcessNumber(number)));
        }
        for token in &tokens {
            assert_eq!(Token::from_bits(token.to_bits()), Some(*token));
        }
        assert_eq!(Token::from_bits(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "a number of 60 bits")]
    fn a_number_that_would_be_another_token_is_refused() {
        let _ = Token::Control(ProcessNumber(1 << KIND_SHIFT)).to_bits();
    }
}
