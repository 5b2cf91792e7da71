//! The settings: one struct a table, one field a key, with its bounds, its meaning and its real default; and what the
//! routes are resolved to.
//!
//! A table is read into the very struct that everything after uses: `As` says how a value is written, and checks it.

mod access;
mod access_log;
mod admin;
mod engine;
mod files;
mod server;
mod socket_access;

pub use access::{Access, ProxyProtocol};
pub use access_log::{AccessFormat, AccessLog};
pub use admin::Admin;
pub use engine::{Abilities, Engine, Responses};
pub(crate) use files::OPEN_FILE_BYTES;
pub use files::{FileRoute, Files, Symlinks};
pub use server::Server;
use socket_access::SOCKET_MODE;
pub(crate) use socket_access::SocketAccess;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnostic::Warning;
use super::value::{Account, As, Count, Number, Perhaps, Size, Time, word};

/// Shortest `supervisor.watchdog`, in milliseconds. A loop that is busy may well take a tenth of that for one turn on a
/// machine with other work; a shorter one would find hung workers where there are none.
const WATCHDOG_MIN_MS: u64 = 100;

/// The resolved configuration of one generation. What reads it for a reload is another process, from which it
/// comes serialized.
///
/// ```
/// use laneway::config::{Accept, Driver, Engine, LogFormat, LogLevel, Mode, Options, load};
/// use laneway::config::{AccessFormat, AccessLog, Config, Limits, Log, Server, Supervisor, Timeouts, Workers};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into()); // Without a file, the defaults apply.
/// options.set = vec!["workers.mode=processes".into(), "log.level=debug".into()];
/// let config: Config = load(&options).expect("valid").config;
///
/// let Server { listen, backlog, .. } = config.server;
/// assert_eq!((listen.len(), backlog), (1, 4096));
/// let Workers { mode, accept, engine, driver, .. } = config.workers;
/// assert_eq!((mode, accept), (Mode::Processes, Accept::Reuseport));
/// assert_eq!((engine, driver), (Engine::Native, Driver::Auto));
/// let Supervisor { drain_timeout, pid_file, .. } = config.supervisor;
/// assert_eq!((drain_timeout.as_secs(), pid_file), (30, None));
/// let Limits { body, headers, .. } = config.limits;
/// assert_eq!((body, headers), (1 << 20, 100));
/// let Timeouts { header, keep_alive, .. } = config.timeouts;
/// assert_eq!((header.as_secs(), keep_alive.as_secs()), (10, 75));
/// let Log { level, format, access, access_format, .. } = config.log;
/// assert_eq!((level, format), (LogLevel::Debug, LogFormat::Auto));
/// assert_eq!((access, access_format), (AccessLog::Off, AccessFormat::Json));
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The file it was read from; `None` when only built-in defaults, environment and `--set` apply.
    #[serde(skip)] // A name that isn't UTF-8 could not be; `check` alone wants it.
    pub file: Option<PathBuf>,
    /// Whether the file has a table or a key, so that a blank one is not what its owner wrote. A reload rejects one
    /// if the file that is served was not.
    pub(crate) is_written: bool,
    /// What tells this configuration from another: of the bytes of the file, and of those that it names.
    pub(crate) fingerprint: u64,
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
    /// `[access]`
    pub access: Access,
    /// `[admin]`
    pub admin: Admin,
    /// `[files]`
    pub files: Files,
    /// Whether a terminal's lines may have colours, by the environment.
    pub colour: bool,
    /// `[[route]]`, in file order; no two have the same host and path.
    pub routes: Vec<Route>,
    /// What of it is probably not what was meant.
    pub warnings: Vec<Warning>,
}

/// After so long without a turn a lane counts as hung where `supervisor.watchdog` is off and an admin address tells of it.
const HUNG_AFTER: Duration = Duration::from_secs(5);

impl Config {
    /// Whether a route serves files.
    pub(crate) fn serves_files(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.content, Content::Files(_)))
    }

    /// After so long without a turn of its loop a worker hangs; `None` if it doesn't matter to anything.
    pub(crate) fn hung_after(&self) -> Option<Duration> {
        let watchdog = Some(self.supervisor.watchdog).filter(|watchdog| !watchdog.is_zero());
        let is_told = !self.admin.listen.is_empty();
        watchdog.or(is_told.then_some(HUNG_AFTER))
    }
}

