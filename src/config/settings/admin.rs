//! `[admin]`: where the server tells of itself.

use serde::{Deserialize, Serialize};

use super::{SOCKET_MODE, SocketAccess};
use crate::config::value::{Account, Addresses, As, HostNames, ListenAddress, Permissions};

/// `[admin]`: the address of `/healthz`, `/readyz`, `/metrics` and `/status`, and who may ask there.
///
/// ```
/// use laneway::config::{Admin, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["admin.listen=127.0.0.1:9180".into(), "admin.hosts=Status.example.org".into()];
/// let Admin { listen, hosts, .. } = load(&options).expect("valid").config.admin;
/// assert_eq!(listen[0].to_string(), "127.0.0.1:9180");
/// assert_eq!(hosts, ["status.example.org"]);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Admin {
    /// Where it listens, if anywhere.
    #[serde(with = "As::<Addresses<true>>")]
    pub listen: Vec<ListenAddress>,
    /// The owner of its Unix sockets, by name or number, if not the user that the supervisor runs as.
    #[serde(with = "As::<Account>")]
    pub socket_owner: Option<String>,
    /// The group of its Unix sockets, by name or number, if not the supervisor's.
    #[serde(with = "As::<Account>")]
    pub socket_group: Option<String>,
    /// The permissions of its Unix sockets.
    #[serde(with = "As::<Permissions>")]
    pub socket_mode: u32,
    /// The names by which it may be asked, in lower case, beside `localhost` and every address.
    #[serde(with = "As::<HostNames>")]
    pub hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: Vec::new(),
            socket_owner: None,
            socket_group: None,
            socket_mode: SOCKET_MODE,
            hosts: Vec::new(),
        }
    }
}

impl Admin {
    /// Whose its Unix sockets are to be.
    pub(crate) fn socket_access(&self) -> SocketAccess<'_> {
        let (owner, group) = (self.socket_owner.as_deref(), self.socket_group.as_deref());
        SocketAccess { table: "admin", owner, group, mode: self.socket_mode }
    }
}
