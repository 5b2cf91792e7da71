//! What people and programs see of a running server: log lines, and the ledger's counters; and where its requests come
//! from.

pub mod access;
pub mod forwarded;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod panics;
pub mod record;
pub mod snapshot;
