//! Everything the supervisor reacts to.

use crate::control::{ProcessNumber, Report};
use crate::supervisor::commands::Request;
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::succession::messages::ToHeir;
use crate::supervisor::token::ClientNumber;
use crate::sys::process::Reaped;
use crate::sys::process::signal::Signal;

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal that stops the server.
    Stop(Signal),
    /// A change is asked for; it may have to wait for another one to end.
    ChangeRequested(Change),
    /// A change that was asked for can begin.
    ChangeDue(Change),
    /// The configuration was read, or can't be, and nothing keeps a reload from going on.
    ConfigurationRead,
    /// The configuration file may have changed, and is quiet by now.
    FileChanged,
    /// The machine may allow another number of lanes now.
    Remeasure,
    /// A client of the command socket asks.
    Command(ClientNumber, Request),
    /// The heir says that it serves.
    HeirReady,
    /// A message of the supervisor before this one.
    FromPredecessor(ToHeir),
    /// The supervisor before this one has ended, and has nothing any more.
    PredecessorEnded,
    /// The access log is to be opened by its name once more.
    ReopenLogs,
    /// A signal that means nothing here.
    IgnoredSignal(Signal),
    /// A child ended, and was reaped: a worker process or, for pid 1, an orphan.
    Ended(Reaped),
    /// A worker in the process with this key reports.
    Report(ProcessNumber, Report),
    /// Time passed.
    Tick,
}
