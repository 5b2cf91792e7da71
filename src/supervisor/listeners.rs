//! Every lane's listening sockets, made before anything is forked.
//!
//! **Port guard.** `SO_REUSEPORT` would let a second instance join the first one's port and silently take
//! half its traffic. Therefore the first socket of an address listens alone, which fails while anybody
//! else listens there, and opens itself to the group only afterwards. Two instances that start in the
//! same instant can't both get past that, as they could if the port were tested and then let go.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use procfs::net::TcpState;

use crate::config::{ListenAddress, Server};
use crate::sys::socket::{Bound, Listener, Sharing};

/// The sockets of one address, one for each lane.
pub struct Group {
    /// The address, with its real port.
    pub address: SocketAddr,
    /// By lane.
    pub listeners: Vec<Arc<Listener>>,
    /// The backlog in effect.
    pub backlog: u32,
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct Error {
    address: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unresolved(io::Error),
    InUse(Option<Holder>),
    Other(io::Error),
}

/// Who has a port.
#[derive(Debug)]
struct Holder {
    pid: i32,
    name: String,
}

/// Binds every address of `server` for `lanes` lanes. Addresses of a host name that the machine doesn't have
/// are left out, and returned as errors, as long as one of them works.
pub fn bind(server: &Server, lanes: usize) -> Result<(Vec<Group>, Vec<Error>), Error> {
    let mut groups = Vec::new();
    let mut left_out = Vec::new();
    for listen in &server.listen {
        let (addresses, name) = resolve(listen)?;
        let mut bound = 0;
        for address in addresses {
            match group(address, server.backlog, lanes) {
                Ok(group) => {
                    groups.push(group);
                    bound += 1;
                }
                Err(error) if name && error.is_absent_address() => left_out.push(error),
                Err(error) => return Err(error),
            }
        }
        if bound == 0
            && let Some(error) = left_out.pop()
        {
            return Err(error);
        }
    }
    Ok((groups, left_out))
}

/// The addresses of one entry, and whether it is a name.
fn resolve(listen: &ListenAddress) -> Result<(Vec<SocketAddr>, bool), Error> {
    match listen {
        ListenAddress::Socket(address) => Ok((vec![*address], false)),
        ListenAddress::Name(name, port) => {
            let mut addresses: Vec<_> = (name.as_str(), *port)
                .to_socket_addrs()
                .map_err(|error| Error {
                    address: format!("{name}:{port}"),
                    cause: Cause::Unresolved(error),
                })?
                .collect();
            addresses.sort();
            addresses.dedup();
            Ok((addresses, true))
        }
    }
}

/// One socket for each lane on `address`; a port of 0 is chosen once, so that all lanes share it.
fn group(address: SocketAddr, backlog: u32, lanes: usize) -> Result<Group, Error> {
    let failed = |error: io::Error| Error {
        address: address.to_string(),
        cause: match error.kind() {
            io::ErrorKind::AddrInUse => Cause::InUse(holder(address)),
            _ => Cause::Other(error),
        },
    };
    let make = || -> io::Result<Group> {
        let first = Bound::bind(address, Sharing::Exclusive)?.listen(backlog)?;
        first.open_to_group()?;
        let address = first.local_address()?;
        let mut listeners = vec![Arc::new(first)];
        while listeners.len() < lanes {
            listeners.push(Arc::new(Bound::bind(address, Sharing::Group)?.listen(backlog)?));
        }
        let backlog = listeners[0].accept_queue()?.backlog;
        Ok(Group { address, listeners, backlog })
    };
    make().map_err(failed)
}

/// The process that listens on the port of `address`, where /proc tells.
fn holder(address: SocketAddr) -> Option<Holder> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let inodes: Vec<u64> = tables
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen)
        .filter(|entry| entry.local_address.port() == address.port())
        .map(|entry| entry.inode)
        .collect();
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
    Some(Holder { pid: process.pid, name })
}

impl Error {
    fn is_absent_address(&self) -> bool {
        matches!(&self.cause, Cause::Other(error) if matches!(
            error.raw_os_error().map(nix::errno::Errno::from_raw),
            Some(nix::errno::Errno::EADDRNOTAVAIL | nix::errno::Errno::EAFNOSUPPORT)
        ))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.cause {
            Cause::Unresolved(error) => write!(
                f,
                "cannot listen on {address}: the name does not resolve: {error}; check server.listen"
            ),
            Cause::InUse(Some(Holder { pid, name })) => write!(
                f,
                "cannot listen on {address}: the port is in use by pid {pid} ({name}); stop it, or set \
                 server.listen to another port"
            ),
            Cause::InUse(None) => write!(
                f,
                "cannot listen on {address}: the port is in use, by a process that /proc doesn't show; \
                 stop it, or set server.listen to another port"
            ),
            Cause::Other(error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {address}: {error}; ports below 1024 need root or CAP_NET_BIND_SERVICE"
            ),
            Cause::Other(error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}
