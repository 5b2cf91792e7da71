//! What one value of a route must be, by itself.

use std::path::Path;

use crate::config::HOST_BYTES_MAX;
use crate::config::settings::{Content, RoutePath};
use crate::http::{is_field_value, is_token, media_type};

/// What is wrong with a value, and what to do about it.
pub(super) struct Wrong {
    pub(super) title: String,
    pub(super) help: &'static str,
}

pub(super) fn wrong(title: impl Into<String>, help: &'static str) -> Wrong {
    Wrong { title: title.into(), help }
}

pub(super) fn path(path: &str, merge_slashes: bool) -> Result<RoutePath, Wrong> {
    if !path.starts_with('/') {
        return Err(wrong("a route's `path` begins with a slash", "such as path = \"/hello\""));
    }
    if path.bytes().any(|byte| byte <= b' ' || matches!(byte, b'?' | b'#' | 0x7f)) {
        let title = "a route's `path` has no white space, control character, `?` or `#`";
        return Err(wrong(
            title,
            "it is compared with the request's path, decoded, without its query",
        ));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        let title = "a route's `path` has no `.` or `..` segment";
        return Err(wrong(
            title,
            "requests lose theirs before they are routed, so it would never match",
        ));
    }
    if merge_slashes && path.contains("//") {
        return Err(wrong(
            "a route's `path` has no `//`",
            "requests have theirs merged before they are routed, so it would never match; \
             server.merge_slashes = false leaves them",
        ));
    }
    match (path.strip_suffix('*'), path.find('*')) {
        (None, None) => Ok(RoutePath::Exact(path.to_owned())),
        (Some(prefix), Some(star)) if star == prefix.len() && prefix.ends_with('/') => {
            Ok(RoutePath::Prefix(prefix.to_owned()))
        }
        _ => Err(wrong(
            "`*` stands only at the end of a path, as in `/assets/*`",
            "it means everything below",
        )),
    }
}

/// The host in lower case; empty means any.
pub(super) fn host(host: &str) -> Result<Option<String>, Wrong> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    if !valid || host.starts_with('.') {
        let title = "a route's `host` is a name or an address, without a port";
        return Err(wrong(title, "such as host = \"example.org\""));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.len() > HOST_BYTES_MAX {
        let title = format!("a route's `host` has {} bytes", host.len());
        return Err(wrong(title, "no name in DNS has more than 253"));
    }
    Ok(Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty()))
}

/// Fields that the server itself sets, because they frame the message or govern the connection.
pub(super) const OWN_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

/// Whether a response may have this field of a route's.
pub(super) fn check_field(name: &str, value: &str, redirects: bool) -> Result<(), Wrong> {
    if redirects && name.eq_ignore_ascii_case("location") {
        return Err(wrong(format!("`{name}` is what `redirect` says"), "leave one of them out"));
    }
    if !is_token(name) {
        return Err(wrong(
            format!("`{name}` is not a field name"),
            "it has letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 §5.1)",
        ));
    }
    if OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        let title = format!("`{name}` is set by the server");
        return Err(wrong(title, "leave it out: it frames the message or governs the connection"));
    }
    if !is_field_value(value) {
        let title = format!("the value of `{name}` is not a field value");
        return Err(wrong(title, "it has no control characters, and no white space at its ends"));
    }
    Ok(())
}

pub(super) fn check_location(location: &str) -> Result<(), Wrong> {
    if location.is_empty() || location.contains(' ') || !is_field_value(location) {
        return Err(wrong(
            "`redirect` is not a URI",
            "such as redirect = \"/new\" or \"https://example.org/\"",
        ));
    }
    Ok(())
}

pub(super) fn default_status(content: &Content) -> u16 {
    if matches!(content, Content::Redirect(_)) { 308 } else { 200 }
}

/// Statuses that a redirect may have.
pub(super) const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Statuses of responses that have no body.
pub(super) const WITHOUT_BODY: [u16; 3] = [204, 205, 304];

pub(super) fn check_status(status: u16, content: &Content) -> Result<(), Wrong> {
    let check_may_have_body = |help| match WITHOUT_BODY.contains(&status) {
        true => Err(wrong(format!("a {status} response has no body"), help)),
        false => Ok(()),
    };
    match content {
        Content::Redirect(_) if !REDIRECTS.contains(&status) => Err(wrong(
            format!("{status} is not a redirect"),
            "a redirect's status is 301, 302, 303, 307 or 308",
        )),
        Content::Fixed { body, .. } if !body.is_empty() => check_may_have_body("use text = \"\""),
        Content::Files(_) if status != 200 => {
            Err(wrong("a file's status is its own", "leave `status` out"))
        }
        Content::EchoBody | Content::EchoRequest => check_may_have_body("an echo is one"),
        _ => Ok(()),
    }
}

/// TOML as JSON. Dates become strings.
pub(super) fn json(value: &toml::Value) -> Result<Vec<u8>, Wrong> {
    fn convert(value: &toml::Value) -> Option<serde_json::Value> {
        Some(match value {
            toml::Value::String(text) => text.clone().into(),
            toml::Value::Integer(number) => (*number).into(),
            toml::Value::Float(number) => serde_json::Number::from_f64(*number)?.into(),
            toml::Value::Boolean(truth) => (*truth).into(),
            toml::Value::Datetime(time) => time.to_string().into(),
            toml::Value::Array(list) => {
                list.iter().map(convert).collect::<Option<Vec<_>>>()?.into()
            }
            toml::Value::Table(table) => {
                let members =
                    table.iter().map(|(name, value)| Some((name.clone(), convert(value)?)));
                serde_json::Value::Object(members.collect::<Option<_>>()?)
            }
        })
    }
    let value =
        convert(value).ok_or_else(|| wrong("JSON has no inf and no nan", "use a string"))?;
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    Ok(text)
}

/// The media type of a file by its name. A short table: a file of any other kind states its type in `headers`.
pub(super) fn content_type(name: &str) -> &'static str {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" => media_type::TEXT,
        "json" => media_type::JSON,
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => media_type::BYTES,
    }
}
