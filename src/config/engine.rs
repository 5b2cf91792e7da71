//! `workers.engine`: what each engine can do, as one table. All code whose way depends on the engine asks for its
//! [`Abilities`]; what the configuration asks of an engine beyond them is an error that says why.

use serde::{Deserialize, Serialize};

use super::diagnostic::Diagnostic;
use super::merge::Places;
use super::raw::{Echo, Raw};
use super::{Accept, Mode};

/// `workers.engine`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// laneway's own event loop.
    Native,
    /// may_minihttp, which serves less, and less safely (docs/engines.md).
    May,
}

/// What an engine can do. An inability is the reason for it, as it is told to a user.
#[derive(Debug)]
pub struct Abilities {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The library behind its name, if it is not our own.
    pub library: Option<&'static str>,
    /// Whether this binary has it.
    pub is_built: bool,
    /// Why it opens its own sockets, if it does not take the supervisor's. Then no lane adopts another one's sockets,
    /// there is one way of accepting, the status shows no queues, and neither an upgrade nor a service manager can pass
    /// sockets on.
    pub own_sockets: Option<&'static str>,
    /// Why each of its lanes needs a process of its own, if one process can't host several.
    pub own_processes: Option<&'static str>,
    /// Whether it moves bytes with `workers.driver`.
    pub has_driver: bool,
    /// Open files of an address: the socket, and what it holds that it has not accepted yet. Told only of an engine that
    /// serves nothing any more once a connection reaches the limit on open files, so that the limit has to be refused.
    pub files_of_address: Option<u64>,
    /// What its responses can't be, if it can't send all that a route can ask for.
    pub responses: Option<Responses>,
    /// What whoever chose it should know, and what to do about it.
    pub warning: Option<(&'static str, &'static str)>,
}

/// Which responses an engine can send.
#[derive(Debug)]
pub struct Responses {
    /// Statuses that it can't answer with.
    pub statuses_refused: &'static [u32],
    /// Most fields of a route's own.
    pub fields_max: usize,
    /// Longest body that it echoes, in bytes.
    pub echo_bytes_max: u64,
}

const NATIVE: Abilities = Abilities {
    name: "native",
    library: None,
    is_built: true,
    own_sockets: None,
    own_processes: None,
    has_driver: true,
    files_of_address: None,
    responses: None,
    warning: None,
};

const MAY: Abilities = Abilities {
    name: "may",
    library: Some("may_minihttp"),
    is_built: cfg!(feature = "may"),
    own_sockets: Some(
        "may_minihttp opens its own sockets, and can be given neither sockets nor connections",
    ),
    own_processes: Some("its scheduler belongs to a whole process, and would be that of all lanes"),
    has_driver: false,
    // The socket, a connection that waits to be looked at, and one over the limit that is about to be closed.
    files_of_address: Some(3),
    responses: Some(Responses {
        // It sends a Content-Length with everything.
        statuses_refused: &[204, 304],
        // may_minihttp has places for 16, and Content-Type, Location, Allow and Connection may need some.
        fields_max: 12,
        echo_bytes_max: 16 << 20,
    }),
    warning: Some((
        "it has no timeouts and no limits on heads, and stops by resetting who waits in its queue; [timeouts], \
         server.backlog and workers.driver have no effect",
        "docs/engines.md says what else it lacks; workers.engine = \"native\" has it all",
    )),
};

impl Engine {
    /// What it can do.
    pub fn abilities(self) -> &'static Abilities {
        match self {
            Engine::Native => &NATIVE,
            Engine::May => &MAY,
        }
    }

    /// Its name in the configuration, if it isn't the usual one.
    pub fn other(self) -> Option<&'static str> {
        (self != Engine::Native).then_some(self.abilities().name)
    }
}

/// Tells of everything in `raw` that its engine can't serve.
pub(super) fn check(raw: &Raw, places: &Places, diagnostics: &mut Vec<Diagnostic>) {
    const ENGINE: &str = "workers.engine";
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
    let has_user = !raw.supervisor.user.is_empty() || !raw.supervisor.group.is_empty();
    if engine.own_sockets.is_some() && has_user {
        let title = format!("the engine \"{name}\" can't run as supervisor.user");
        let help = "its workers open their own sockets, which the kernel lets share a port only with the same user's";
        refuse(&["supervisor.user", "supervisor.group", ENGINE], title, help);
    }
    let Some(responses) = &engine.responses else { return };
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
        if echoes_body && raw.limits.body.0 > *echo_bytes_max {
            let title =
                format!("the engine \"{name}\" echoes bodies of at most {echo_bytes_max} bytes");
            let help = "nothing bounds the memory of all its connections together: set limits.body";
            refuse(&["limits.body", &key("echo"), ENGINE], title, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_row_has_the_name_that_the_configuration_knows_it_by() {
        for engine in [Engine::Native, Engine::May] {
            let name = serde_json::to_string(&engine).unwrap();
            assert_eq!(name, format!("\"{}\"", engine.abilities().name));
        }
    }
}
