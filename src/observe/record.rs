//! The record of a request: opened when its head is whole, or it is refused, and closed when the last byte of its response
//! has left, or its connection is gone. What an access log writes and a histogram counts is read from it.
//!
//! It costs no call of the clock, which is read once a turn, and no allocation. The address of the client is its socket's to
//! tell, at the first record of a connection that is asked for it: kept for each connection it would cost every idle one.

/// What is known of a request, and of its response as far as that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was opened, in microseconds of the lane.
    began_us: u64,
    /// The status of its response; 0 until there is one.
    status: u16,
    /// Bytes of its response so far, with its head and framing.
    bytes: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last byte of its response was handed to the kernel, or to the ring that does so at the end of the turn.
    Sent,
    /// Its connection was closed before that.
    Broken,
}

impl Record {
    /// Opened now.
    pub fn open(now_us: u64) -> Record {
        Record { began_us: now_us, status: 0, bytes: 0 }
    }

    /// Its response begins, with so many bytes.
    pub fn respond(&mut self, status: u16, bytes: u64) {
        (self.status, self.bytes) = (status, bytes);
    }

    /// So many bytes more of its response were made.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The status of its response, if there is one.
    #[allow(dead_code, reason = "tests alone read it until an access log does")]
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }

    /// Bytes of its response, with its head and framing.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long it has taken, in microseconds.
    #[allow(dead_code, reason = "tests alone read it until a histogram does")]
    pub fn elapsed_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.began_us)
    }
}
