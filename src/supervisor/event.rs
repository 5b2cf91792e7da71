//! Everything the supervisor reacts to.

use crate::sys::process::{Ended, ProcessId};
use crate::sys::signal::Signal;
use crate::worker::control::Report;

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// A signal that stops the server.
    Stop(Signal),
    /// A signal that means nothing here.
    Unused(Signal),
    /// A child ended, and was reaped: a worker process or, for pid 1, an orphan.
    Ended(ProcessId, Ended),
    /// A worker in the process at this place has news.
    Report(usize, Report),
    /// Time passed.
    Tick,
}
