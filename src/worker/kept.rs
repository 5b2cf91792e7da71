//! What a connection keeps between two steps: bytes that could not be handled yet.

/// So often within `timeouts.write` a client that leaves the kernel no room is asked after: one that stalls is closed
/// after the timeout, and at most one part more.
const CHECKS_PER_TIMEOUT: u64 = 8;

/// Bytes that could not be handled yet.
#[derive(Default)]
pub(super) struct Kept<'s> {
    /// Read, but not consumed: part of a head, or requests behind a response that isn't sent.
    pub(super) input: Vec<u8>,
    /// Encoded, but not taken by the kernel.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    pub(super) tail: Tail<'s>,
    pub(super) progress: Progress,
}

/// How a client takes what the kernel holds for it, while the kernel has no room for more.
#[derive(Default)]
pub(super) struct Progress {
    /// What the client had not acknowledged when that was asked last, if it was since the kernel took anything.
    unacknowledged: Option<u32>,
    /// When it was last known to have acknowledged something.
    since_ms: u64,
}

impl Progress {
    /// At `now_ms` the kernel took something, because there was room.
    pub(super) fn begin(now_ms: u64) -> Progress {
        Progress { unacknowledged: None, since_ms: now_ms }
    }

    /// So much is unacknowledged at `now_ms`. Whether anything was acknowledged within the last `timeout_ms`.
    pub(super) fn goes_on(&mut self, unacknowledged: u32, now_ms: u64, timeout_ms: u64) -> bool {
        if self.unacknowledged.is_none_or(|before| unacknowledged < before) {
            *self = Progress { unacknowledged: Some(unacknowledged), since_ms: now_ms };
        }
        now_ms - self.since_ms < timeout_ms
    }

    /// When to ask again.
    pub(super) fn next_ms(&self, now_ms: u64, timeout_ms: u64) -> u64 {
        let step_ms = timeout_ms.div_ceil(CHECKS_PER_TIMEOUT);
        (now_ms + step_ms).min(self.since_ms + timeout_ms)
    }
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

    /// Memory of this response's own that it holds, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        if let Tail::Owned(body, _) = self { body.capacity() } else { 0 }
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
