//! The supervisor: one thread that owns every listening socket, keeps a worker in every lane, and decides
//! nothing itself: events go to [`policy`], and what comes back is carried out by its event loop.
//!
//! It knows nothing of HTTP, and never touches a connection. A room names only those below it:
//!
//! | room | is for |
//! |---|---|
//! | `event_loop` | what happens becomes an event, and what the policy decides is done |
//! | `loading` | from files to a generation that is ready to be started, and what a start would come to |
//! | `succession` | one supervisor follows another: what passes between the two |
//! | `commands` | what is asked for while it serves, by signals and on the command socket |
//! | `log_events` | what happens, as log events |
//! | `processes` | the worker processes: forked, spoken to, counted, killed |
//! | `policy` | what is to be done, without I/O and without a clock |
//! | `listeners` | the listening sockets |
//! | `presence` | by what a server is found: command socket, pid file, service manager |
//! | `token` | what wakes the loop, as numbers |

pub mod commands;
mod event_loop;
pub mod listeners;
pub mod loading;
mod log_events;
pub mod policy;
mod presence;
pub mod processes;
mod succession;
mod token;

pub use event_loop::{Outcome, run};
pub use loading::loader::Loader;
pub use succession::launcher::Launcher;
pub use succession::passed::Passed;
