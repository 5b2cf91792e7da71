//! Everything the supervisor reacts to.

use super::commands::Request;
use crate::sys::process::Reaped;
use crate::sys::signal::Signal;
use crate::worker::control::Report;

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// A signal that stops the server.
    Stop(Signal),
    /// A request for a new generation from the configuration as it is now.
    Reload,
    /// A request for this many lanes more, or fewer if negative.
    Resize(isize),
    /// The machine may allow another number of lanes now.
    Remeasure,
    /// A client of the command socket, known by its token, asks.
    Asked(u64, Request),
    /// A request to hand over to a new binary.
    Upgrade,
    /// The new supervisor says that it serves.
    HeirReady,
    /// A signal that means nothing here.
    Unused(Signal),
    /// A child ended, and was reaped: a worker process or, for pid 1, an orphan.
    Ended(Reaped),
    /// A worker in the process with this key has news.
    Report(u64, Report),
    /// Time passed.
    Tick,
}
