//! How this process was started, which is how the one is that an upgrade starts: by the names of the command line, so that
//! a link that has moved meanwhile leads to the new release.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{absolute, are_same};
use crate::sys::process::{self, ProcessId};

/// What was started, where, and with which arguments.
#[derive(Clone)]
pub(crate) struct Origin {
    /// `None` if nothing says which file runs.
    binary: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// The folder it was started in, by the name that its user gave it.
    folder: Option<PathBuf>,
    /// Whether the configuration can be read another time: not what came from a pipe.
    pub(crate) is_repeatable: bool,
}

impl Origin {
    /// Looks while the binary is still the one that runs: later, /proc tells of a deleted file. The next one reads `file`
    /// again, if one was read; it is named to it where the command line did not (`is_named`), because its absence would
    /// make it serve the defaults.
    pub(crate) fn of_this_process(
        folder: Option<PathBuf>,
        file: Option<&Path>,
        is_named: bool,
    ) -> Origin {
        let mut arguments = env::args_os();
        let named = arguments.next().map(PathBuf::from).unwrap_or_default();
        let from = folder.clone().unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        let candidates: Vec<PathBuf> = if named.components().count() > 1 {
            vec![absolute(&named, &from)]
        } else {
            env::split_paths(&path).map(|entry| absolute(&entry.join(&named), &from)).collect()
        };
        let executed = process::executed_file().map(|file| absolute(&file, &from));
        let is_running = |file: &PathBuf| match Path::new("/proc/self/exe") {
            running if running.exists() => are_same(file, running),
            _ => executed.as_ref().is_some_and(|executed| are_same(file, executed)),
        };
        let found = candidates.into_iter().find(is_running);
        let binary = found.or_else(|| env::current_exe().ok()).or_else(|| executed.clone());
        let unnamed = file.filter(|_| !is_named).map(Path::as_os_str);
        let naming = unnamed.into_iter().flat_map(|file| [OsString::from("--config"), file.into()]);
        let is_read_once = |file: &Path| file.metadata().is_ok_and(|found| !found.is_file());
        Origin {
            binary,
            arguments: naming.chain(arguments).collect(),
            folder,
            is_repeatable: !file.is_some_and(is_read_once),
        }
    }

    /// What an upgrade starts.
    pub(crate) fn binary(&self) -> String {
        self.binary.as_ref().map_or("unknown".into(), |binary| binary.display().to_string())
    }

    /// The file that an upgrade executes.
    ///
    /// # Errors
    /// If nothing says which that is.
    pub(super) fn executable(&self) -> io::Result<&Path> {
        let unknown = || io::Error::other("nothing says which file was started");
        self.binary.as_deref().ok_or_else(unknown)
    }

    /// The arguments that it is given.
    pub(super) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Goes to the folder that the upgrade starts in, and returns its name; where it is missing, stays.
    pub(super) fn enter_folder(&self) -> io::Result<Option<&Path>> {
        let folder = self.folder.as_deref().filter(|folder| folder.is_dir());
        folder.map_or(Ok(()), env::set_current_dir)?;
        Ok(folder)
    }

    /// Says which binary of which version follows `predecessor`.
    pub(crate) fn log_upgrade_received(&self, predecessor: ProcessId) {
        let (binary, version) = (self.binary(), env!("CARGO_PKG_VERSION"));
        tracing::info!(pid = process::id(), binary, version, predecessor, "upgrade received");
    }
}
