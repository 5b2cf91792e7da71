//! Routes: from what is written to what answers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use super::checks::{
    Wrong, check_field, check_location, check_status, content_type, default_status, host, json,
    path, wrong,
};
use super::file_route::file_route;
use super::files::read_file;
use super::raw::{self, ROUTE_BODY_BYTES_MAX};
use crate::config::diagnostic::{Diagnostic, KeyPlaces, Place};
use crate::config::settings::{Content, Route, RoutePath};
use crate::config::value::names::keys;
use crate::http::media_type;

/// Most routes.
const ROUTES_MAX: usize = 100_000;

/// Resolves routes, and tells of what is wrong with them.
pub(super) struct Routes<'r> {
    /// What a relative `body_file` starts from.
    folder: PathBuf,
    merge_slashes: bool,
    places: &'r KeyPlaces,
    diagnostics: &'r mut Vec<Diagnostic>,
    warnings: &'r mut Vec<Diagnostic>,
    /// Which route has a host and path already.
    seen: HashMap<(Option<String>, RoutePath), usize>,
}

impl<'r> Routes<'r> {
    pub(super) fn new(
        folder: PathBuf,
        merge_slashes: bool,
        places: &'r KeyPlaces,
        diagnostics: &'r mut Vec<Diagnostic>,
        warnings: &'r mut Vec<Diagnostic>,
    ) -> Routes<'r> {
        Routes { folder, merge_slashes, places, diagnostics, warnings, seen: HashMap::new() }
    }

    pub(super) fn resolve(&mut self, raw: &[raw::Route]) -> Vec<Route> {
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
        let content = self.content(index, raw, path.as_ref());
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
    fn content(
        &mut self,
        index: usize,
        raw: &raw::Route,
        path: Option<&RoutePath>,
    ) -> Option<(&'static str, Content)> {
        let kinds = raw.kinds();
        let mut stated = kinds.iter().filter(|(_, stated)| *stated).map(|(kind, _)| *kind);
        const HELP: &str = "a route is one of text, json, body_file, bytes, files, redirect, echo";
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
        if kind != "files"
            && let Some((key, _)) = raw.of_files().into_iter().find(|(_, stated)| *stated)
        {
            let title = format!("`{key}` is a key of routes that serve files");
            self.diagnose(index, key, wrong(title, "leave it out, or state files = \"folder\""));
            return None;
        }
        let own_type = raw.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        let fixed = |content_type, body: Vec<u8>| Content::Fixed {
            content_type: Some(Cow::Borrowed(content_type)).filter(|_| !own_type),
            body: body.into(),
        };
        let content = if let Some(text) = &raw.text {
            Ok(fixed(media_type::TEXT, text.clone().into_bytes()))
        } else if let Some(value) = &raw.json {
            json(value).map(|json| fixed(media_type::JSON, json))
        } else if let Some(name) = &raw.body_file {
            self.read(name).map(|body| fixed(content_type(name), body))
        } else if let Some(bytes) = raw.bytes {
            Ok(fixed(media_type::BYTES, vec![b'x'; bytes.0 as usize]))
        } else if let Some(folder) = &raw.files {
            file_route(&self.folder.join(folder), raw, path).map(Content::Files)
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
        let mut stated = self.places.keys().filter_map(|name| name.strip_prefix(&prefix));
        stated.any(|key| !keys::<raw::Route>().contains(&key))
    }

    fn place(&self, index: usize, key: &str) -> Option<&Place> {
        self.places.get(&format!("route[{index}].{key}"))
    }
}
