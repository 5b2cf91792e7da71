//! What the access log is told of a request when it begins.

use std::net::SocketAddr;

use super::Context;
use crate::http::{Request, is_token};
use crate::observe::access::{Access, Seen, Ticket};

impl Context<'_> {
    /// Has the access log, if there is one, keep what is known of a request of the connection at work.
    #[inline]
    pub(in crate::worker) fn note(&self, request: &Request<'_>) -> Ticket {
        if self.access.is_none() { Ticket::NONE } else { self.note_whole(request) }
    }

    fn note_whole(&self, request: &Request<'_>) -> Ticket {
        let mut seen = Seen {
            version: request.version.name().as_bytes(),
            method: request.method.name().as_bytes(),
            host: &request.target.host,
            target: request.target.raw,
            remote: self.remote(),
            client: request.client,
            ..Seen::default()
        };
        for (name, value) in request.fields.iter() {
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => seen.host = value,
                7 if name.eq_ignore_ascii_case(b"referer") => seen.referrer = value,
                10 if name.eq_ignore_ascii_case(b"user-agent") => seen.agent = value,
                12 if name.eq_ignore_ascii_case(b"x-request-id") => seen.request_id = value,
                _ => {}
            }
        }
        self.open(seen)
    }

    /// The same of a request that is refused before its head is whole, or because of it: of what came of that.
    pub(in crate::worker) fn note_part(&self, head: &[u8]) -> Ticket {
        if self.access.is_none() {
            return Ticket::NONE;
        }
        let line = memchr::memchr(b'\n', head).map_or(head, |end| &head[..end]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let words = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        let [method, target, version] = words;
        let is_method = std::str::from_utf8(method).is_ok_and(is_token);
        // What it may say of where it comes from isn't known, or not to be believed.
        let remote = self.remote();
        let seen = Seen { remote, client: remote.map(|of| of.ip()), ..Seen::default() };
        if is_method && !target.is_empty() && version.starts_with(b"HTTP/") {
            self.open(Seen { method, target, version, ..seen })
        } else {
            self.open(Seen { target: line, ..seen })
        }
    }

    /// Who is at the other end of the connection at work, if that has an address and it is kept.
    pub(in crate::worker) fn remote(&self) -> Option<SocketAddr> {
        self.clients.as_ref()?.of(self.jobs.at_work.index).address
    }

    /// What was noted last: of a request that has panicked before its record was kept.
    pub(in crate::worker) fn last_ticket(&self) -> Ticket {
        self.access.map_or(Ticket::NONE, Access::last)
    }

    /// A step of another connection begins.
    pub(in crate::worker) fn forget_last_ticket(&self) {
        if let Some(access) = self.access {
            access.forget_last();
        }
    }

    fn open(&self, seen: Seen<'_>) -> Ticket {
        self.access.map_or(Ticket::NONE, |access| access.open(&seen))
    }
}
