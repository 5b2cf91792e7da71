//! What `workers.engine = "may"` can't serve: each combination is an error that says why.

use super::diagnostic::Diagnostic;
use super::merge::Places;
use super::raw::{Echo, Raw};
use super::{Accept, Engine, Mode};

/// Fields of a route's own: may_minihttp has places for 16, and Content-Type, Location, Allow and Connection may
/// need some.
const FIELDS_MAX: usize = 12;

/// Tells of everything in `raw` that its engine can't serve.
pub(super) fn check(raw: &Raw, places: &Places, diagnostics: &mut Vec<Diagnostic>) {
    if raw.workers.engine == Engine::Native {
        return;
    }
    let mut refuse = |keys: &[&str], title: String, help: &str| {
        let place = keys.iter().find_map(|key| places.get(*key).cloned());
        diagnostics.push(Diagnostic::new(title, place).help(help));
    };
    const ENGINE: &str = "workers.engine";
    if !cfg!(feature = "may") {
        let title = "this binary was built without the engine \"may\"".to_owned();
        return refuse(&[ENGINE], title, "build it with `--features may`");
    }
    if raw.workers.mode != Mode::Processes {
        let title = "the engine \"may\" needs workers.mode = \"processes\"".to_owned();
        let help = "its scheduler belongs to a whole process, and would be that of all lanes";
        refuse(&["workers.mode", ENGINE], title, help);
    }
    if raw.workers.accept != Accept::Reuseport {
        let title = "the engine \"may\" needs workers.accept = \"reuseport\"".to_owned();
        let help =
            "may_minihttp opens its own sockets, and can be given neither sockets nor connections";
        refuse(&["workers.accept", ENGINE], title, help);
    }
    if !raw.supervisor.user.is_empty() || !raw.supervisor.group.is_empty() {
        let title = "the engine \"may\" can't run as supervisor.user".to_owned();
        let help = "its workers open their own sockets, which the kernel lets share a port only with the same user's";
        refuse(&["supervisor.user", "supervisor.group", ENGINE], title, help);
    }
    for (index, route) in raw.route.iter().enumerate() {
        let key = |name: &str| format!("route[{index}].{name}");
        let status = route.status.as_ref().map_or(200, |status| status.0);
        if matches!(status, 204 | 304) {
            let title = format!("the engine \"may\" can't answer with {status}");
            let help = "it sends a Content-Length with everything, which this status forbids";
            refuse(&[&key("status"), ENGINE], title, help);
        }
        if route.headers.len() > FIELDS_MAX {
            let title =
                format!("the engine \"may\" sends at most {FIELDS_MAX} fields of a route's own");
            refuse(&[&key("headers"), ENGINE], title, "may_minihttp has room for 16 in all");
        }
        let echoes_body = matches!(route.echo, Some(Echo::Body | Echo::Request));
        if echoes_body && raw.limits.body.0 > BODY_BYTES_MAX {
            let title =
                format!("the engine \"may\" echoes bodies of at most {BODY_BYTES_MAX} bytes");
            let help = "nothing bounds the memory of all its connections together: set limits.body";
            refuse(&["limits.body", &key("echo"), ENGINE], title, help);
        }
    }
}

/// Longest body that the engine is let hold, in bytes.
const BODY_BYTES_MAX: u64 = 16 << 20;
