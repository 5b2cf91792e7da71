//! What the entries of `server.listen` stand for. It waits for the resolver, so it runs at the start and in the loader
//! process, never in the supervisor's loop.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::config::ListenAddress;

/// What an entry of `server.listen` stands for, or why nothing is known of it.
pub(crate) type Resolved = Result<Vec<SocketAddr>, String>;

/// Looks up what an entry stands for. Waits for the resolver if it is a name.
pub(crate) fn resolve(listen: &ListenAddress) -> Resolved {
    match listen {
        ListenAddress::Socket(address) => Ok(vec![*address]),
        ListenAddress::Name(name, port) => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let mut addresses: Vec<_> = found.map_err(|error| error.to_string())?.collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses)
        }
    }
}
