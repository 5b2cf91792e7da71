//! From the mirror to the resolved [`Config`]: what one key can't know of another, and the routes' bodies.

mod addresses;
mod checks;
mod file_route;
pub(super) mod files;
mod fit;
pub(super) mod raw;
mod routes;
#[cfg(feature = "_schema")]
pub(super) mod schema;

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, KeyPlaces};
use super::settings::{AccessLog, Config};
use raw::Raw;
use routes::Routes;

/// What the server answers when no route is configured.
const GREETING: &str = "Hello from laneway\n";

/// Where to tell of what is wrong, and of what is probably not meant.
pub(super) struct Diagnostics<'t> {
    pub(super) errors: &'t mut Vec<Diagnostic>,
    pub(super) warnings: &'t mut Vec<Diagnostic>,
}

/// Resolves `raw`, adding the greeting to it if it has no route. The result is only of use if no error is told.
pub(super) fn resolve(
    raw: &mut Raw,
    file: Option<PathBuf>,
    places: &KeyPlaces,
    told: Diagnostics<'_>,
) -> Config {
    let diagnostics = told.errors;
    if raw.route.is_empty() {
        let text = Some(GREETING.to_owned());
        raw.route.push(raw::Route { path: "/".into(), text, ..raw::Route::default() });
    }
    let supervisor = &raw.supervisor;
    if supervisor.restart_delay > supervisor.restart_delay_max {
        let place = ["supervisor.restart_delay", "supervisor.restart_delay_max"]
            .iter()
            .find_map(|key| places.get(*key).cloned());
        let title = "`supervisor.restart_delay` is longer than `supervisor.restart_delay_max`";
        diagnostics.push(Diagnostic::new(title, place));
    }
    diagnostics.extend(addresses::out_of_reach(raw, places));
    fit::check(raw, places, diagnostics);
    check_request_id(raw, places, diagnostics);
    if file.is_none() && raw.supervisor.reload_on_change {
        told.warnings.push(nothing_to_follow(places));
    }
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let (server, admin) = (&mut raw.server, &mut raw.admin);
    addresses::resolve("server", &mut server.listen, &folder, places, diagnostics);
    addresses::resolve("admin", &mut admin.listen, &folder, places, diagnostics);
    let unused = addresses::unused_access;
    told.warnings.extend(unused(&server.listen, server.socket_access(), places));
    told.warnings.extend(unused(&admin.listen, admin.socket_access(), places));
    // What is printed of this loads to the same from any folder.
    let names = raw.route.iter_mut().flat_map(|route| [&mut route.body_file, &mut route.files]);
    for name in names.flatten() {
        if let Ok(path) = std::path::absolute(folder.join(&*name))
            && let Some(path) = path.to_str()
        {
            *name = path.to_owned();
        }
    }
    raw.log.access.resolve_from(&folder);
    let merge_slashes = raw.server.merge_slashes;
    let routes =
        Routes::new(folder, merge_slashes, places, diagnostics, told.warnings).resolve(&raw.route);
    Config {
        file,
        is_written: false, // What reads the file knows.
        fingerprint: 0,    // As above.
        server: raw.server.clone(),
        workers: raw.workers.clone(),
        supervisor: raw.supervisor.clone(),
        limits: raw.limits.clone(),
        timeouts: raw.timeouts.clone(),
        log: raw.log.clone(),
        access: raw.access.clone(),
        admin: raw.admin.clone(),
        files: raw.files.clone(),
        colour: false, // What the environment says of it follows.
        routes,
        warnings: Vec::new(),
    }
}

/// Tells of a configuration that has no file which could change.
fn nothing_to_follow(places: &KeyPlaces) -> Diagnostic {
    let title = "`supervisor.reload_on_change` has no effect: the configuration has no file";
    let place = places.get("supervisor.reload_on_change").cloned();
    let help = "name one with --config; what the environment and --set say is the same until the server is started anew";
    Diagnostic::new(title, place).help(help)
}

/// Tells of request ids that are to be sent and are in no log.
fn check_request_id(raw: &Raw, places: &KeyPlaces, diagnostics: &mut Vec<Diagnostic>) {
    if raw.access.send_request_id && raw.log.access == AccessLog::Off {
        let title = "`access.send_request_id` needs `log.access`";
        let place = places.get("access.send_request_id").cloned();
        let help = "without an access log a request has no id: set log.access, or leave this out";
        diagnostics.push(Diagnostic::new(title, place).help(help));
    }
}
