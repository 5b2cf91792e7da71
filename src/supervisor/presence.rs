//! By what a server is found: its pid file and its command socket. Claimed before the first worker, so that a second
//! server with the same ones is refused; an heir takes those of the supervisor that it follows when it serves.

use std::path::Path;

use super::Supervisor;
use super::command_socket::NotOpened;
use super::commands::Commands;
use super::pid_file::PidFile;
use crate::config::{self, Config};
use crate::sys::epoll::Epoll;
use crate::sys::process::ProcessId;

impl Supervisor {
    /// Claims the pid file, and opens the command socket unless the supervisor that this one follows still has it.
    ///
    /// # Errors
    /// If a server that lives has one of them, or one that was asked for by name can't be had.
    pub(super) fn claim(
        config: &Config,
        options: &config::Options,
        predecessor: Option<ProcessId>,
        epoll: &Epoll,
    ) -> Result<(Option<PidFile>, Commands), String> {
        let pid_file = config.supervisor.pid_file.as_deref();
        let claimed = pid_file.map(|path| PidFile::claim(path, predecessor)).transpose()?;
        let commands = match predecessor {
            None => open_commands(config, options, None, epoll)?,
            Some(_) => Commands::default(),
        };
        Ok((claimed, commands))
    }

    /// This server serves, and can be found.
    pub(super) fn appear(&mut self) {
        if let (Some(predecessor), Some(config)) = (self.follows, self.config()) {
            match open_commands(config, &self.options, Some(predecessor), &self.epoll) {
                Ok(commands) => self.commands = commands,
                // It serves already: without a command socket is better than not at all.
                Err(reason) => tracing::warn!(reason, "no command socket"),
            }
        }
        let folder = self.options.folder.as_deref().unwrap_or(Path::new(""));
        self.commands.link(config::control_links(&self.options), folder);
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
fn open_commands(
    config: &Config,
    options: &config::Options,
    predecessor: Option<ProcessId>,
    epoll: &Epoll,
) -> Result<Commands, String> {
    const REMEDY: &str = "name a place with --socket PATH, or with supervisor.pid_file, for this server and for \
                          `server status`, `reload`, `upgrade` and `stop`";
    let Some(path) = config::control_socket(options, config.supervisor.pid_file.as_deref()) else {
        let reason =
            "there is no runtime directory: neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set";
        tracing::warn!(reason, remedy = REMEDY, "no command socket");
        return Ok(Commands::default());
    };
    let shown = path.display();
    match Commands::open(&path, predecessor, epoll) {
        Ok(commands) => Ok(commands),
        Err(NotOpened::Taken(pid)) => Err(format!(
            "another server with pid {pid} has the command socket {shown}; stop that one, or give this one a socket of \
             its own with --socket PATH"
        )),
        Err(NotOpened::Failed(error)) if options.socket.is_some() => Err(format!(
            "cannot open the command socket {shown}: {error}; name another place with --socket PATH"
        )),
        Err(NotOpened::Failed(error)) => {
            tracing::warn!(path = %shown, reason = %error, remedy = REMEDY, "no command socket");
            Ok(Commands::default())
        }
    }
}
