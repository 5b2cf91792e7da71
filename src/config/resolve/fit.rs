//! What a configuration asks of its engine beyond what that can do: each is an error that says why.

use super::raw::{Echo, Raw};
use crate::config::diagnostic::{Diagnostic, KeyPlaces};
use crate::config::settings::{Accept, AccessLog, Mode, ProxyProtocol, Responses};
use crate::config::value::ListenAddress;

const ENGINE: &str = "workers.engine";

/// Tells of everything in `raw` that its engine can't serve.
pub(super) fn check(raw: &Raw, places: &KeyPlaces, diagnostics: &mut Vec<Diagnostic>) {
    let engine = raw.workers.engine.abilities();
    let name = engine.name;
    let mut refuse = |keys: &[&str], title: String, help: &str| {
        let place = keys.iter().find_map(|key| places.get(*key).cloned());
        diagnostics.push(Diagnostic::new(title, place).help(help));
    };
    if !engine.is_built {
        let title = format!("this binary was built without the engine \"{name}\"");
        return refuse(&[ENGINE], title, &format!("build it with `--features {name}`"));
    }
    if let Some(help) = engine.own_processes
        && raw.workers.mode != Mode::Processes
    {
        let title = format!("the engine \"{name}\" needs workers.mode = \"processes\"");
        refuse(&["workers.mode", ENGINE], title, help);
    }
    if let Some(help) = engine.own_sockets
        && raw.workers.accept != Accept::Reuseport
    {
        let title = format!("the engine \"{name}\" needs workers.accept = \"reuseport\"");
        refuse(&["workers.accept", ENGINE], title, help);
    }
    if let Some(help) = engine.no_proxy_protocol
        && raw.server.proxy_protocol != ProxyProtocol::Off
    {
        let title = format!("the engine \"{name}\" needs server.proxy_protocol = \"off\"");
        refuse(&["server.proxy_protocol", ENGINE], title, help);
    }
    let has_unix = raw.server.listen.iter().any(|listen| matches!(listen, ListenAddress::Unix(_)));
    if has_unix && let Some(help) = engine.own_sockets {
        let title = format!("the engine \"{name}\" listens on no Unix socket");
        refuse(&["server.listen", ENGINE], title, help);
    }
    let has_user = raw.supervisor.user.is_some() || raw.supervisor.group.is_some();
    if engine.own_sockets.is_some() && has_user {
        let title = format!("the engine \"{name}\" can't run as supervisor.user");
        let help = "its workers open their own sockets, which the kernel lets share a port only with the same user's";
        refuse(&["supervisor.user", "supervisor.group", ENGINE], title, help);
    }
    let is_logged = raw.log.access != AccessLog::Off;
    if let Some(help) = engine.no_access_log.filter(|_| is_logged) {
        let title = format!("the engine \"{name}\" writes no access log");
        refuse(&["log.access", ENGINE], title, help);
    }
    let of_files = raw.route.iter().position(|route| route.files.is_some());
    if let (Some(help), Some(index)) = (engine.no_files, of_files) {
        let title = format!("the engine \"{name}\" serves no files");
        refuse(&[&format!("route[{index}].files"), ENGINE], title, help);
    }
    let Some(responses) = &engine.responses else { return };
    check_responses(raw, name, responses, &mut refuse);
}

/// Tells of every route whose response an engine called `name` can't send.
fn check_responses(
    raw: &Raw,
    name: &str,
    responses: &Responses,
    refuse: &mut dyn FnMut(&[&str], String, &str),
) {
    let Responses { statuses_refused, fields_max, echo_bytes_max } = responses;
    for (index, route) in raw.route.iter().enumerate() {
        let key = |name: &str| format!("route[{index}].{name}");
        let status = route.status.as_ref().map_or(200, |status| status.0);
        if statuses_refused.contains(&status) {
            let title = format!("the engine \"{name}\" can't answer with {status}");
            let help = "it sends a Content-Length with everything, which this status forbids";
            refuse(&[&key("status"), ENGINE], title, help);
        }
        if route.headers.len() > *fields_max {
            let title =
                format!("the engine \"{name}\" sends at most {fields_max} fields of a route's own");
            refuse(&[&key("headers"), ENGINE], title, "may_minihttp has room for 16 in all");
        }
        let echoes_body = matches!(route.echo, Some(Echo::Body | Echo::Request));
        if echoes_body && raw.limits.body > *echo_bytes_max {
            let title =
                format!("the engine \"{name}\" echoes bodies of at most {echo_bytes_max} bytes");
            let help = "nothing bounds the memory of all its connections together: set limits.body";
            refuse(&["limits.body", &key("echo"), ENGINE], title, help);
        }
    }
}
