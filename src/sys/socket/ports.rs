//! Which process listens on a port, as far as /proc tells. It makes no socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    pub pid: i32,
    /// Its name, as in /proc/PID/stat.
    pub name: String,
}

impl PortHolder {
    /// The process with this pid.
    pub fn of(pid: i32) -> PortHolder {
        let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
        PortHolder { pid, name: stat.map(|stat| stat.comm).unwrap_or_default() }
    }
}

/// The process that listens on `port`, where /proc tells. If one does, this reads the descriptors of every process of
/// the machine, which takes as long as there are many.
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
    Some(PortHolder::of(process.pid))
}

/// The inodes of the sockets that listen on a port, of any address, where /proc tells (proc_net_tcp(5)).
///
/// Listeners come first in its tables, and no more than those are read: behind them may be a hundred thousand
/// connections, which take the kernel seconds to list.
fn listening_inodes(port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let of_line = |line: String| -> Option<(bool, u64)> {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, LISTEN, ..] = columns[..] else {
            return None;
        };
        Some((local.ends_with(&wanted), columns.get(9)?.parse().ok()?))
    };
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(file) = File::open(table) else {
            continue;
        };
        let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
        let listeners = lines.map_while(of_line);
        inodes.extend(listeners.filter(|(is_wanted, _)| *is_wanted).map(|(_, inode)| inode));
    }
    inodes
}

/// Whether `error`, of making or binding a socket, says that the kernel doesn't have the address's family: IPv6, as a
/// rule.
pub fn is_family_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}
