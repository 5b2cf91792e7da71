//! `[server]`: where the server listens, and how it takes what comes there.

use serde::{Deserialize, Serialize};

use super::{ProxyProtocol, SOCKET_MODE, SocketAccess};
use crate::config::value::{Account, Addresses, As, ListenAddress, Number, Permissions, word};

/// `[server]`: where to listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Server {
    /// At least one address. Each lane binds its own socket to each; a Unix socket is one that all lanes share.
    #[serde(with = "As::<Addresses>")]
    pub listen: Vec<ListenAddress>,
    /// The owner of Unix sockets, by name or number, if not the user that the supervisor runs as.
    #[serde(with = "As::<Account>")]
    pub socket_owner: Option<String>,
    /// The group of Unix sockets, by name or number, if not the supervisor's.
    #[serde(with = "As::<Account>")]
    pub socket_group: Option<String>,
    /// The permissions of Unix sockets.
    #[serde(with = "As::<Permissions>")]
    pub socket_mode: u32,
    /// Accept queue asked for, per socket, in connections; at least 1.
    #[serde(with = "As::<Number<1, 1_048_576>>")]
    pub backlog: u32,
    /// Whether proxies say at the beginning of a connection whose it is.
    #[serde(deserialize_with = "word")]
    pub proxy_protocol: ProxyProtocol,
    /// Whether repeated slashes of a request's path count as one.
    pub merge_slashes: bool,
}

impl Default for Server {
    fn default() -> Server {
        let local = ([127, 0, 0, 1], 8080).into();
        Server {
            listen: vec![ListenAddress::Socket(local)],
            socket_owner: None,
            socket_group: None,
            socket_mode: SOCKET_MODE,
            backlog: 4096,
            proxy_protocol: ProxyProtocol::Off,
            merge_slashes: true,
        }
    }
}

impl Server {
    /// Whose its Unix sockets are to be.
    pub(crate) fn socket_access(&self) -> SocketAccess<'_> {
        let (owner, group) = (self.socket_owner.as_deref(), self.socket_group.as_deref());
        SocketAccess { table: "server", owner, group, mode: self.socket_mode }
    }
}
