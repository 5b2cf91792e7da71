//! Responses: a head rendered once, and what changes from one to the next put behind it.

/// 100 (Continue), whole (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a client of HTTP/2 understands, whole: an empty SETTINGS frame, which has to come first, and a GOAWAY with the
/// code HTTP_1_1_REQUIRED, stream 0 as the last that was looked at, and a sentence (RFC 9113 §6.5, §6.8).
pub const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x33\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d\
    HTTP/1.0 and HTTP/1.1 alone are spoken here";

/// Length of a `Date` line (RFC 9110 §6.6.1) with its line end.
pub const DATE_LINE_BYTES: usize = 37;

/// What becomes of the connection after a response (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Kept, which HTTP/1.1 says by saying nothing.
    Keep,
    /// Kept, said to a client of HTTP/1.0 that asked.
    KeepHttp10,
    /// Closed.
    Close,
}

/// A response but for its `Date` and `Connection` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status line and field lines, without the empty line that ends them.
    pub head: Box<[u8]>,
    /// Whether its status forbids a body and a length, as 204 and 304 do.
    bodiless: bool,
}

impl Response {
    /// Renders the head of a response with `status` and `fields`. `length` adds a Content-Length;
    /// `None` leaves it to [`encode`], for a body that isn't known yet.
    pub fn new<'f>(
        status: u16,
        fields: impl IntoIterator<Item = (&'f str, &'f str)>,
        length: Option<usize>,
    ) -> Response {
        let bodiless = matches!(status, 204 | 304);
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in fields {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(length) = length.filter(|_| !bodiless) {
            head.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
        }
        Response { head: head.into_bytes().into(), bodiless }
    }

    /// Whether its status forbids a body.
    pub fn is_bodiless(&self) -> bool {
        self.bodiless
    }
}

/// Appends a response head, up to and with the empty line that ends it; the body goes right behind.
/// `length` is the Content-Length of a response that was rendered without one.
pub fn encode(
    output: &mut Vec<u8>,
    response: &Response,
    length: Option<usize>,
    date: &[u8; DATE_LINE_BYTES],
    persistence: Persistence,
) {
    output.extend_from_slice(&response.head);
    if let Some(length) = length.filter(|_| !response.bodiless) {
        output.extend_from_slice(b"Content-Length: ");
        output.extend_from_slice(length.to_string().as_bytes());
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(date);
    output.extend_from_slice(match persistence {
        Persistence::Keep => b"\r\n",
        Persistence::KeepHttp10 => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
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

    const DATE: &[u8; DATE_LINE_BYTES] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn encoded(response: &Response, length: Option<usize>, persistence: Persistence) -> String {
        let mut output = b"before|".to_vec();
        encode(&mut output, response, length, DATE, persistence);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn a_head_is_rendered_once_and_gets_what_changes_behind_it() {
        let response = Response::new(200, [("A", "b"), ("C", "d e")], Some(10));
        let expected = "before|HTTP/1.1 200 OK\r\nA: b\r\nC: d e\r\nContent-Length: 10\r\n\
                        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(encoded(&response, None, Persistence::Keep), expected);
        let kept = expected.replace("GMT\r\n", "GMT\r\nConnection: keep-alive\r\n");
        assert_eq!(encoded(&response, None, Persistence::KeepHttp10), kept);
        let closed = expected.replace("GMT\r\n", "GMT\r\nConnection: close\r\n");
        assert_eq!(encoded(&response, None, Persistence::Close), closed);
    }

    #[test]
    fn a_length_that_is_known_late_is_added_late() {
        let response = Response::new(200, [], None);
        let text = encoded(&response, Some(7), Persistence::Keep);
        assert!(
            text.starts_with("before|HTTP/1.1 200 OK\r\nContent-Length: 7\r\nDate: "),
            "{text}"
        );
        let text = encoded(&response, None, Persistence::Keep);
        assert!(text.starts_with("before|HTTP/1.1 200 OK\r\nDate: "), "{text}");
    }

    #[test]
    fn a_status_that_forbids_a_body_has_no_length_either() {
        for (status, bodiless) in [(200, false), (204, true), (205, false), (304, true)] {
            let early = Response::new(status, [], Some(0));
            let late = Response::new(status, [], None);
            assert_eq!((early.is_bodiless(), late.is_bodiless()), (bodiless, bodiless), "{status}");
            for text in [
                encoded(&early, None, Persistence::Keep),
                encoded(&late, Some(0), Persistence::Keep),
            ] {
                assert_eq!(text.contains("Content-Length"), !bodiless, "{text}");
            }
        }
    }

    #[test]
    fn a_goaway_is_as_long_as_it_says() {
        // A frame is a length in 3 bytes, a type, flags, a stream in 4, and as much as it said (RFC 9113 §4.1).
        let length = usize::from(GOAWAY[9 + 2]);
        assert_eq!((GOAWAY[3], GOAWAY[9 + 3]), (4, 7), "SETTINGS and GOAWAY");
        assert_eq!(GOAWAY.len(), 9 + 9 + length);
    }
}
