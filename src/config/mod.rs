//! Configuration: file, environment and command line become one immutable, validated [`Config`].
//!
//! Everything after `config` is handed the resolved values it needs; nobody reads the environment or
//! the file again. Units are in the types: `Duration`, or bytes where the field is a size.

mod diagnostic;
mod elsewhere;
mod engine;
mod load;
mod merge;
mod paths;
mod raw;
mod resolve;
mod reword;
mod source;
mod syntax;
mod twice;
mod value;
mod variables;

pub use diagnostic::{ERRORS_MAX, Errors, Warning, Warnings};
pub use engine::{Abilities, Engine, Responses};
pub use load::{Loaded, Options, load, reload};
pub use paths::{
    Place, Places, absolute, are_same, control_links, control_socket, control_sockets, file_path,
    start_folder,
};
pub use variables::takes_colour;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The resolved configuration of one generation. What reads it for a reload is another process, from which it
/// comes serialized.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The file it was read from; `None` when only built-in defaults, environment and `--set` apply.
    #[serde(skip)] // A name that isn't UTF-8 could not be; `check` alone wants it.
    pub file: Option<PathBuf>,
    /// Whether the file has a table or a key, so that a blank one is not what its owner wrote: see [`reload`].
    pub is_written: bool,
    /// `[server]`
    pub server: Server,
    /// `[workers]`
    pub workers: Workers,
    /// `[supervisor]`
    pub supervisor: Supervisor,
    /// `[limits]`
    pub limits: Limits,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[log]`
    pub log: Log,
    /// `[[route]]`, in file order; no two have the same host and path.
    pub routes: Vec<Route>,
    /// What of it is probably not what was meant.
    pub warnings: Vec<Warning>,
}

/// `[server]`: where to listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// At least one address. Each lane binds its own socket to each.
    pub listen: Vec<ListenAddress>,
    /// Accept queue asked for, per socket, in connections; at least 1.
    pub backlog: u32,
    /// Whether repeated slashes of a request's path count as one.
    pub merge_slashes: bool,
}

/// One entry of `server.listen`. A host name is resolved by the supervisor, at bind time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAddress {
    /// A literal IPv4 or IPv6 address. Port 0 lets the kernel choose.
    Socket(SocketAddr),
    /// A host name and port.
    Name(String, u16),
}

impl ListenAddress {
    /// The port; 0 lets the kernel choose.
    pub fn port(&self) -> u16 {
        match self {
            ListenAddress::Socket(address) => address.port(),
            ListenAddress::Name(_, port) => *port,
        }
    }
}

/// `[workers]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workers {
    /// Threads of one worker process, or one process each.
    pub mode: Mode,
    /// How many lanes.
    pub count: Count,
    /// Pin lane i to the i-th allowed CPU.
    pub pin: bool,
    /// How connections come to the lanes.
    pub accept: Accept,
    /// What drives a lane.
    pub engine: Engine,
    /// What moves the bytes of the native engine.
    pub driver: Driver,
    /// Open connections per lane at which it stops accepting; at least 1.
    pub max_connections: u32,
}

/// `workers.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One worker process, one thread per lane.
    Threads,
    /// One forked process per lane.
    Processes,
}

/// `workers.accept`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Each lane from sockets of its own, among which the kernel spreads connections.
    Reuseport,
    /// Every lane from the same sockets: whoever is free first.
    Shared,
    /// An acceptor takes every connection and hands it to the lane with the fewest.
    Handoff,
}

/// `workers.driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// epoll(7).
    Epoll,
    /// io_uring(7).
    IoUring,
}

impl Accept {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Accept::Reuseport => "reuseport",
            Accept::Shared => "shared",
            Accept::Handoff => "handoff",
        }
    }

    /// How many sockets each address has for so many lanes.
    pub fn sockets(self, lanes: usize) -> usize {
        match self {
            Accept::Reuseport => lanes,
            Accept::Shared | Accept::Handoff => 1,
        }
    }
}

/// `workers.count`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// CPUs that affinity and the cgroup quota allow.
    Auto,
    /// This many lanes: 1 to 1,024.
    Fixed(usize),
}

