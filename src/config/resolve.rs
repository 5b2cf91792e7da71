//! From the mirror to the resolved [`Config`]: what one key can't know of another, and the routes' bodies.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::engine;
use super::merge::Places;
use super::raw::{self, ROUTE_BODY_BYTES_MAX, Raw};
use super::{
    Config, Content, HOST_BYTES_MAX, Limits, Log, Route, RoutePath, Server, Supervisor, Timeouts,
    Workers,
};
use crate::sys::file::{self, Links};

/// Most routes.
const ROUTES_MAX: usize = 100_000;
/// What the server answers when no route is configured.
const GREETING: &str = "Hello from laneway\n";

/// Where to tell of what is wrong, and of what is probably not meant.
pub(super) struct Told<'t> {
    pub(super) errors: &'t mut Vec<Diagnostic>,
    pub(super) warnings: &'t mut Vec<Diagnostic>,
}

/// Resolves `raw`, adding the greeting to it if it has no route. The result is only of use if no error is told.
pub(super) fn resolve(
    raw: &mut Raw,
    file: Option<PathBuf>,
    places: &Places,
    told: Told<'_>,
) -> Config {
    let diagnostics = told.errors;
    if raw.route.is_empty() {
        let text = Some(GREETING.to_owned());
        raw.route.push(raw::Route { path: "/".into(), text, ..raw::Route::default() });
    }
    let supervisor = &raw.supervisor;
    if supervisor.restart_delay.0 > supervisor.restart_delay_max.0 {
        let place = ["supervisor.restart_delay", "supervisor.restart_delay_max"]
            .iter()
            .find_map(|key| places.get(*key).cloned());
        let title = "`supervisor.restart_delay` is longer than `supervisor.restart_delay_max`";
        diagnostics.push(Diagnostic::new(title, place));
    }
    engine::check(raw, places, diagnostics);
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    // What is printed of this loads to the same from any folder.
    for name in raw.route.iter_mut().filter_map(|route| route.body_file.as_mut()) {
        if let Ok(path) = std::path::absolute(folder.join(&*name))
            && let Some(path) = path.to_str()
        {
            *name = path.to_owned();
        }
    }
    let merge_slashes = raw.server.merge_slashes;
    let mut routes = Routes {
        folder,
        merge_slashes,
        places,
        diagnostics,
        warnings: told.warnings,
        seen: HashMap::new(),
    };
    let routes = routes.resolve(&raw.route);
    Config {
        file,
        is_written: false, // What reads the file knows.
        server: Server {
            listen: raw.server.listen.0.clone(),
            backlog: raw.server.backlog.0,
            merge_slashes,
        },
        workers: Workers {
            mode: raw.workers.mode,
            count: raw.workers.count,
            pin: raw.workers.pin,
            accept: raw.workers.accept,
            engine: raw.workers.engine,
            driver: raw.workers.driver,
            max_connections: raw.workers.max_connections.0,
        },
        supervisor: Supervisor {
            drain_timeout: supervisor.drain_timeout.0,
            ready_timeout: supervisor.ready_timeout.0,
            restart_delay: supervisor.restart_delay.0,
            restart_delay_max: supervisor.restart_delay_max.0,
            max_restarts: supervisor.max_restarts.0,
            restart_window: supervisor.restart_window.0,
            watchdog: supervisor.watchdog.0,
            pid_file: (!supervisor.pid_file.as_os_str().is_empty())
                .then(|| supervisor.pid_file.clone()),
            user: Some(supervisor.user.clone()).filter(|user| !user.is_empty()),
            group: Some(supervisor.group.clone()).filter(|group| !group.is_empty()),
        },
        limits: Limits {
            request_line: raw.limits.request_line.0 as usize,
            header_bytes: raw.limits.header_bytes.0 as usize,
            headers: raw.limits.headers.0 as usize,
            body: raw.limits.body.0,
            body_rate: raw.limits.body_rate.0,
            requests_per_connection: raw.limits.requests_per_connection.0,
        },
        timeouts: Timeouts {
            header: raw.timeouts.header.0,
            body: raw.timeouts.body.0,
            keep_alive: raw.timeouts.keep_alive.0,
            write: raw.timeouts.write.0,
        },
        // What the environment says of colours follows.
        log: Log { level: raw.log.level, format: raw.log.format, colour: false },
        routes,
        warnings: Vec::new(),
    }
}

