//! `[access]`: whose word about clients is taken; and how proxies say whose connection they pass on.

use serde::{Deserialize, Serialize};

use super::{AccessLog, Config, Content};
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
    /// Whether a response tells its client the id that its request has in the access log, as `X-Request-Id`.
    pub send_request_id: bool,
}

impl Config {
    /// Whether something shows where requests come from, so that a lane keeps the addresses of its clients.
    pub(crate) fn shows_clients(&self) -> bool {
        self.server.proxy_protocol == ProxyProtocol::Required
            || self.log.access != AccessLog::Off
            || self.routes.iter().any(|route| matches!(route.content, Content::EchoRequest))
    }
}

/// `server.proxy_protocol`
///
/// ```
/// use laneway::config::{Options, ProxyProtocol, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["server.proxy_protocol=required".into()];
/// let errors = load(&options).expect_err("no proxy could connect");
/// assert!(errors.to_string().contains("`access.trusted_proxies` is empty"));
/// options.set.push("access.trusted_proxies=10.0.0.1".into());
/// let config = load(&options).expect("valid").config;
/// assert_eq!(config.server.proxy_protocol, ProxyProtocol::Required);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// Connections begin with a request.
    Off,
    /// Connections begin with a header of the PROXY protocol, version 1 or 2, and come from `access.trusted_proxies` alone.
    Required,
}
