//! What Prometheus is told of a server: [`Facts`], which the supervisor makes of the ledger and of what it knows itself, and
//! the page that [`render()`] makes of them. Nothing here is read from anywhere, and nothing is answered.
//!
//! There is one ledger, so a page has all of the server, whichever process renders it. Counters only grow, whatever becomes
//! of workers, lanes, generations and supervisors, and a series of a counter that was shown once is always there; one of a
//! gauge goes with what it is of.

mod facts;
mod format;
mod page;
mod render;

pub use facts::{Facts, LaneFacts, Listens, ProcessFacts, QueueFacts, Reloads, RoleFacts};
pub use format::Format;
pub use render::render;

#[cfg(test)]
mod tests;
