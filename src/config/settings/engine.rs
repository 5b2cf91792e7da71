//! `workers.engine`: what each engine can do, as one table. All code whose way depends on the engine asks for its
//! [`Abilities`].

use serde::{Deserialize, Serialize};

/// `workers.engine`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
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
    /// Why no proxy can say whose connection it passes on, if it reads no header of the PROXY protocol.
    pub no_proxy_protocol: Option<&'static str>,
    /// Whether it moves bytes with `workers.driver`.
    pub has_driver: bool,
    /// Open files of an address: the socket, and what it holds that it has not accepted yet. Told only of an engine
    /// that serves nothing any more once a connection reaches the limit on open files, so that the limit has to be
    /// refused.
    pub files_of_address: Option<u64>,
    /// Why it writes no access log, if it can't.
    pub no_access_log: Option<&'static str>,
    /// Why it serves no files, if it can't.
    pub no_files: Option<&'static str>,
    /// What its responses can't be, if it can't send all that a route can ask for.
    pub responses: Option<Responses>,
    /// What a user who chose it should know, and what to do about it.
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
    no_proxy_protocol: None,
    has_driver: true,
    files_of_address: None,
    no_access_log: None,
    no_files: None,
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
    no_proxy_protocol: Some("may_minihttp takes the first bytes of a connection for a request"),
    has_driver: false,
    // The socket, a connection that waits to be looked at, and one over the limit that is about to be closed.
    files_of_address: Some(3),
    no_access_log: Some("may_minihttp doesn't tell when a response has left, or whether it did"),
    no_files: Some("may_minihttp sends what is in memory alone: serve one with body_file"),
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
    pub(crate) fn abilities(self) -> &'static Abilities {
        match self {
            Engine::Native => &NATIVE,
            Engine::May => &MAY,
        }
    }

    /// Its name in the configuration, if it isn't the usual one.
    pub(crate) fn other(self) -> Option<&'static str> {
        (self != Engine::Native).then_some(self.abilities().name)
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
