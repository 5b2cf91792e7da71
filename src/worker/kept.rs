//! What a connection keeps between two steps: bytes that could not be handled yet.

/// Bytes that could not be handled yet.
#[derive(Default)]
pub(super) struct Kept<'s> {
    /// Read, but not consumed: part of a head, or requests behind a response that isn't sent.
    pub(super) input: Vec<u8>,
    /// Encoded, but not taken by the kernel.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    pub(super) tail: Tail<'s>,
}

/// A large body that follows the encoded output, with what of it was sent.
#[derive(Default)]
pub enum Tail<'s> {
    /// Nothing follows.
    #[default]
    None,
    /// A body of the site's.
    Shared(&'s [u8]),
    /// A body of this response alone, and how much of it was sent.
    Owned(Vec<u8>, usize),
}

impl Kept<'_> {
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || !self.tail.is_empty()
    }
}

impl Tail<'_> {
    /// Whether nothing follows.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    pub(super) fn rest(&self) -> &[u8] {
        match self {
            Tail::None => &[],
            Tail::Shared(bytes) => bytes,
            Tail::Owned(bytes, sent) => &bytes[*sent..],
        }
    }

    pub(super) fn advance(&mut self, count: usize) {
        match self {
            Tail::None => {}
            Tail::Shared(bytes) => *bytes = &bytes[count..],
            Tail::Owned(_, sent) => *sent += count,
        }
    }
}
