//! What the entries of `server.listen` stand for. It waits for the resolver, so it runs at the start and in the loader
//! process, never in the supervisor's loop.

use std::net::ToSocketAddrs;

use crate::config::ListenAddress;
use crate::sys::socket::Address;

/// What an entry of `server.listen` stands for, or why nothing is known of it.
pub(crate) type Resolved = Result<Vec<Address>, String>;

/// Looks up what an entry stands for. Waits for the resolver if it is a name.
pub(crate) fn resolve(listen: &ListenAddress) -> Resolved {
    match listen {
        ListenAddress::Socket(address) => Ok(vec![(*address).into()]),
        ListenAddress::Unix(path) => Ok(vec![Address::Unix(path.clone())]),
        ListenAddress::Name(name, port) => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|error| error.to_string())?;
            let mut addresses: Vec<_> = found.map(Address::from).collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses)
        }
    }
}
