//! Files that lie beside a file as precompressed forms of it, and which of them a request is answered with: content codings
//! (RFC 9110 §8.4.1, §12.5.3).

use super::terms::{Term, Weight, elements, split, weight};
use crate::http::Fields;

/// How a file beside another one is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them. Of two that a client wants as much, the one that comes first is sent.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// What the name of a file so coded has behind the name of the file.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Zstd => ".zst",
            Coding::Br => ".br",
            Coding::Gzip => ".gz",
        }
    }

    /// As `Content-Encoding` states it.
    pub fn token(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// A recipient should take `x-gzip` for `gzip` (RFC 9110 §8.4.1.3).
    fn is(self, name: &[u8]) -> bool {
        let is = |token: &str| name.eq_ignore_ascii_case(token.as_bytes());
        is(self.token()) || self == Coding::Gzip && is("x-gzip")
    }
}

/// How much a request wants each coding, and none: in thousandths, 0 for not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptable {
    codings: [Weight; Coding::ALL.len()],
    identity: Identity,
}

/// What a request says of the file as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// Nothing: it is accepted where nothing better is to be had.
    Unmentioned,
    /// It is wanted so much.
    Weighed(Weight),
}

/// What a request with these fields accepts.
pub fn acceptable(fields: Fields<'_>) -> Acceptable {
    let mut codings = [None; Coding::ALL.len()];
    let mut identity = None;
    let mut others = None;
    for element in elements(Term::AcceptEncoding.values(fields)) {
        let mut parts = split(element, b';');
        let name = parts.next().unwrap_or_default();
        let Some(weight) = weight(parts) else { continue };
        let known = Coding::ALL.iter().position(|coding| coding.is(name));
        let stated = match known {
            Some(index) => &mut codings[index],
            None if name.eq_ignore_ascii_case(b"identity") => &mut identity,
            None if name == b"*" => &mut others,
            None => continue,
        };
        stated.get_or_insert(weight);
    }
    Acceptable {
        codings: codings.map(|stated| stated.or(others).unwrap_or(0)),
        identity: identity.or(others).map_or(Identity::Unmentioned, Identity::Weighed),
    }
}

impl Acceptable {
    /// The coding to answer with, of those that there are; `Some(None)` is the file as it is. `None`: the request refuses
    /// that, and accepts nothing that there is. `has` is asked for what may be sent alone, the best first, until it says
    /// yes.
    pub fn choose(&self, mut has: impl FnMut(Coding) -> bool) -> Option<Option<Coding>> {
        let least = match self.identity {
            Identity::Unmentioned | Identity::Weighed(0) => 1,
            Identity::Weighed(weight) => weight,
        };
        let mut candidates = Coding::ALL.map(|coding| (self.codings[coding as usize], coding));
        // Stable: where a client wants two as much, the order of `Coding::ALL` stays.
        candidates.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let mut candidates = candidates.into_iter().filter(|(weight, _)| *weight >= least);
        match candidates.find(|(_, coding)| has(*coding)) {
            Some((_, coding)) => Some(Some(coding)),
            None if self.identity == Identity::Weighed(0) => None,
            None => Some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::tests::with_request;
    use super::Coding::*;
    use super::*;

    fn of(lines: &str) -> Acceptable {
        with_request("GET", "/", lines, |request| acceptable(request.fields))
    }

    #[test]
    fn the_coding_that_a_client_wants_most_is_sent() {
        let all = &Coding::ALL[..];
        for (available, field, expected) in [
            // "An Accept-Encoding header field with a field value that is empty implies that the user agent does not
            // want any content coding in response."
            (all, "", Some(None)),
            (all, "gzip, deflate, br, zstd", Some(Some(Zstd))),
            (&[Br, Gzip], "gzip, deflate, br, zstd", Some(Some(Br))),
            (&[], "gzip, deflate, br, zstd", Some(None)),
            (all, "gzip", Some(Some(Gzip))),
            (all, "X-GZip", Some(Some(Gzip))),
            (all, "GZIP;q=1.0", Some(Some(Gzip))),
            (all, "gzip;q=0.5, br;q=0.501", Some(Some(Br))),
            (all, "gzip ; q=0.9 , br ; q=0.1", Some(Some(Gzip))),
            (all, "gzip;q=0.5, identity", Some(None)),
            (all, "gzip, identity", Some(Some(Gzip))),
            // What a client mentions it wants more than what it doesn't.
            (all, "gzip;q=0.001", Some(Some(Gzip))),
            (all, "gzip;q=0", Some(None)),
            // The asterisk stands for what is not listed, identity among it.
            (all, "*", Some(Some(Zstd))),
            (all, "*, zstd;q=0", Some(Some(Br))),
            (all, "zstd;q=0.1, *;q=0.5", Some(Some(Br))),
            (&[Gzip], "gzip;q=0.1, *;q=0.5", Some(None)),
            // "identity;q=0", or "*;q=0" without an entry for identity, forbids it.
            (all, "identity;q=0", None),
            (all, "gzip, identity;q=0", Some(Some(Gzip))),
            (&[], "gzip, identity;q=0", None),
            (&[Br], "gzip, *;q=0", None),
            (&[Br], "gzip, *;q=0, identity", Some(None)),
            (all, "identity;q=0, *;q=0.1", Some(Some(Zstd))),
            // What is malformed or unknown says nothing.
            (all, "gzip;q=2, br;q=x", Some(None)),
            (all, "compress, gzip2, brr", Some(None)),
        ] {
            let lines = format!("Accept-Encoding: {field}\r\n");
            let chosen = of(&lines).choose(|coding| available.contains(&coding));
            assert_eq!(chosen, expected, "{available:?} by {field:?}");
        }
        // Without the field "any content coding is considered acceptable": the plainest, then.
        assert_eq!(of("").choose(|_| true), Some(None));
        let two_lines = "Accept-Encoding: br;q=0.1\r\nAccept-Encoding: gzip\r\n";
        assert_eq!(of(two_lines).choose(|_| true), Some(Some(Gzip)));
    }

    #[test]
    fn nothing_is_looked_for_that_would_not_be_sent() {
        let asked = |field: &str| {
            let mut asked = Vec::new();
            of(&format!("Accept-Encoding: {field}\r\n")).choose(|coding| {
                asked.push(coding);
                false
            });
            asked
        };
        assert_eq!(asked("gzip"), [Gzip]);
        assert_eq!(asked("gzip, br;q=0.5, zstd;q=0"), [Gzip, Br]);
        assert_eq!(asked("identity, br;q=0.5"), []);
        assert_eq!(asked(""), []);
    }
}
