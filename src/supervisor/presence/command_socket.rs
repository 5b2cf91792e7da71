//! The link to the command socket by which a server is found whose configuration file has come to name another place.
//! What is at the socket's own place is for `socket_file`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::socket_file::{Identity, identity};
use crate::sys::process::{self, ProcessId};

/// A symbolic link to the command socket, whose name is made of the configuration file's path alone.
pub(crate) struct Link {
    path: PathBuf,
    target: PathBuf,
    /// Whether what is at the path is this one.
    identity: Option<Identity>,
    /// A forked child that drops its copy removes nothing.
    owner: ProcessId,
}

impl Link {
    /// Makes it, in place of one that is there: of the servers of one file it leads to the one that came last.
    pub(crate) fn make(path: PathBuf, target: &Path) -> io::Result<Link> {
        let target = target.to_owned();
        let mut link = Link { path, target, identity: None, owner: process::id() };
        link.restore()?;
        Ok(link)
    }

    /// Makes it again, if another server has replaced it.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        if self.is_own() {
            return Ok(());
        }
        let mut new = self.path.clone().into_os_string();
        new.push(format!(".{}", self.owner));
        // What a process of that pid left when it was killed in between.
        let _ = fs::remove_file(&new);
        symlink(&self.target, &new)?;
        self.identity = identity(Path::new(&new));
        fs::rename(&new, &self.path).inspect_err(|_| drop(fs::remove_file(&new)))
    }

    fn is_own(&self) -> bool {
        self.identity.is_some() && self.identity == identity(&self.path)
    }
}

/// Takes it away, unless another server has replaced it.
impl Drop for Link {
    fn drop(&mut self) {
        if self.owner == process::id() && self.is_own() {
            // One that is left leads nowhere, and is replaced by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}
