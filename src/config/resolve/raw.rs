//! What a configuration says, before its routes are resolved: a route as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::settings::{
    Access, Admin, Files, Limits, Log, Server, Supervisor, Symlinks, Timeouts, Workers,
};
use crate::config::value::{ByPattern, Number, Size, Texts, Time, some_word};

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
    pub(in crate::config) files: Files,
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
    /// Answers with the files below this folder; a relative path starts from the folder of the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) files: Option<String>,
    /// The file that answers for a folder, or a list of which the first that is there does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) index: Option<Texts>,
    /// Whether a folder without such a file is answered with a list of what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) listing: Option<bool>,
    /// The file that answers where there is none, if a browser navigates there: for applications of a single page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) fallback: Option<String>,
    /// The file that says that there is none, with the status 404.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) not_found: Option<String>,
    /// Whether `/about` is answered with `about.html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) clean_urls: Option<bool>,
    /// Whether names that begin with a dot are served; below `/.well-known/` they are in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) dotfiles: Option<bool>,
    /// Which symbolic links are followed: relative ones that stay below the folder, or none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_word")]
    pub(in crate::config) symlinks: Option<Symlinks>,
    /// Whether the `.zst`, `.br` or `.gz` beside a file is sent to clients that take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) precompressed: Option<bool>,
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
    /// The Cache-Control of its files: one for all, or one for each pattern of names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) cache_control: Option<ByPattern>,
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
            files: None,
            index: None,
            listing: None,
            fallback: None,
            not_found: None,
            clean_urls: None,
            dotfiles: None,
            symlinks: None,
            precompressed: None,
            redirect: None,
            echo: None,
            status: None,
            delay: Time(Duration::ZERO),
            json: None,
            cache_control: None,
            headers: BTreeMap::new(),
        }
    }
}

impl Route {
    /// The kinds of content that there are, of which a route is one, and whether it states each.
    pub(in crate::config) fn kinds(&self) -> [(&'static str, bool); 7] {
        [
            ("text", self.text.is_some()),
            ("json", self.json.is_some()),
            ("body_file", self.body_file.is_some()),
            ("bytes", self.bytes.is_some()),
            ("files", self.files.is_some()),
            ("redirect", self.redirect.is_some()),
            ("echo", self.echo.is_some()),
        ]
    }

    /// The keys that are of files alone, and whether it states each.
    pub(in crate::config) fn of_files(&self) -> [(&'static str, bool); 9] {
        [
            ("index", self.index.is_some()),
            ("listing", self.listing.is_some()),
            ("fallback", self.fallback.is_some()),
            ("not_found", self.not_found.is_some()),
            ("clean_urls", self.clean_urls.is_some()),
            ("dotfiles", self.dotfiles.is_some()),
            ("symlinks", self.symlinks.is_some()),
            ("precompressed", self.precompressed.is_some()),
            ("cache_control", self.cache_control.is_some()),
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
