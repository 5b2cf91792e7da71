//! The media types that more than one part states (RFC 9110 §8.3.1). Which file has which type is configuration.

/// Plain text in UTF-8.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// JSON (RFC 8259 §11).
pub const JSON: &str = "application/json";
/// Bytes of which nothing else is known.
pub const BYTES: &str = "application/octet-stream";