/// What is wrong with a value, and what to do about it.
struct Wrong {
    title: String,
    help: &'static str,
}

fn wrong(title: impl Into<String>, help: &'static str) -> Wrong {
    Wrong { title: title.into(), help }
}

struct Routes<'r> {
    /// What a relative `body_file` starts from.
    folder: PathBuf,
    merge_slashes: bool,
    places: &'r Places,
    diagnostics: &'r mut Vec<Diagnostic>,
    warnings: &'r mut Vec<Diagnostic>,
    /// Which route has a host and path already.
    seen: HashMap<(Option<String>, RoutePath), usize>,
}

impl Routes<'_> {
    fn resolve(&mut self, raw: &[raw::Route]) -> Vec<Route> {
        if raw.len() > ROUTES_MAX {
            let title = format!("there are {} routes; at most {ROUTES_MAX} are allowed", raw.len());
            self.diagnostics.push(Diagnostic::new(title, None));
        }
        raw.iter().enumerate().filter_map(|(index, route)| self.route(index, route)).collect()
    }

    /// One route; every key of it that is wrong is told of.
    fn route(&mut self, index: usize, raw: &raw::Route) -> Option<Route> {
        let headers: Vec<_> =
            raw.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let path = self.keep(index, "path", path(&raw.path, self.merge_slashes));
        let host = self.keep(index, "host", host(&raw.host));
        let valid_headers = self.check_headers(index, &headers, raw.redirect.is_some());
        self.warn_of_pattern(index, &raw.path);
        let content = self.content(index, raw);
        let status = content.as_ref().and_then(|(kind, content)| {
            let status = raw.status.map_or(default_status(content), |status| status.0 as u16);
            let key = if raw.status.is_some() { "status" } else { *kind };
            self.keep(index, key, check_status(status, content)).map(|()| status)
        });
        let (path, host) = (path?, host?);
        if let Some(first) = self.seen.insert((host.clone(), path.clone()), index) {
            let title =
                format!("route {} has the same path and host as route {}", index + 1, first + 1);
            let here = self.place(index, "path").cloned();
            let there = self.place(first, "path").cloned();
            let diagnostic = Diagnostic::new(title, here).other(there, "here first");
            self.diagnostics.push(diagnostic.help("only one of them could ever answer"));
            return None;
        }
        valid_headers?;
        let (_, content) = content?;
        Some(Route { path, host, content, status: status?, headers, delay: raw.delay.0 })
    }

    /// Tells of every field that a response can't have.
    fn check_headers(
        &mut self,
        index: usize,
        headers: &[(String, String)],
        redirects: bool,
    ) -> Option<()> {
        let mut seen: HashMap<String, &str> = HashMap::new();
        let mut valid = Some(());
        for (name, value) in headers {
            let key = format!("headers.{name}");
            if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
                let here = self.place(index, &key).cloned();
                let there = self.place(index, &format!("headers.{first}")).cloned();
                let diagnostic = Diagnostic::new(format!("`{name}` stands twice"), here)
                    .other(there, "the other")
                    .help("upper and lower case are the same in a field's name");
                self.diagnostics.push(diagnostic);
                valid = None;
            } else if let Err(wrong) = check_field(name, value, redirects) {
                self.diagnose(index, &key, wrong);
                valid = None;
            }
        }
        valid
    }

    /// Other servers have parameters in paths. Here they are text like any other.
    fn warn_of_pattern(&mut self, index: usize, path: &str) {
        let is_pattern = |segment: &str| {
            segment.len() > 1 && segment.starts_with(':')
                || segment.starts_with('{') && segment.ends_with('}')
                || segment.starts_with('<') && segment.ends_with('>')
        };
        let Some(segment) = path.split('/').find(|segment| is_pattern(segment)) else {
            return;
        };
        let front = path.split(segment).next().unwrap_or("/");
        let title =
            format!("`{segment}` in a route's path is no parameter: it matches itself alone");
        let place = self.place(index, "path").cloned();
        let help = format!("path = \"{front}*\" takes everything below {front}");
        self.warnings.push(Diagnostic::new(title, place).help(help));
    }

    /// The kind of a route, and what it answers.
    fn content(&mut self, index: usize, raw: &raw::Route) -> Option<(&'static str, Content)> {
        let kinds = [
            ("text", raw.text.is_some()),
            ("json", raw.json.is_some()),
            ("body_file", raw.body_file.is_some()),
            ("bytes", raw.bytes.is_some()),
            ("redirect", raw.redirect.is_some()),
            ("echo", raw.echo.is_some()),
        ];
        let mut stated = kinds.iter().filter(|(_, stated)| *stated).map(|(kind, _)| *kind);
        const HELP: &str = "a route is one of text, json, body_file, bytes, redirect, echo";
        let Some(kind) = stated.next() else {
            // A key that was found wrong may have been meant as the kind, and has been told of.
            let kind_is_wrong = kinds.iter().any(|(kind, _)| self.place(index, kind).is_some());
            let told = kind_is_wrong || self.has_unknown_key(index);
            if !told {
                self.diagnose(
                    index,
                    "",
                    wrong(format!("route {} answers nothing", index + 1), HELP),
                );
            }
            return None;
        };
        if let Some(second) = stated.next() {
            let title = format!("route {} is both `{kind}` and `{second}`", index + 1);
            self.diagnose(index, second, wrong(title, HELP));
            return None;
        }
        let own_type = raw.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        let fixed = |content_type, body: Vec<u8>| Content::Fixed {
            content_type: Some(Cow::Borrowed(content_type)).filter(|_| !own_type),
            body: body.into(),
        };
        let content = if let Some(text) = &raw.text {
            Ok(fixed("text/plain; charset=utf-8", text.clone().into_bytes()))
        } else if let Some(value) = &raw.json {
            json(value).map(|json| fixed("application/json", json))
        } else if let Some(name) = &raw.body_file {
            self.read(name).map(|body| fixed(content_type(name), body))
        } else if let Some(bytes) = raw.bytes {
            Ok(fixed("application/octet-stream", vec![b'x'; bytes.0 as usize]))
        } else if let Some(location) = &raw.redirect {
            check_location(location).map(|()| Content::Redirect(location.clone()))
        } else {
            Ok(match raw.echo {
                Some(raw::Echo::Request) => Content::EchoRequest,
                _ => Content::EchoBody,
            })
        };
        Some((kind, self.keep(index, kind, content)?))
    }

    /// The content of a `body_file`.
    fn read(&self, name: &str) -> Result<Vec<u8>, Wrong> {
        let file = self.folder.join(name);
        let shown = file.display();
        const HELP: &str = "a relative path starts from the folder of the configuration file";
        read_file(&file, ROUTE_BODY_BYTES_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => {
                let title = format!(
                    "{shown} is too large; a body_file is held in memory and has at most \
                     {ROUTE_BODY_BYTES_MAX} bytes"
                );
                wrong(title, "serve a smaller file")
            }
            _ => wrong(format!("cannot read {shown}: {error}"), HELP),
        })
    }

    fn keep<T>(&mut self, index: usize, key: &str, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|wrong| self.diagnose(index, key, wrong)).ok()
    }

    fn diagnose(&mut self, index: usize, key: &str, wrong: Wrong) {
        let place = self.place(index, key).or_else(|| self.places.get(&format!("route[{index}]")));
        let diagnostic = Diagnostic::new(wrong.title, place.cloned()).help(wrong.help);
        self.diagnostics.push(diagnostic);
    }

    fn has_unknown_key(&self, index: usize) -> bool {
        let prefix = format!("route[{index}].");
        let mut keys = self.places.keys().filter_map(|name| name.strip_prefix(&prefix));
        keys.any(|key| !raw::keys::<raw::Route>().contains(&key))
    }

    fn place(&self, index: usize, key: &str) -> Option<&super::diagnostic::Place> {
        self.places.get(&format!("route[{index}].{key}"))
    }
}

