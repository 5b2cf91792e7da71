//! Everything the supervisor reacts to.

use crate::control::{ProcessNumber, Report};
use crate::supervisor::commands::Request;
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::succession::upgrade::Parcel;
use crate::sys::process::Reaped;
use crate::sys::process::signal::Signal;

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal that stops the server.
    Stop(Signal),
    /// A request for a change, which may have to wait for another one to end.
    Wanted(Change),
    /// The turn of a change that was wanted.
    Turn(Change),
    /// The configuration was read, or can't be, and nothing keeps a reload from going on.
    Read,
    /// The machine may allow another number of lanes now.
    Remeasure,
    /// A client of the command socket, known by its token, asks.
    Asked(u64, Request),
    /// The new supervisor says that it serves.
    HeirReady,
    /// The supervisor before this one said something.
    Told(Parcel),
    /// A signal that means nothing here.
    Unused(Signal),
    /// A child ended, and was reaped: a worker process or, for pid 1, an orphan.
    Ended(Reaped),
    /// A worker in the process with this key has news.
    Report(ProcessNumber, Report),
    /// Time passed.
    Tick,
}
