//! `[access]`: whose word about clients is taken.

use serde::{Deserialize, Serialize};

use super::{Config, Content};
use crate::config::value::Networks;

/// `[access]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Access {
    /// The proxies in front of this server. What they say of where a request comes from is believed, and nothing that
    /// other clients say of it. What comes over a Unix socket is trusted as well.
    pub trusted_proxies: Networks,
}

impl Config {
    /// Whether something shows where requests come from, so that a lane keeps the addresses of its clients.
    pub(crate) fn shows_clients(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.content, Content::EchoRequest))
    }
}
