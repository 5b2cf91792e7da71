//! By what a server is found: its pid file and its command socket. Claimed before the first worker, so that a second
//! server with the same ones is refused; an heir takes those of the supervisor that it follows when it serves.

use std::path::{Path, PathBuf};

use super::{Supervisor, doing};
use crate::config::{self, Config};
use crate::supervisor::commands::{self, Commands};
use crate::supervisor::loading::rehearsal::Rehearsal;
use crate::supervisor::presence::command_socket::{self, NotOpened};
use crate::supervisor::presence::pid_file::{NotClaimed, PidFile};
use crate::supervisor::succession::upgrade::Predecessor;
use crate::sys::epoll::Epoll;
use crate::sys::process::ProcessId;
use crate::sys::socket;

impl Supervisor {
    /// Claims the pid file, and opens the command socket unless the supervisor that this one follows still has it.
    ///
    /// # Errors
    /// If a server that lives has one of them, or one that was asked for by name can't be had.
    pub(super) fn claim(
        config: &Config,
        options: &config::Options,
        predecessor: Option<Predecessor>,
        epoll: &Epoll,
    ) -> Result<(Option<PidFile>, Commands), String> {
        let pid_file = config.supervisor.pid_file.as_deref();
        let pid = predecessor.map(|predecessor| predecessor.pid);
        let claim = |path| PidFile::claim(path, pid).map_err(|error| error.text(path));
        let claimed = pid_file.map(claim).transpose()?;
        let commands = match predecessor {
            None => open_commands(config, options, None, epoll)?,
            Some(_) => Commands::default(),
        };
        Ok((claimed, commands))
    }

    /// Takes the command socket and the pid file of the supervisor that this one follows, which has them again if this one
    /// then fails.
    ///
    /// # Errors
    /// If one can't be had: that supervisor could be found and asked, and serves on.
    pub(super) fn take_over_names(&mut self) -> Result<(), String> {
        if let (Some(predecessor), Some(config)) = (self.follows, self.config()) {
            self.commands = open_commands(config, &self.options, Some(predecessor), &self.epoll)?;
        }
        self.link_commands();
        let pid_file = self.pid_file.as_mut().map_or(Ok(()), PidFile::write);
        pid_file.map_err(doing("cannot write supervisor.pid_file"))
    }

    /// Has the other names of the command socket lead to it.
    fn link_commands(&mut self) {
        let folder = self.options.folder.as_deref().unwrap_or(Path::new(""));
        self.commands.link(config::control_links(&self.options), folder);
    }

    /// This server serves, and can be found.
    pub(super) fn appear(&mut self) {
        self.link_commands();
        if let Some(pid_file) = &mut self.pid_file
            && let Err(error) = pid_file.write()
        {
            tracing::error!(reason = %error, "no pid file");
        }
    }

    /// Has the command socket and the pid file be this supervisor's again, where an heir that has failed had replaced
    /// them.
    pub(super) fn reappear(&mut self) {
        if let Err(error) = self.commands.restore(&self.epoll) {
            tracing::warn!(reason = ?error, "no command socket");
        }
        if let Some(pid_file) = &mut self.pid_file
            && let Err(reason) = pid_file.restore()
        {
            tracing::error!(reason, "no pid file");
        }
    }

    /// Takes away what it is found by.
    pub(super) fn disappear(&mut self) {
        self.commands.close();
        self.pid_file = None;
    }
}

