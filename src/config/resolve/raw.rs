//! What a configuration says, before its routes are resolved: a route as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::settings::{Access, Limits, Log, Server, Supervisor, Timeouts, Workers};
use crate::config::value::{Number, Size, Time, some_word};

/// Longest body of a route, in bytes: it is held in memory.
pub(in crate::config) const ROUTE_BODY_BYTES_MAX: u64 = 64 << 20;

/// All tables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Raw {
    pub(in crate::config) server: Server,
    pub(in crate::config) workers: Workers,
    pub(in crate::config) supervisor: Supervisor,
    pub(in crate::config) limits: Limits,
    pub(in crate::config) timeouts: Timeouts,
    pub(in crate::config) log: Log,
    pub(in crate::config) access: Access,
    pub(in crate::config) route: Vec<Route>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Route {
    pub(in crate::config) path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(in crate::config) host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) body_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) bytes: Option<Size<0, ROUTE_BODY_BYTES_MAX>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_word")]
    pub(in crate::config) echo: Option<Echo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) status: Option<Number<200, 599>>,
    pub(in crate::config) delay: Time<0>,
    // Tables come last in TOML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) json: Option<toml::Value>,
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

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Echo {
    Body,
    Request,
}
