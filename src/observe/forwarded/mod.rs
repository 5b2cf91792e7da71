//! Where a request comes from, by what the proxies say that it has come through: X-Forwarded-For, and Forwarded
//! (RFC 7239). Pure: addresses and field values in, an address out.
//!
//! Each proxy adds the address of its own client at the end, so the end alone is sure. From there it goes backwards while
//! the address that was just learnt is a trusted proxy's, whose word the one before it is:
//!
//! ```text
//! X-Forwarded-For: 198.51.100.9, 203.0.113.7, 10.0.0.2      from 10.0.0.1; trusted: 10.0.0.0/8
//!                   anything       ▲ the client   └ trusted ◀── trusted
//! ```
//!
//! What can't be read ends it there: the request then comes from the last address that is sure.

mod element;

use std::net::IpAddr;

use crate::config::Networks;
use element::{Line, address};

/// Most proxies that a request is followed back through; no chain is as long, and each costs a search of
/// `access.trusted_proxies`.
pub const PROXIES_MAX: usize = 32;

/// The values of the field lines that proxies write, each in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Stated<F> {
    /// Of X-Forwarded-For. If there is one, Forwarded isn't looked at: most proxies write this field alone and pass on what
    /// a client has sent as the other.
    pub forwarded_for: F,
    /// Of Forwarded.
    pub forwarded: F,
}

/// Where a request comes from that has come over a connection from `peer`, a trusted proxy; `None` is one without an address,
/// on a Unix socket. `None` if that is the last that is known.
pub fn client<'f, F>(peer: Option<IpAddr>, trusted: &Networks, stated: Stated<F>) -> Option<IpAddr>
where
    F: DoubleEndedIterator<Item = &'f [u8]> + Clone,
{
    if stated.forwarded_for.clone().next().is_some() {
        let elements =
            stated.forwarded_for.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        // A list may have empty elements (RFC 9110 §5.6.1.2).
        let elements = elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty());
        follow(peer, trusted, elements.map(address))
    } else {
        follow(peer, trusted, stated.forwarded.rev().flat_map(|line| Line::read(line).rev()))
    }
}

/// Goes back through `hops`, the last of which comes first, as long as each is a trusted proxy; one that is `None` isn't
/// known.
fn follow(
    peer: Option<IpAddr>,
    trusted: &Networks,
    hops: impl Iterator<Item = Option<IpAddr>>,
) -> Option<IpAddr> {
    let mut last = peer;
    for hop in hops.take(PROXIES_MAX) {
        let Some(address) = hop else { break };
        last = Some(address);
        if !trusted.contains(address) {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;