/// `[workers]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Workers {
    /// Threads of one worker process, or one process each.
    #[serde(deserialize_with = "word")]
    pub mode: Mode,
    /// How many lanes.
    pub count: Count,
    /// Pin lane i to the i-th allowed CPU.
    pub pin: bool,
    /// How connections come to the lanes.
    #[serde(deserialize_with = "word")]
    pub accept: Accept,
    /// What drives a lane.
    #[serde(deserialize_with = "word")]
    pub engine: Engine,
    /// What moves the bytes of the native engine.
    #[serde(deserialize_with = "word")]
    pub driver: Driver,
    /// Open connections per lane at which it stops accepting; at least 1.
    #[serde(with = "As::<Number<1, 1_048_576>>")]
    pub max_connections: u32,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers {
            mode: Mode::Threads,
            count: Count::Auto,
            pin: true,
            accept: Accept::Reuseport,
            engine: Engine::Native,
            driver: Driver::Auto,
            max_connections: 16_384,
        }
    }
}

/// `workers.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// One worker process, one thread per lane.
    Threads,
    /// One forked process per lane.
    Processes,
}

/// `workers.accept`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Accept {
    /// Each lane from sockets of its own, among which the kernel spreads connections.
    Reuseport,
    /// Every lane from the same sockets: the lane that is free first takes a connection.
    Shared,
    /// An acceptor takes every connection and hands it to the lane with the fewest.
    Handoff,
}

/// `workers.driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Accept::Reuseport => "reuseport",
            Accept::Shared => "shared",
            Accept::Handoff => "handoff",
        }
    }

    /// How many sockets each address has for so many lanes.
    pub(crate) fn sockets(self, lanes: usize) -> usize {
        match self {
            Accept::Reuseport => lanes,
            Accept::Shared | Accept::Handoff => 1,
        }
    }
}

/// `[supervisor]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Supervisor {
    /// How long a drain may take before what remains is closed.
    #[serde(with = "As::<Time<0>>")]
    pub drain_timeout: Duration,
    /// How long the server goes on serving after it was told to stop, before it drains: until then a load balancer has
    /// time to find out that it leaves.
    #[serde(with = "As::<Time<0>>")]
    pub drain_delay: Duration,
    /// Reload when the configuration file has changed.
    pub reload_on_change: bool,
    /// How long a worker may take from its start to ready.
    #[serde(with = "As::<Time<1>>")]
    pub ready_timeout: Duration,
    /// Delay before the second restart in a row; the first is immediate. Doubles after each.
    #[serde(with = "As::<Time<0>>")]
    pub restart_delay: Duration,
    /// Upper bound of that delay; at least `restart_delay`.
    #[serde(with = "As::<Time<0>>")]
    pub restart_delay_max: Duration,
    /// Restarts per lane within `restart_window` before the supervisor gives up.
    #[serde(with = "As::<Number<0, 1_000_000>>")]
    pub max_restarts: u32,
    /// The window that `max_restarts` counts in.
    #[serde(with = "As::<Time<1>>")]
    pub restart_window: Duration,
    /// How long a lane's loop may go without a turn before its worker is replaced as hung; zero is never.
    #[serde(with = "As::<Time<WATCHDOG_MIN_MS, true>>")]
    pub watchdog: Duration,
    /// Where the supervisor's pid is written once it serves.
    #[serde(with = "As::<Perhaps<PathBuf>>")]
    pub pid_file: Option<PathBuf>,
    /// The user that workers run as, once the supervisor has bound the sockets; a name or a number.
    #[serde(with = "As::<Account>")]
    pub user: Option<String>,
    /// The group that workers run as; the user's own if only that is given.
    #[serde(with = "As::<Account>")]
    pub group: Option<String>,
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor {
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            reload_on_change: false,
            ready_timeout: Duration::from_secs(10),
            restart_delay: Duration::from_millis(100),
            restart_delay_max: Duration::from_secs(30),
            max_restarts: 10,
            restart_window: Duration::from_secs(60),
            watchdog: Duration::from_secs(10),
            pid_file: None,
            user: None,
            group: None,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Longest request line, in bytes.
    #[serde(with = "As::<Size<64, { 1 << 20 }>>")]
    pub request_line: usize,
    /// Longest field section (all header lines together), in bytes.
    #[serde(with = "As::<Size<256, { 16 << 20 }>>")]
    pub header_bytes: usize,
    /// Most header fields.
    #[serde(with = "As::<Number<1, 10_000>>")]
    pub headers: usize,
    /// Longest request body, in bytes.
    #[serde(with = "As::<Size<0, { 1 << 30 }>>")]
    pub body: u64,
    /// Least average rate of a request body, framing and trailers included, from the second `timeouts.body` on, in
    /// bytes a second; 0 = no limit.
    #[serde(with = "As::<Size<0, { 1 << 30 }>>")]
    pub body_rate: u64,
    /// Requests answered on one connection; 0 = no limit.
    #[serde(with = "As::<Number<0, { u32::MAX }>>")]
    pub requests_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line: 8 << 10,
            header_bytes: 32 << 10,
            headers: 100,
            body: 1 << 20,
            body_rate: 256,
            requests_per_connection: 0,
        }
    }
}

