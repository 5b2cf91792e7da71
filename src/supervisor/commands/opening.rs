//! Where the command socket is opened, and whether a server may go without one. It never removes what belongs to another
//! server.

use std::path::PathBuf;

use super::server::Commands;
use crate::config::{self, Config};
use crate::supervisor::presence::socket_file::{LOCK_PATIENCE, NotOpened};
use crate::sys::epoll::Epoll;
use crate::sys::process::ProcessId;
use crate::sys::socket;

/// Opens the command socket, or says in one line why there is none.
///
/// # Errors
/// If another server that lives has it, or if it has to be: it was asked for by name, or the predecessor has one.
pub(crate) fn open(
    config: &Config,
    options: &config::Options,
    predecessor: Option<ProcessId>,
    predecessor_has_one: bool,
    epoll: &Epoll,
) -> Result<Commands, String> {
    let is_needed = options.socket.is_some() || predecessor_has_one;
    let opened = match socket_path(config, options) {
        Ok(path) => match Commands::open(&path, predecessor, LOCK_PATIENCE, epoll) {
            Ok(commands) => return Ok(commands),
            Err(error) => not_opened(path, is_needed, error)?,
        },
        Err(NoCommandSocket { reason, .. }) if is_needed => {
            return Err(format!("cannot open the command socket: {reason}; {REMEDY}"));
        }
        Err(without) => without,
    };
    let NoCommandSocket { path, reason } = opened;
    let path = path.map(|path| path.display().to_string());
    tracing::warn!(path, reason, remedy = REMEDY, "no command socket");
    Ok(Commands::default())
}

/// What to do about a command socket that can't be.
pub(crate) const REMEDY: &str = "name a place with --socket PATH, or with supervisor.pid_file, for this server and for \
                      `server status`, `reload`, `upgrade` and `stop`";

/// Why a server goes without a command socket.
pub(crate) struct NoCommandSocket {
    pub(crate) path: Option<PathBuf>,
    pub(crate) reason: String,
}

/// Where the command socket is to be.
pub(crate) fn socket_path(
    config: &Config,
    options: &config::Options,
) -> Result<PathBuf, NoCommandSocket> {
    let path = config::command_socket_path(options, config.supervisor.pid_file.as_deref());
    let reason =
        "there is no runtime directory: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set";
    path.ok_or_else(|| NoCommandSocket { path: None, reason: reason.into() })
}

/// What comes of it that the command socket can't be opened: the server goes without it, unless it is needed or another
/// server has it.
pub(crate) fn not_opened(
    path: PathBuf,
    is_needed: bool,
    error: NotOpened,
) -> Result<NoCommandSocket, String> {
    let shown = path.display();
    match error {
        NotOpened::Taken(pid) => {
            let who = match pid {
                Some(pid) => format!("with pid {pid}"),
                None => "that takes no commands now".into(),
            };
            Err(format!(
                "another server {who} has the command socket {shown}; stop that one, or give this one a socket of its \
                 own with --socket PATH"
            ))
        }
        NotOpened::Failed(error) if is_needed => Err(format!(
            "cannot open the command socket {shown}: {error}; {}",
            match socket::is_exhaustion(&error) {
                true => "raise the limit on open files",
                false => "name another place with --socket PATH",
            }
        )),
        NotOpened::Failed(error) => {
            Ok(NoCommandSocket { path: Some(path), reason: error.to_string() })
        }
    }
}
