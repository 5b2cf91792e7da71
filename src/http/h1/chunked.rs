//! The chunked transfer coding (RFC 9112 §7.1), one byte at a time outside the data.
//!
//! ```text
//! Size ─▶ [Extension ─▶] SizeLf ─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size      (size > 0)
//!                           └────▶ Trailer ─▶ … ─▶ End                    (size = 0)
//! ```
//!
//! Extensions and trailers are checked, bounded and dropped: nothing here acts on them.

use crate::http::token::is_token_byte;
use crate::http::{Limits, Refusal};

/// Most bytes of chunk extensions in one message, white space included: they have no use here, and cost work.
const EXTENSION_BYTES_MAX: u32 = 4096;
/// Most leading zeros of a chunk size. Some clients pad a size to the width of 64 bits.
const LEADING_ZEROS_MAX: u8 = 16;

/// Decodes one chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the current chunk that are still to come, or of its size as read so far.
    size: u64,
    /// Bytes of content so far, the current chunk's included.
    total: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailers: u16,
    /// Leading zeros of the current chunk's size.
    leading_zeros: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    SizeStart,
    Size,
    /// Behind white space that only another extension may follow.
    ExtensionBefore,
    ExtensionStart,
    ExtensionName,
    /// Behind white space that a value or another extension must follow.
    ExtensionNameEnd,
    ExtensionValueStart,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionEscaped,
    ExtensionQuoteEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What came of the bytes.
pub(super) enum Step<'b> {
    Incomplete,
    Data(&'b [u8]),
    End,
}

const SIZE: Refusal = Refusal::bad_request("a chunk size is malformed");
const EXTENSION: Refusal = Refusal::bad_request("a chunk extension is malformed");
const DATA: Refusal = Refusal::bad_request("a chunk is longer or shorter than its size");
const TRAILER: Refusal = Refusal::bad_request("a trailer field is malformed");

impl Chunked {
    /// Takes the next step in `input`, and says how many of its bytes are done with.
    pub(super) fn advance<'b>(
        &mut self,
        input: &'b [u8],
        limits: &Limits,
    ) -> Result<(usize, Step<'b>), Refusal> {
        let mut position = 0;
        while position < input.len() {
            if self.state == State::Data {
                let available = input.len() - position;
                let take = available.min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                let end = position + take;
                return Ok((end, Step::Data(&input[position..end])));
            }
            let byte = input[position];
            position += 1;
            if self.state == State::EndLf {
                return if byte == b'\n' { Ok((position, Step::End)) } else { Err(TRAILER) };
            }
            self.state = self.next(byte, limits)?;
        }
        Ok((position, Step::Incomplete))
    }

    /// The state after one byte of framing.
    fn next(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        use State::*;
        Ok(match (self.state, byte) {
            (SizeStart | Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if self.size == 0 && digit == 0 {
                    self.leading_zeros += 1;
                    if self.leading_zeros > LEADING_ZEROS_MAX {
                        return Err(SIZE);
                    }
                }
                let size = self.size.checked_mul(16).ok_or(SIZE)?;
                self.size = size + digit;
                Size
            }
            (Size, b'\r') => SizeLf,
            (Size, b';' | b' ' | b'\t') => self.extension(byte)?,
            (SizeStart | Size, _) => return Err(SIZE),

            (SizeLf, b'\n') => self.size_known(limits)?,
            (SizeLf, _) => return Err(SIZE),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => SizeStart,
            (DataCr | DataLf, _) => return Err(DATA),

            (TrailerStart | TrailerName | TrailerValue | TrailerLf, _) => {
                return self.trailer(byte, limits);
            }
            (Data | EndLf, _) => unreachable!("taken by advance"),
            _ => self.extension(byte)?,
        })
    }

    /// At the end of a size line.
    fn size_known(&mut self, limits: &Limits) -> Result<State, Refusal> {
        self.leading_zeros = 0;
        if self.size == 0 {
            return Ok(State::TrailerStart);
        }
        self.total = self.total.saturating_add(self.size);
        if self.total > limits.body {
            return Err(Refusal::BODY_TOO_LARGE);
        }
        Ok(State::Data)
    }

    /// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`: white space is taken exactly where RFC 9112 §7.1.1 has it, which
    /// is never before the line end.
    fn extension(&mut self, byte: u8) -> Result<State, Refusal> {
        use State::*;
        // The CR is no part of it.
        self.extension_bytes += u32::from(byte != b'\r');
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::bad_request("there are too many chunk extensions"));
        }
        let token = is_token_byte(byte);
        Ok(match (self.state, byte) {
            (ExtensionQuoted, b'"') => ExtensionQuoteEnd,
            (ExtensionQuoted, b'\\') => ExtensionEscaped,
            (ExtensionQuoted | ExtensionEscaped, b'\t' | 0x20..=0x7e | 0x80..) => ExtensionQuoted,

            (ExtensionStart | ExtensionName, _) if token => ExtensionName,
            (ExtensionName | ExtensionNameEnd, b'=') => ExtensionValueStart,
            (ExtensionValueStart, b'"') => ExtensionQuoted,
            (ExtensionValueStart | ExtensionToken, _) if token => ExtensionToken,
            (ExtensionName | ExtensionToken | ExtensionQuoteEnd, b'\r') => SizeLf,
            (ExtensionStart | ExtensionValueStart, b' ' | b'\t') => self.state,
            (ExtensionName | ExtensionNameEnd, b' ' | b'\t') => ExtensionNameEnd,
            (ExtensionStart | ExtensionValueStart, _) => return Err(EXTENSION),
            // Behind a size, a whole extension, or white space there.
            (_, b' ' | b'\t') => ExtensionBefore,
            (_, b';') => ExtensionStart,
            _ => return Err(EXTENSION),
        })
    }

    /// Trailer fields: as strict as header fields, as bounded, and then dropped (RFC 9110 §6.5.1).
    fn trailer(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        use State::*;
        if self.state == TrailerStart && byte == b'\r' {
            return Ok(EndLf);
        }
        if self.state == TrailerStart {
            self.trailers = self.trailers.saturating_add(1);
        }
        self.trailer_bytes = self.trailer_bytes.saturating_add(1);
        let count = usize::from(self.trailers);
        if count > limits.headers || self.trailer_bytes as usize > limits.header_bytes {
            return Err(Refusal::FIELDS_TOO_LARGE);
        }
        Ok(match (self.state, byte) {
            (TrailerStart | TrailerName, _) if is_token_byte(byte) => TrailerName,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => TrailerValue,
            (TrailerLf, b'\n') => TrailerStart,
            _ => return Err(TRAILER),
        })
    }
}
