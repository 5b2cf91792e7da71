//! By which labels of the ledger a request is counted. It counts none itself.

use crate::http::{self, Refusal};
pub(in crate::worker) use crate::observe::ledger::labels::Method;
use crate::observe::ledger::labels::RefusedFor;

/// The label of a method.
#[inline]
pub(in crate::worker) fn of_method(method: http::Method<'_>) -> Method {
    match method {
        http::Method::Get => Method::Get,
        http::Method::Head => Method::Head,
        http::Method::Post => Method::Post,
        http::Method::Put => Method::Put,
        http::Method::Patch => Method::Patch,
        http::Method::Delete => Method::Delete,
        http::Method::Options => Method::Options,
        http::Method::Other(_) => Method::Other,
    }
}

/// The label of the method with this name.
#[cfg(feature = "may")]
pub(in crate::worker) fn of_name(name: &str) -> Method {
    use http::Method::{Delete, Get, Head, Options, Patch, Post, Put};
    let known = [Get, Head, Post, Put, Patch, Delete, Options].into_iter();
    known.filter(|method| method.name() == name).map(of_method).next().unwrap_or(Method::Other)
}

/// The label of a refusal.
pub(in crate::worker) fn of_refusal(refusal: Refusal) -> RefusedFor {
    match refusal.status {
        408 => RefusedFor::Timeout,
        413 => RefusedFor::BodyTooLarge,
        414 => RefusedFor::RequestLineTooLong,
        417 => RefusedFor::Expectation,
        421 => RefusedFor::Misdirected,
        431 => RefusedFor::FieldsTooLarge,
        500 => RefusedFor::Panic,
        501 => RefusedFor::NotImplemented,
        503 => RefusedFor::Overloaded,
        505 => RefusedFor::Version,
        _ => RefusedFor::BadRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_label_of_its_own_and_all_malformed_requests_have_one() {
        for (refusal, label) in [
            (Refusal::bad_request("?"), RefusedFor::BadRequest),
            (Refusal::TIMEOUT, RefusedFor::Timeout),
            (Refusal::BODY_TOO_LARGE, RefusedFor::BodyTooLarge),
            (Refusal::REQUEST_LINE_TOO_LONG, RefusedFor::RequestLineTooLong),
            (Refusal::EXPECTATION, RefusedFor::Expectation),
            (Refusal::MISDIRECTED, RefusedFor::Misdirected),
            (Refusal::FIELDS_TOO_LARGE, RefusedFor::FieldsTooLarge),
            (Refusal::INTERNAL, RefusedFor::Panic),
            (Refusal::METHOD, RefusedFor::NotImplemented),
            (Refusal::TRANSFER_CODING, RefusedFor::NotImplemented),
            (Refusal::OVERLOADED, RefusedFor::Overloaded),
            (Refusal::VERSION, RefusedFor::Version),
            (Refusal::PREFACE, RefusedFor::Version),
        ] {
            assert_eq!(of_refusal(refusal), label, "{refusal:?}");
        }
    }
}