fn path(path: &str, merge_slashes: bool) -> Result<RoutePath, Wrong> {
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
fn host(host: &str) -> Result<Option<String>, Wrong> {
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
const OWN_FIELDS: [&str; 9] = [
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
fn check_field(name: &str, value: &str, redirects: bool) -> Result<(), Wrong> {
    if redirects && name.eq_ignore_ascii_case("location") {
        return Err(wrong(format!("`{name}` is what `redirect` says"), "leave one of them out"));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
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

fn check_location(location: &str) -> Result<(), Wrong> {
    if location.is_empty() || location.contains(' ') || !is_field_value(location) {
        return Err(wrong(
            "`redirect` is not a URI",
            "such as redirect = \"/new\" or \"https://example.org/\"",
        ));
    }
    Ok(())
}

/// RFC 9110 §5.5.
fn is_field_value(value: &str) -> bool {
    value.trim() == value
        && value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

fn default_status(content: &Content) -> u16 {
    if matches!(content, Content::Redirect(_)) { 308 } else { 200 }
}

fn check_status(status: u16, content: &Content) -> Result<(), Wrong> {
    match content {
        Content::Redirect(_) if !matches!(status, 301 | 302 | 303 | 307 | 308) => Err(wrong(
            format!("{status} is not a redirect"),
            "a redirect's status is 301, 302, 303, 307 or 308",
        )),
        Content::Fixed { body, .. } if matches!(status, 204 | 205 | 304) && !body.is_empty() => {
            Err(wrong(format!("a {status} response has no body"), "use text = \"\""))
        }
        Content::EchoBody | Content::EchoRequest if matches!(status, 204 | 205 | 304) => {
            Err(wrong(format!("a {status} response has no body"), "an echo is one"))
        }
        _ => Ok(()),
    }
}

/// The bytes of a regular file of at most `bytes_max`.
///
/// # Errors
/// `FileTooLarge` beyond that; `InvalidInput` for anything that could keep who reads it waiting.
pub(super) fn read_file(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Asked first, since some devices do something when they are opened.
    check_regular(&std::fs::metadata(file)?)?;
    // In case it is a pipe by now.
    let file = file::open_without_waiting(file, Links::Follow)?;
    check_regular(&file.metadata()?)?;
    read_whole(file, bytes_max)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    let found = found.file_type();
    let kinds = [
        (found.is_dir(), "a folder"),
        (found.is_fifo(), "a pipe"),
        (found.is_socket(), "a socket"),
        (found.is_char_device() || found.is_block_device(), "a device"),
    ];
    let what = kinds.iter().find(|(is, _)| *is).map(|(_, what)| *what);
    what.map_or(Ok(()), |what| {
        let text = format!("it is not a regular file but {what}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    })
}

/// The bytes of whatever `file` is.
///
/// # Errors
/// `FileTooLarge` beyond `bytes_max`.
pub(super) fn read_at_most(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_whole(File::open(file)?, bytes_max)
}

fn read_whole(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// TOML as JSON. Dates become strings.
fn json(value: &toml::Value) -> Result<Vec<u8>, Wrong> {
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
fn content_type(name: &str) -> &'static str {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}
