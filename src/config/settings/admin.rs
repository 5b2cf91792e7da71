//! `[admin]`: where the server tells of itself.

use serde::{Deserialize, Serialize};

use crate::config::value::{Addresses, As, HostNames, ListenAddress};

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Admin {
    /// Where it listens, if anywhere.
    #[serde(with = "As::<Addresses<true>>")]
    pub listen: Vec<ListenAddress>,
    /// The names by which it may be asked, in lower case, beside `localhost` and every address.
    #[serde(with = "As::<HostNames>")]
    pub hosts: Vec<String>,
}
