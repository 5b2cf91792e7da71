//! A response as content makes it, whichever protocol takes it to the client.

/// A response but for its content and what a connection adds to it (`Date`, `Connection`, its framing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    length: Option<u64>,
    /// The status line and the field lines of HTTP/1, each with its line end. Rendered when the response is made,
    /// because most are made when the configuration loads, and sent many times.
    head: Box<str>,
}

impl Response {
    /// A response with `status` and `fields`, and with content of so many bytes; `None`: the sender states it.
    /// Of a status that forbids content, the length is not stated.
    pub fn new<'f>(
        status: u16,
        fields: impl IntoIterator<Item = (&'f str, &'f str)>,
        length: Option<u64>,
    ) -> Response {
        let length = length.filter(|_| !forbids_content(status));
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in fields {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(length) = length {
            head.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
        }
        Response { status, length, head: head.into() }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How long its content is, if that was known when it was made, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether its status forbids content (RFC 9110 §6.4.1).
    pub fn forbids_content(&self) -> bool {
        forbids_content(self.status)
    }

    /// Its header fields but for Content-Length, each as `name: value`, in order.
    #[cfg_attr(not(feature = "may"), allow(dead_code, reason = "for that engine alone"))]
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let lines = self.head.split_terminator("\r\n").skip(1);
        let length = usize::from(self.length.is_some());
        let count = self.head.matches("\r\n").count() - 1 - length;
        lines.take(count)
    }

    /// The status line and the field lines of HTTP/1, without the empty line that ends them.
    pub(super) fn head(&self) -> &[u8] {
        self.head.as_bytes()
    }
}

/// 204 and 304 (RFC 9110 §15.3.5, §15.4.5): neither content nor, in a 204, a length.
fn forbids_content(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// The reason phrase of a status code (RFC 9110 §15, RFC 6585); empty for one without a name.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_forbids_content_has_no_length() {
        for (status, forbids) in [(200, false), (204, true), (205, false), (304, true)] {
            let response = Response::new(status, [("A", "b")], Some(0));
            assert_eq!(response.forbids_content(), forbids, "{status}");
            assert_eq!(response.length().is_none(), forbids, "{status}");
            let head = String::from_utf8_lossy(response.head()).into_owned();
            assert_eq!(head.contains("Content-Length: 0\r\n"), !forbids, "{head}");
        }
    }

    #[test]
    fn fields_are_those_that_it_was_made_with() {
        for length in [None, Some(7)] {
            let response = Response::new(200, [("A", "b"), ("C", "d: e")], length);
            assert_eq!(response.fields().collect::<Vec<_>>(), ["A: b", "C: d: e"]);
            assert_eq!((response.status(), response.length()), (200, length));
        }
    }
}
