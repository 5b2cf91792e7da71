//! Whether a start could claim its pid file and its command socket, for `server check`. It claims neither.

use std::path::Path;

use crate::config::{self, Config};
use crate::supervisor::commands::opening::{NoCommandSocket, REMEDY, not_opened, socket_path};
use crate::supervisor::commands::status_at;
use crate::supervisor::presence::pid_file::{NotClaimed, PidFile};
use crate::supervisor::presence::socket_file::{self, NotOpened};
use crate::sys::process::ProcessId;

/// What was found.
#[derive(Default)]
pub(super) struct Findings {
    /// What a start would fail with.
    pub(super) errors: Vec<String>,
    /// What a start would warn of, each with what to do about it.
    pub(super) warnings: Vec<(String, String)>,
    /// What is no obstacle to a reload, but to a start beside it.
    pub(super) notes: Vec<String>,
    /// The server of this configuration, if it runs and says so.
    pub(super) own: Option<ProcessId>,
}

impl Findings {
    /// A server has what a start would claim, which would fail with `text`.
    fn meets(&mut self, holder: Holder, text: String) {
        match holder {
            Holder::Other => self.errors.push(text),
            Holder::Own(pid) => {
                let pid = pid.map_or_else(|| "about to start".into(), |pid| format!("pid {pid}"));
                self.notes.push(format!(
                    "{pid}; `server reload` applies this, and a second server would be refused"
                ));
            }
        }
    }
}

/// Goes through the claims of a start. A server that has what it would claim is an error, unless it is the one that
/// this configuration runs: that one is what a reload of it is for.
pub(super) fn rehearse(config: &Config, options: &config::Options) -> Findings {
    let socket = socket_path(config, options);
    let own = socket.as_deref().ok().and_then(|path| own_server(path, options));
    let mut found = Findings { own, ..Findings::default() };
    let mut is_claimable = true;
    if let Some(path) = config.supervisor.pid_file.as_deref()
        && let Err(error) = PidFile::rehearse(path)
    {
        let holder = match &error {
            NotClaimed::Taken(pid) => holder(*pid, socket.as_deref().ok(), options),
            NotClaimed::Failed(_) => Holder::Other,
        };
        found.meets(holder, error.text(path));
        is_claimable = false;
    }
    let without = match socket {
        // Why it can't be opened is said already, or the same server has it.
        Ok(_) if !is_claimable && options.socket.is_none() => return found,
        Ok(path) => match socket_file::rehearse(&path) {
            Ok(()) => return found,
            Err(NotOpened::Taken(pid)) => {
                let own = |pid| holder(Some(pid), Some(&path), options);
                let holder = pid.map_or(Holder::Other, own);
                match not_opened(path, options.socket.is_some(), NotOpened::Taken(pid)) {
                    Err(text) => {
                        found.meets(holder, text);
                        return found;
                    }
                    Ok(without) => without,
                }
            }
            Err(error) => match not_opened(path, options.socket.is_some(), error) {
                Err(text) => {
                    found.errors.push(text);
                    return found;
                }
                Ok(without) => without,
            },
        },
        Err(without) => without,
    };
    let NoCommandSocket { path, reason } = without;
    let place = path.map(|path| format!(" at {}", path.display())).unwrap_or_default();
    found.warnings.push((format!("no command socket{place}: {reason}"), REMEDY.to_owned()));
    found
}

/// The server at this command socket, if it is the one of this configuration.
fn own_server(socket: &Path, options: &config::Options) -> Option<ProcessId> {
    let status = status_at(socket).ok()?;
    let is_own = config::file_path(options).and_then(|file| status.is_of(&file));
    (is_own != Some(false)).then_some(status.pid)
}

/// Which server has what a start would claim.
enum Holder {
    /// The one of this configuration; or one that doesn't say of which it is.
    Own(Option<ProcessId>),
    Other,
}

/// Whether the server with this pid is the one that this configuration runs. It is asked on its command socket.
fn holder(pid: Option<ProcessId>, socket: Option<&Path>, options: &config::Options) -> Holder {
    let status = socket.and_then(|path| status_at(path).ok());
    let status = status.filter(|status| pid.is_none_or(|pid| pid == status.pid));
    let is_own = status.zip(config::file_path(options));
    match is_own.and_then(|(status, file)| status.is_of(&file)) {
        Some(false) => Holder::Other,
        _ => Holder::Own(pid),
    }
}
