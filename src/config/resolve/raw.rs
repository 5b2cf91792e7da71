//! What a configuration says, before its routes are resolved: a route as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::settings::{Access, Admin, Limits, Log, Server, Supervisor, Timeouts, Workers};
use crate::config::value::{Number, Size, Time, some_word};

/// Longest body of a route, in bytes: it is held in memory.
pub(in crate::config) const ROUTE_BODY_BYTES_MAX: u64 = 64 << 20;

/// All tables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
pub(in crate::config) struct Raw {
    pub(in crate::config) server: Server,
    pub(in crate::config) workers: Workers,
    pub(in crate::config) supervisor: Supervisor,
    pub(in crate::config) limits: Limits,
    pub(in crate::config) timeouts: Timeouts,
    pub(in crate::config) log: Log,
    pub(in crate::config) access: Access,
    pub(in crate::config) admin: Admin,
    pub(in crate::config) route: Vec<Route>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
pub(in crate::config) struct Route {
    /// Which request paths it takes: this one, or with `/*` at its end all below it.
    pub(in crate::config) path: String,
    /// Only for requests to this host; empty is any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in crate::config) host: String,
    /// Answers with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) text: Option<String>,
    /// Answers with what this file has when the configuration loads, 64 MiB at most; a relative path starts from the
    /// folder of the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) body_file: Option<String>,
    /// Answers with a body of this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) bytes: Option<Size<0, ROUTE_BODY_BYTES_MAX>>,
    /// Answers with a redirect to this URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) redirect: Option<String>,
    /// Answers with what came.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_word")]
    pub(in crate::config) echo: Option<Echo>,
    /// Status of the response: 200 if nothing else is said; of a redirect 308, and then one of 301, 302, 303, 307, 308.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) status: Option<Number<200, 599>>,
    /// How long the response waits before it is sent.
    pub(in crate::config) delay: Time<0>,
    // Tables come last in TOML.
    /// Answers with this as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "_schema", schemars(with = "serde_json::Value"))]
    pub(in crate::config) json: Option<toml::Value>,
    /// Fields of the response, but for those that the server sets itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::config) headers: BTreeMap<String, String>,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            path: String::new(),
            host: String::new(),
            text: None,
            body_file: None,
            bytes: None,
            redirect: None,
            echo: None,
            status: None,
            delay: Time(Duration::ZERO),
            json: None,
            headers: BTreeMap::new(),
        }
    }
}

impl Route {
    /// The kinds of content that there are, of which a route is one, and whether it states each.
    pub(in crate::config) fn kinds(&self) -> [(&'static str, bool); 6] {
        [
            ("text", self.text.is_some()),
            ("json", self.json.is_some()),
            ("body_file", self.body_file.is_some()),
            ("bytes", self.bytes.is_some()),
            ("redirect", self.redirect.is_some()),
            ("echo", self.echo.is_some()),
        ]
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
pub(in crate::config) enum Echo {
    /// The request's body.
    Body,
    /// The request as JSON.
    Request,
}
