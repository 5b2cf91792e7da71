//! `log.access` and `log.access_format`: where the access log is written, and how its lines look.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

#[cfg(feature = "_schema")]
use crate::config::value::schema::RANGE;

/// `log.access`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// There is none, and it costs nothing.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// This file; one that is written relative to the configuration file's folder.
    File(PathBuf),
}

/// `log.access_format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AccessFormat {
    /// One JSON object a line, with the names of Caddy's access log.
    Json,
    /// The format that nginx and Apache call combined.
    Combined,
}

impl AccessLog {
    /// Has a path that is relative begin at `folder`, if that can be written in a configuration.
    pub(crate) fn resolve_from(&mut self, folder: &Path) {
        if let AccessLog::File(path) = self
            && let Ok(absolute) = std::path::absolute(folder.join(&*path))
            && absolute.to_str().is_some()
        {
            *path = absolute;
        }
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLog::Off => f.write_str("off"),
            AccessLog::Stdout => f.write_str("stdout"),
            AccessLog::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for AccessLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Such a path was a text.
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = AccessLog;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\", \"stdout\" or a path in quotes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AccessLog, E> {
                match text {
                    "off" => Ok(AccessLog::Off),
                    "stdout" => Ok(AccessLog::Stdout),
                    "stderr" => Err(E::custom(
                        "standard error is the server's own log\nwrite \"stdout\" or a path in quotes, or \"off\"",
                    )),
                    path if path.is_empty() || path.ends_with('/') => Err(E::custom(format_args!(
                        "\"{path}\" is no file's path\nwrite \"off\" for no access log, \"stdout\", or a path in quotes"
                    ))),
                    path if path.contains('\0') => {
                        Err(E::custom("a path has no NUL in it\nwrite a path in quotes"))
                    }
                    path => Ok(AccessLog::File(path.into())),
                }
            }
        }
        deserializer.deserialize_str(V)
    }
}

#[cfg(feature = "_schema")]
impl schemars::JsonSchema for AccessLog {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AccessLog".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "[^/]$",
            "examples": ["off", "stdout", "/var/log/laneway/access.log"],
            (RANGE): "`\"off\"`, `\"stdout\"`, or a path; a relative one is below the file's folder.",
        })
    }
}