/// `[timeouts]`; each is greater than zero.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the first byte of a request head to its last.
    #[serde(with = "As::<Time<1>>")]
    pub header: Duration,
    /// Between two pieces of a request body.
    #[serde(with = "As::<Time<1>>")]
    pub body: Duration,
    /// An idle connection between two requests.
    #[serde(with = "As::<Time<1>>")]
    pub keep_alive: Duration,
    /// Between two pieces of a response that the client acknowledges.
    #[serde(with = "As::<Time<1>>")]
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            write: Duration::from_secs(30),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Log {
    /// Least severe level that is logged.
    #[serde(deserialize_with = "word")]
    pub level: LogLevel,
    /// How lines look.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// Where a line for each request is written, if anywhere.
    pub access: AccessLog,
    /// How such a line looks.
    #[serde(deserialize_with = "word")]
    pub access_format: AccessFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: LogLevel::Info,
            format: LogFormat::Auto,
            access: AccessLog::Off,
            access_format: AccessFormat::Json,
        }
    }
}

/// `log.level`. Not `non_exhaustive`: these are the levels that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// One `[[route]]`.
///
/// ```
/// use laneway::config::{Content, Options, Route, RoutePath, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec![r#"route=[{ path = "/old/*", redirect = "/new" }]"#.into()];
/// let routes: Vec<Route> = load(&options).expect("valid").config.routes;
/// assert_eq!(routes[0].path, RoutePath::Prefix("/old/".into()));
/// assert_eq!(routes[0].status, 308);
/// assert!(matches!(&routes[0].content, Content::Redirect(location) if location == "/new"));
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Route {
    /// Which request paths it takes.
    pub path: RoutePath,
    /// Only for requests to this host (lower case, without port, at most 253 bytes); `None` = any.
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
#[non_exhaustive]
pub enum RoutePath {
    /// This path alone.
    Exact(String),
    /// `/assets/*` is stored as `/assets/`: everything below it, and itself.
    Prefix(String),
}

/// What a route answers: exactly one of the kinds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Content {
    /// `text`, `json`, `body_file` and `bytes`: a body known when the configuration loads.
    #[non_exhaustive]
    Fixed {
        /// `None` if the route's own headers state one.
        content_type: Option<Cow<'static, str>>,
        /// The body, shared by every lane of the process. It travels beside what is serialized, not in it:
        /// JSON would need four bytes for one.
        #[serde(skip)]
        body: Arc<[u8]>,
    },
    /// `files`: those below a folder.
    Files(FileRoute),
    /// `redirect`: the `Location` to answer with.
    Redirect(String),
    /// `echo = "body"`: the request body comes back.
    EchoBody,
    /// `echo = "request"`: the request comes back as JSON.
    EchoRequest,
}
