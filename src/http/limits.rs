//! What a request may be like.

/// How much of anything a request may have, and how its path is read.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request line, in bytes, without its line end.
    pub request_line: usize,
    /// Longest field section, in bytes: every field line with its line end. Trailers have as much again.
    pub header_bytes: usize,
    /// Most field lines.
    pub headers: usize,
    /// Longest body, in bytes of content (chunk framing is not counted).
    pub body: u64,
    /// Whether repeated slashes of a path count as one.
    pub merge_slashes: bool,
}
