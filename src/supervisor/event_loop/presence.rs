//! By what a server is found: its pid file and its command socket. Claimed before the first worker, so that a second
//! server with the same ones is refused; an heir takes those of the supervisor that it follows when it serves.

use std::path::Path;

use super::state::{Supervisor, doing};
use crate::config::{self, Config};
use crate::supervisor::commands::{Commands, opening};
use crate::supervisor::presence::pid_file::PidFile;
use crate::supervisor::succession::upgrade::Predecessor;
use crate::sys::epoll::Epoll;

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
            None => opening::open(config, options, None, false, epoll)?,
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
        if let (Some(predecessor), Some(config)) = (self.predecessor, self.config()) {
            let Predecessor { pid, has_command_socket } = predecessor;
            let options = &self.options;
            self.commands =
                opening::open(config, options, Some(pid), has_command_socket, &self.epoll)?;
        }
        self.link_commands();
        let pid_file = self.pid_file.as_mut().map_or(Ok(()), PidFile::write);
        pid_file.map_err(doing("cannot write supervisor.pid_file"))
    }

    /// Has the other names of the command socket lead to it.
    fn link_commands(&mut self) {
        let folder = self.options.folder.as_deref().unwrap_or(Path::new(""));
        self.commands.link(config::command_socket_links(&self.options), folder);
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
        let path = self.commands.path().map(Path::to_owned);
        if let (Err(error), Some(path)) = (self.commands.restore(&self.epoll), path) {
            let shown = path.display().to_string();
            let reason = opening::not_opened(path, true, error).err();
            tracing::warn!(path = shown, reason, "no command socket");
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