/// Opens the command socket, or says in one line why there is none.
///
/// # Errors
/// If another server that lives has it, or if it has to be: it was asked for by name, or the `predecessor` has one.
fn open_commands(
    config: &Config,
    options: &config::Options,
    predecessor: Option<Predecessor>,
    epoll: &Epoll,
) -> Result<Commands, String> {
    let pid = predecessor.map(|predecessor| predecessor.pid);
    let is_needed = options.socket.is_some()
        || predecessor.is_some_and(|predecessor| predecessor.has_command_socket);
    let opened = match socket_path(config, options) {
        Ok(path) => match Commands::open(&path, pid, epoll) {
            Ok(commands) => return Ok(commands),
            Err(error) => not_opened(path, is_needed, error)?,
        },
        Err(Without { reason, .. }) if is_needed => {
            return Err(format!("cannot open the command socket: {reason}; {REMEDY}"));
        }
        Err(without) => without,
    };
    let Without { path, reason } = opened;
    let path = path.map(|path| path.display().to_string());
    tracing::warn!(path, reason, remedy = REMEDY, "no command socket");
    Ok(Commands::default())
}

const REMEDY: &str = "name a place with --socket PATH, or with supervisor.pid_file, for this server and for \
                      `server status`, `reload`, `upgrade` and `stop`";

/// Why a server goes without a command socket.
struct Without {
    path: Option<PathBuf>,
    reason: String,
}

fn socket_path(config: &Config, options: &config::Options) -> Result<PathBuf, Without> {
    let path = config::control_socket(options, config.supervisor.pid_file.as_deref());
    let reason =
        "there is no runtime directory: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set";
    path.ok_or_else(|| Without { path: None, reason: reason.into() })
}

/// What comes of it that the command socket can't be opened: the server goes without it, unless it is needed or another
/// server has it.
fn not_opened(path: PathBuf, is_needed: bool, error: NotOpened) -> Result<Without, String> {
    let shown = path.display();
    match error {
        NotOpened::Taken(pid) => Err(format!(
            "another server with pid {pid} has the command socket {shown}; stop that one, or give this one a socket of \
             its own with --socket PATH"
        )),
        NotOpened::Failed(error) if is_needed => Err(format!(
            "cannot open the command socket {shown}: {error}; {}",
            match socket::is_exhaustion(&error) {
                true => "raise the limit on open files",
                false => "name another place with --socket PATH",
            }
        )),
        NotOpened::Failed(error) => Ok(Without { path: Some(path), reason: error.to_string() }),
    }
}

/// Goes through the claims of a start. A server that has what it would claim is an error, unless it is the one that
/// this configuration runs: that one is what a reload of it is for.
pub(crate) fn rehearse(config: &Config, options: &config::Options, found: &mut Rehearsal) {
    let socket = socket_path(config, options);
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
        // What it can't be for is told, or it has the same server.
        Ok(_) if !is_claimable && options.socket.is_none() => return,
        Ok(path) => match command_socket::rehearse(&path) {
            Ok(()) => return,
            Err(NotOpened::Taken(pid)) => {
                let holder = holder(Some(pid), Some(&path), options);
                match not_opened(path, options.socket.is_some(), NotOpened::Taken(pid)) {
                    Err(text) => return found.meets(holder, text),
                    Ok(without) => without,
                }
            }
            Err(error) => match not_opened(path, options.socket.is_some(), error) {
                Err(text) => return found.errors.push(text),
                Ok(without) => without,
            },
        },
        Err(without) => without,
    };
    let Without { path, reason } = without;
    let place = path.map(|path| format!(" at {}", path.display())).unwrap_or_default();
    found.warnings.push((format!("no command socket{place}: {reason}"), REMEDY.to_owned()));
}

/// Which server has what a start would claim.
pub(crate) enum Holder {
    /// The one of this configuration; or one that doesn't say of which it is.
    Own(Option<ProcessId>),
    Other,
}

/// Whether the server with this pid is the one that this configuration runs. It is asked on its command socket.
fn holder(pid: Option<ProcessId>, socket: Option<&Path>, options: &config::Options) -> Holder {
    let status = socket.and_then(|path| commands::status_at(path).ok());
    let status = status.filter(|status| pid.is_none_or(|pid| pid == status.pid));
    let is_own = status.zip(config::file_path(options));
    match is_own.and_then(|(status, file)| status.is_of(&file)) {
        Some(false) => Holder::Other,
        _ => Holder::Own(pid),
    }
}
