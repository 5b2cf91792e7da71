//! Requests that are answered with an error: why, and with which status.

/// Why a request is answered with an error, after which the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code to answer with.
    pub status: u16,
    /// What was wrong, for the person who reads the answer.
    pub reason: &'static str,
}

impl Refusal {
    /// 400 Bad Request (RFC 9110 §15.5.1).
    pub const fn bad_request(reason: &'static str) -> Refusal {
        Refusal { status: 400, reason }
    }

    /// 408 Request Timeout (RFC 9110 §15.5.9).
    pub const TIMEOUT: Refusal =
        Refusal { status: 408, reason: "the request took too long to arrive" };
    /// 413 Content Too Large (RFC 9110 §15.5.14).
    pub const BODY_TOO_LARGE: Refusal =
        Refusal { status: 413, reason: "the body is larger than this server takes" };
    /// 414 URI Too Long (RFC 9110 §15.5.15).
    pub const REQUEST_LINE_TOO_LONG: Refusal =
        Refusal { status: 414, reason: "the request line is longer than this server takes" };
    /// 417 Expectation Failed (RFC 9110 §10.1.1).
    pub const EXPECTATION: Refusal =
        Refusal { status: 417, reason: "only 100-continue can be expected" };
    /// 421 Misdirected Request (RFC 9110 §7.4).
    pub const MISDIRECTED: Refusal = Refusal {
        status: 421,
        reason: "a resource of https is not served over a plain connection",
    };
    /// 431 Request Header Fields Too Large (RFC 6585 §5).
    pub const FIELDS_TOO_LARGE: Refusal = Refusal {
        status: 431,
        reason: "the header fields are larger or more than this server takes",
    };
    /// 500 Internal Server Error (RFC 9110 §15.6.1).
    pub const INTERNAL: Refusal =
        Refusal { status: 500, reason: "the server failed while it answered this request" };
    /// 501 Not Implemented (RFC 9110 §15.6.2), of a method.
    pub const METHOD: Refusal = Refusal { status: 501, reason: "tunnels are not implemented" };
    /// 501 Not Implemented, of a transfer coding (RFC 9112 §6.1).
    pub const TRANSFER_CODING: Refusal =
        Refusal { status: 501, reason: "the only transfer coding implemented is chunked" };
    /// 503 Service Unavailable (RFC 9110 §15.6.4).
    pub const OVERLOADED: Refusal =
        Refusal { status: 503, reason: "the server holds as many request bodies as it may" };
    /// 505 HTTP Version Not Supported (RFC 9110 §15.6.6).
    pub const VERSION: Refusal =
        Refusal { status: 505, reason: "only HTTP/1.0 and HTTP/1.1 are spoken here" };
    /// The same, of the preface that HTTP/2 begins with (RFC 9113 §3.4): `GOAWAY` says it to its client.
    pub const PREFACE: Refusal = Refusal { status: 505, reason: "HTTP/2 is not spoken here" };
}
