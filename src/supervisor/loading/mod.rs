//! From files to a generation that is ready to be started: the configuration is read in a child, sized, checked and
//! given its sockets. It starts no worker.

mod claims;
mod file_limit;
pub(super) mod following;
pub(super) mod loader;
pub mod rehearsal;
pub(super) mod reloading;
pub(super) mod sockets;
pub(super) mod startup;
pub(super) mod warned;