/// `[supervisor]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Supervisor {
    /// How long a drain may take before what remains is closed.
    pub drain_timeout: Duration,
    /// How long a worker may take from its start to ready.
    pub ready_timeout: Duration,
    /// Delay before the second restart in a row; the first is immediate. Doubles after each.
    pub restart_delay: Duration,
    /// Upper bound of that delay; at least `restart_delay`.
    pub restart_delay_max: Duration,
    /// Restarts per lane within `restart_window` before the supervisor gives up.
    pub max_restarts: u32,
    /// The window that `max_restarts` counts in.
    pub restart_window: Duration,
    /// How long a lane's loop may go without a turn before its worker counts as hung; zero is never.
    pub watchdog: Duration,
    /// Where the supervisor's pid is written once it serves.
    pub pid_file: Option<PathBuf>,
    /// The user that workers run as, once the supervisor has bound the sockets; a name or a number.
    pub user: Option<String>,
    /// The group that workers run as; the user's own if only that is given.
    pub group: Option<String>,
}

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Longest request line, in bytes.
    pub request_line: usize,
    /// Longest field section (all header lines together), in bytes.
    pub header_bytes: usize,
    /// Most header fields.
    pub headers: usize,
    /// Longest request body, in bytes.
    pub body: u64,
    /// Least average rate of a request body, framing and trailers included, from the second `timeouts.body` on, in
    /// bytes a second; 0 = no limit.
    pub body_rate: u64,
    /// Requests answered on one connection; 0 = no limit.
    pub requests_per_connection: u32,
}

/// `[timeouts]`; each is greater than zero.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the first byte of a request head to its last.
    pub header: Duration,
    /// Between two pieces of a request body.
    pub body: Duration,
    /// An idle connection between two requests.
    pub keep_alive: Duration,
    /// Between two pieces of a response that the client acknowledges.
    pub write: Duration,
}

/// `[log]`
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Log {
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
    /// Whether a terminal's lines may have colours, by the environment.
    pub colour: bool,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Longest host of a route, in bytes without a final dot: no name in DNS is longer (RFC 1035 §2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// One `[[route]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Which request paths it takes.
    pub path: RoutePath,
    /// Only for requests to this host (lower case, without port, within [`HOST_BYTES_MAX`]); `None` = any.
    pub host: Option<String>,
    /// What it answers.
    pub content: Content,
    /// Status of the response, 200 to 599 (a redirect: 301, 302, 303, 307 or 308).
    pub status: u16,
    /// Fields added to the response, valid by RFC 9110 §5; never one that frames the message
    /// (Content-Length, Transfer-Encoding, Connection, Date …).
    pub headers: Vec<(String, String)>,
    /// How long the response waits before it is sent; it never blocks the loop.
    pub delay: Duration,
}

/// `path` of a route, without a query; always begins with `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RoutePath {
    /// This path alone.
    Exact(String),
    /// `/assets/*` is stored as `/assets/`: everything below it, and itself.
    Prefix(String),
}

/// What a route answers: exactly one of the kinds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Content {
    /// `text`, `json`, `body_file` and `bytes`: a body known when the configuration loads.
    Fixed {
        /// `None` if the route's own headers state one.
        content_type: Option<Cow<'static, str>>,
        /// The body, shared by every lane of the process. It travels beside what is serialized, not in it:
        /// JSON would need four bytes for one.
        #[serde(skip)]
        body: Arc<[u8]>,
    },
    /// `redirect`: the `Location` to answer with.
    Redirect(String),
    /// `echo = "body"`: the request body comes back.
    EchoBody,
    /// `echo = "request"`: the request comes back as JSON.
    EchoRequest,
}

/// The candidate that `name` was probably meant to be.
fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let nearest = candidates.iter().copied().min_by_key(distance)?;
    // A third of the letters may be wrong; more is another word, but for one that goes on (`warning`).
    let is_near = distance(&nearest) <= (name.len() / 3).max(1);
    let begins = |candidate: &&&str| candidate.len() > 3 && name.starts_with(**candidate);
    is_near.then_some(nearest).or_else(|| candidates.iter().find(begins).copied())
}
