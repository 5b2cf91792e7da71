//! Which process listens on a port, as far as /proc tells. It makes no socket.

use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::socket::listening_inodes;

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    pub pid: i32,
    /// Its name, as in /proc/PID/stat.
    pub name: String,
}

/// The process that listens on `port`, where /proc tells. If one does, this reads the descriptors of every process of the
/// machine, which takes as long as there are many.
pub fn holder(port: u16) -> Option<PortHolder> {
    let inodes = listening_inodes(port);
    if inodes.is_empty() {
        return None;
    }
    let holds = |process: &procfs::process::Process| {
        let targets = process.fd().into_iter().flatten().flatten().map(|fd| fd.target);
        targets.into_iter().any(|target| match target {
            procfs::process::FDTarget::Socket(inode) => inodes.contains(&inode),
            _ => false,
        })
    };
    // Of a group of processes the parent has the lowest pid, as a rule.
    let processes = procfs::process::all_processes().ok()?.flatten();
    let process = processes.filter(holds).min_by_key(|process| process.pid)?;
    let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
    Some(PortHolder { pid: process.pid, name })
}

/// Whether `error`, of making or binding a socket, says that the kernel doesn't have the address's family: IPv6, as a rule.
pub fn is_family_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}
