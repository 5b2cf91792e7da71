//! Methods (RFC 9110 §9).

/// A method: those of RFC 9110 §9 and RFC 5789, or any other token but CONNECT, which asks for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Method<'b> {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    /// Any other, by its name.
    Other(&'b str),
}

impl<'b> Method<'b> {
    /// As it is written in a request line.
    pub fn name(self) -> &'b str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other(name) => name,
        }
    }

    /// Whether its requests may be expected to have content (RFC 9110 §9.3, RFC 5789).
    pub(super) fn has_content(self) -> bool {
        !matches!(self, Method::Get | Method::Head | Method::Delete | Method::Options)
    }
}
