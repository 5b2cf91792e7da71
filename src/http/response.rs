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
