//! Names of hosts, as people write them, and what is wrong with those that are none.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::address::is_name;

/// Longest host, in bytes without a final dot: no name in DNS is longer (RFC 1035 §2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// One name or a list of them, or none; in lower case, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct HostNames(Vec<String>);

impl From<HostNames> for Vec<String> {
    fn from(written: HostNames) -> Vec<String> {
        written.0
    }
}

impl From<Vec<String>> for HostNames {
    fn from(names: Vec<String>) -> HostNames {
        HostNames(names)
    }
}

impl<'de> Deserialize<'de> for HostNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = HostNames;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host's name such as \"status.example.org\", or a list of such")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<HostNames, E> {
                host_name(text).map(|name| HostNames(vec![name]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HostNames, A::Error> {
                let mut names = Vec::new();
                while let Some(HostName(name)) = list.next_element()? {
                    names.push(name);
                }
                Ok(HostNames(names))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for HostNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// One element of such a list.
struct HostName(String);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = HostName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host's name such as \"status.example.org\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<HostName, E> {
                host_name(text).map(HostName)
            }
        }
        deserializer.deserialize_any(V)
    }
}

fn host_name<E: Error>(text: &str) -> Result<String, E> {
    let wrong = |what: &str, help: &str| {
        Err(E::custom(format_args!("\"{text}\" is no host's name: {what}\n{help}")))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if bare.parse::<IpAddr>().is_ok() {
        return wrong("it is an address", "leave it out: every address is allowed");
    }
    if name.contains("://") {
        return wrong("it is a URL", "write the name alone, such as \"status.example.org\"");
    }
    if name.contains('*') {
        return wrong("it has a `*`", "write each name, such as \"status.example.org\"");
    }
    if name.contains(':') {
        return wrong("it has a port", "write the name alone: it is allowed with any port");
    }
    if name.len() > HOST_BYTES_MAX {
        return wrong("it is too long", "no name in DNS has more than 253 bytes");
    }
    if !is_name(name) {
        return wrong("it is malformed", "it has letters, digits, hyphens, underscores and dots");
    }
    Ok(name.to_ascii_lowercase())
}
