//! laneway: a multi-core HTTP server for Linux, one lane per CPU core.
//!
//! A map of the crate, in the order in which a request meets it:
//!
//! | module | does |
//! |---|---|
//! | [`cli`] | the command line, and the commands that only print |
//! | [`config`] | file, environment and command line become one immutable `Config` |
//! | [`supervisor`] | owns the sockets, keeps a worker in every lane |
//! | [`worker`] | drives a lane: event loop, connections, timers, drain |
//! | [`control`] | what supervisor and workers say to each other |
//! | [`http`] | HTTP/1.1 without I/O |
//! | [`content`] | from a request to its response |
//! | [`observe`] | log lines and the ledger |
//! | `sys` | the kernel, and the only `unsafe`; private to this crate |
//!
//! They depend on each other in one direction alone, which `tests/tidy.rs` enforces.

pub mod cli;
pub mod config;
pub mod content;
pub mod control;
pub mod http;
pub mod observe;
pub mod supervisor;
pub(crate) mod sys;
pub mod worker;

/// What this repository's tests, benches and fuzz targets need of `sys`: no part of what the crate offers.
#[cfg(feature = "_internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::sys::epoll::Ready;
    pub use crate::sys::ring::buffers::Buffers;
    pub use crate::sys::socket::packet_pair;
}
