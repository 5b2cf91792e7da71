//! laneway: a multi-core HTTP server for Linux, one lane per CPU core.
//!
//! A map of the crate, in the order in which a request meets it:
//!
//! | module | does |
//! |---|---|
//! | [`cli`] | the command line, and the commands that only print |
//! | [`config`] | file, environment and command line become one immutable `Config` |
//! | `supervisor` | owns the sockets, keeps a worker in every lane |
//! | `worker` | drives a lane: event loop, connections, timers, drain |
//! | `control` | what supervisor and workers say to each other |
//! | `http` | HTTP/1.1 without I/O |
//! | `content` | from a request to its response |
//! | `observe` | log lines and the ledger |
//! | `sys` | the kernel, and the only `unsafe` |
//!
//! They depend on each other in one direction alone, which `tests/tidy.rs` enforces.
//!
//! What this page lists is what a program needs that serves a configuration as the command `server` does. All else is
//! the crate's own, and changes without notice.
//!
//! ```no_run
//! use laneway::config::{self, Options};
//! use laneway::{Outcome, Passed, log, panics};
//!
//! // First, and in the only thread.
//! let passed = Passed::claim();
//! let mut options = Options::default();
//! options.set = vec!["server.listen=127.0.0.1:8080".into()];
//! let loaded = config::load(&options).unwrap_or_else(|errors| panic!("{errors}"));
//! panics::install();
//! log::start(&loaded.config.log, loaded.config.colour);
//! let code = match laneway::run(loaded.config, options, passed) {
//!     Outcome::Exit(code) => code,
//!     // The call returns in each forked child, too, which has one thing left to do.
//!     Outcome::Worker(worker) => worker.run(),
//!     Outcome::Loader(loader) => loader.run(),
//!     Outcome::Launcher(launcher) => launcher.run(),
//! };
//! std::process::exit(code);
//! ```

#![allow(
    unreachable_pub,
    reason = "what `pub` says in a part of the crate's own is what it offers to the others"
)]

pub mod cli;
pub mod config;
pub(crate) mod content;
pub(crate) mod control;
pub(crate) mod http;
pub(crate) mod observe;
pub(crate) mod supervisor;
pub(crate) mod sys;
pub(crate) mod worker;

pub use observe::{log, panics};
pub use supervisor::{Launcher, Loader, Outcome, Passed, run};
pub use worker::process::WorkerProcess;

/// What this repository's tests, benches and fuzz targets need: no part of what the crate offers.
#[cfg(feature = "_internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::sys::epoll::Ready;
    pub use crate::sys::ring::buffers::Buffers;
    pub use crate::sys::socket::packet_pair;

    use crate::config::{Content, Route, RoutePath};

    /// This text. [`Content::Fixed`] and [`Route`] will grow, so they are made here alone.
    pub fn text(text: &str) -> Content {
        let content_type = Some(crate::http::media_type::TEXT.into());
        Content::Fixed { content_type, body: text.as_bytes().into() }
    }

    /// A route that answers with 200, without fields of its own.
    pub fn route(path: RoutePath, host: Option<String>, content: Content) -> Route {
        let delay = std::time::Duration::ZERO;
        Route { path, host, content, status: 200, headers: Vec::new(), delay }
    }

    /// The JSON Schema of the configuration: docs/config.schema.json.
    #[cfg(feature = "_schema")]
    pub fn config_schema() -> serde_json::Value {
        crate::config::schema()
    }

    pub mod content {
        pub use crate::content::*;
    }
    pub mod control {
        pub use crate::control::*;
    }
    pub mod http {
        pub use crate::http::*;
    }
    pub mod observe {
        pub use crate::observe::*;
    }
    pub mod worker {
        pub use crate::worker::*;
    }
}
