//! The environment: which variables are settings, which are Kubernetes', and which were meant to be settings.

use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::value::names::nearest;

/// What the name of a variable begins with.
const PREFIX: &str = "LANEWAY_";
/// Variables that are no settings: what one supervisor tells the next, and what a debug build is told to fail at.
const OTHERS: [&str; 2] = ["LANEWAY_UPGRADE", "LANEWAY_FAULTS"];

/// Whether colours are wanted on a terminal: not with `NO_COLOR` (no-color.org), nor where it can't show them.
pub fn takes_colour(environment: &[(String, String)]) -> bool {
    let value = |name: &str| environment.iter().find(|(of, _)| of == name).map(|(_, value)| value);
    value("NO_COLOR").is_none_or(|value| value.is_empty())
        && value("TERM").is_none_or(|term| term != "dumb")
}

/// What a variable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Variable {
    /// The setting `table.key`, known or not.
    Setting(Vec<String>),
    /// Probably meant as a setting, and not one.
    Unknown,
    /// None of laneway's.
    Other,
}

impl Variable {
    /// What the variable `name` is, of which `is_key` says whether a table and key exist.
    ///
    /// `LANEWAY_TABLE__KEY` is a setting. Kubernetes makes `LANEWAY_PORT` and its like of a service that is called
    /// so, and of one called `laneway-` and more, with a `__` if its name has `--`.
    pub(in crate::config) fn of(
        name: &str,
        value: &str,
        is_key: impl Fn(&str, &str) -> bool,
    ) -> Variable {
        let upper = name.to_uppercase();
        if OTHERS.contains(&upper.as_str()) || !upper.starts_with(PREFIX) {
            return Variable::Other;
        }
        let setting = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__"));
        match setting.map(|(table, key)| (table.to_lowercase(), key.to_lowercase())) {
            Some((table, key)) if is_key(&table, &key) || !is_service_link(name, value) => {
                Variable::Setting(vec![table, key])
            }
            None if !is_service_link(name, value) => Variable::Unknown,
            _ => Variable::Other,
        }
    }
}

/// Whether Kubernetes (or Docker's links) made this variable of a service: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_HTTP`, `…_PORT=tcp://…`, `…_PORT_80_TCP`, `…_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") {
        return true;
    }
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, found)| {
        let mut parts = name[at + found.len()..].split('_');
        let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        let protocol = parts.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
        let last = parts.next().is_none_or(|last| matches!(last, "ADDR" | "PORT" | "PROTO"));
        number && protocol && last
    })
}

/// Warns of a variable that is none of the settings. `keys` are all tables with their keys.
pub(in crate::config) fn unknown(
    name: &str,
    place: Place,
    keys: &[(&'static str, &'static [&'static str])],
) -> Diagnostic {
    let title = format!("the variable {name} is no setting, and is ignored");
    let diagnostic = Diagnostic::new(title, Some(place));
    let rest = name.to_uppercase()[PREFIX.len()..].to_lowercase();
    let form = "a setting is LANEWAY_TABLE__KEY, with two underscores between, such as \
                LANEWAY_WORKERS__COUNT";
    match meant(&rest, keys) {
        Some(setting) => diagnostic.label(format!("did you mean {setting}?")).help(form),
        None if rest == "config" => {
            diagnostic.label("`--config FILE` names the configuration file").help(form)
        }
        None => diagnostic.help(form),
    }
}

/// The setting that `rest`, what stands behind the prefix in lower case, was probably meant to be.
fn meant(rest: &str, keys: &[(&'static str, &'static [&'static str])]) -> Option<String> {
    let bare = |name: &str| name.replace(['_', '.', '-'], "");
    let all = || keys.iter().flat_map(|(table, keys)| keys.iter().map(move |key| (*table, *key)));
    let same = all().find(|(table, key)| bare(&format!("{table}{key}")) == bare(rest));
    let found = same.or_else(|| {
        let (table, key) = rest.split_once("__").or_else(|| rest.split_once('_'))?;
        let tables: Vec<_> = keys.iter().map(|(table, _)| *table).collect();
        let table = nearest(table, &tables)?;
        let (_, keys) = keys.iter().find(|(of, _)| *of == table)?;
        Some((table, nearest(key, keys)?))
    });
    let found = found.or_else(|| all().find(|(_, key)| *key == rest));
    let found = found.or_else(|| {
        // What other servers call it.
        let listens = ["port", "host", "addr", "address", "bind", "listen_address"];
        listens.contains(&rest).then_some(("server", "listen"))
    });
    let found = found.or_else(|| {
        ["threads", "processes", "cpus"].contains(&rest).then_some(("workers", "count"))
    });
    let (table, key) = found?;
    Some(format!("{PREFIX}{}__{}", table.to_uppercase(), key.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_service_links_are_told_from_settings() {
        let is_key = |table: &str, key: &str| table == "workers" && key == "count";
        let setting = |table: &str, key: &str| Variable::Setting(vec![table.into(), key.into()]);
        // (name, value, what it is)
        let cases = [
            ("LANEWAY_WORKERS__COUNT", "4", setting("workers", "count")),
            ("LANEWAY_WORKER__COUNT", "4", setting("worker", "count")),
            ("LANEWAY_WORKERS_COUNT", "4", Variable::Unknown),
            ("laneway_workers__count", "4", Variable::Unknown),
            ("LANEWAY_PORT", "8080", Variable::Unknown),
            ("LANEWAY_PORT", "tcp://10.0.0.1:80", Variable::Other),
            ("LANEWAY_SERVICE_HOST", "10.0.0.1", Variable::Other),
            ("LANEWAY_SERVICE_PORT", "80", Variable::Other),
            ("LANEWAY_SERVICE_PORT_HTTP", "80", Variable::Other),
            ("LANEWAY_API_SERVICE_HOST", "10.0.0.1", Variable::Other),
            ("LANEWAY_API_PORT_8080_TCP_ADDR", "10.0.0.1", Variable::Other),
            ("LANEWAY_API_PORT_8080_TCP", "tcp://10.0.0.1:8080", Variable::Other),
            ("LANEWAY_PORT_53_UDP_PROTO", "udp", Variable::Other),
            ("LANEWAY_MY__API_PORT_80_TCP_PORT", "80", Variable::Other),
            ("LANEWAY_MY__API_SERVICE_HOST", "10.0.0.1", Variable::Other),
            ("LANEWAY_MY__API_PORT", "tcp://10.0.0.1:80", Variable::Other),
            ("LANEWAY_PORT_80_TCP_MORE", "", Variable::Unknown),
            ("LANEWAY_UPGRADE", "3", Variable::Other),
            ("PATH", "/bin", Variable::Other),
        ];
        for (name, value, expected) in cases {
            assert_eq!(Variable::of(name, value, is_key), expected, "{name}={value}");
        }
    }
}
