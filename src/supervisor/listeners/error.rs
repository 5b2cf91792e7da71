//! Why an address can't be listened on, in words: what, where, why, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Purpose;
use crate::config::ListenAddress;
use crate::supervisor::presence::socket_file::NotOpened;
use crate::sys::socket::Address;
use crate::sys::socket::ports::{self, PortHolder};
use crate::sys::{file, process};

/// Which processes listen on the ports that are to be opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PortHolders {
    /// Looked up where a port turns out to be in use. That may take long: not in the supervisor's loop.
    WhenNeeded,
    /// Looked up before, by port.
    Known(BTreeMap<u16, PortHolder>),
}

impl PortHolders {
    /// No other process listens on one of them.
    pub(super) fn none() -> PortHolders {
        PortHolders::Known(BTreeMap::new())
    }

    /// Looks which processes listen on the ports of these `addresses`, and says before each: `about_to`.
    pub(crate) fn find<'a>(
        addresses: impl Iterator<Item = &'a Address>,
        about_to: impl Fn(u16),
    ) -> PortHolders {
        let ports: BTreeSet<u16> = addresses
            .filter_map(Address::internet)
            .map(|of| of.port())
            .filter(|port| *port != 0)
            .collect();
        let holder = |port| {
            about_to(port);
            Some((port, ports::holder(port)?))
        };
        PortHolders::Known(ports.into_iter().filter_map(holder).collect())
    }

    fn of(&self, port: u16) -> Option<PortHolder> {
        match self {
            PortHolders::WhenNeeded => ports::holder(port),
            PortHolders::Known(holders) => holders.get(&port).cloned(),
        }
    }
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct Error {
    address: String,
    purpose: Purpose,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unresolved(String),
    /// This server listens there already, for another entry of the same key.
    SeveralEntries,
    /// This server listens there already, for another key.
    OtherPurpose,
    /// This server listens there for another key, which has it no more in the configuration that is to be served.
    Moved,
    InUse(Option<PortHolder>),
    /// This server listens at the path already, for another entry of one of the keys.
    OwnPath,
    /// This process listens at the path; `None` if it takes no connection, which would tell.
    Listening(Option<PortHolder>),
    /// A Unix socket in this folder.
    File(String, io::Error),
    Other(io::Error),
}

impl Error {
    pub(crate) fn unresolved(listen: &ListenAddress, reason: String) -> Error {
        let (address, purpose) = (listen.to_string(), Purpose::default());
        Error { address, purpose, cause: Cause::Unresolved(reason) }
    }

    pub(super) fn several_entries(address: &Address) -> Error {
        let (address, purpose) = (address.to_string(), Purpose::default());
        Error { address, purpose, cause: Cause::SeveralEntries }
    }

    /// Of a Unix socket that is to be at `path`.
    pub(crate) fn at_path(path: &Path, error: NotOpened) -> Error {
        let folder = file::folder_of(path).display().to_string();
        let cause = match error {
            NotOpened::Taken(Some(pid)) if pid == process::id() => Cause::OwnPath,
            NotOpened::Taken(pid) => Cause::Listening(pid.map(PortHolder::of)),
            NotOpened::Failed(error) => Cause::File(folder, error),
        };
        let address = Address::Unix(path.to_owned()).to_string();
        Error { address, purpose: Purpose::default(), cause }
    }

    pub(crate) fn at(address: &Address, error: io::Error, holders: &PortHolders) -> Error {
        let port = address.internet().map(|of| of.port());
        let cause = match (error.kind(), port) {
            (io::ErrorKind::AddrInUse, Some(port)) => match holders.of(port) {
                Some(holder) if holder.pid == process::id() => Cause::OtherPurpose,
                holder => Cause::InUse(holder),
            },
            _ => Cause::Other(error),
        };
        Error { address: address.to_string(), purpose: Purpose::default(), cause }
    }

    /// The same, of an address that is for this.
    pub(crate) fn of(self, purpose: Purpose) -> Error {
        Error { purpose, ..self }
    }

    /// Whether it is of this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.address == address.to_string()
    }

    /// The same of an address that this server has, and until the next configuration is served, for another key.
    pub(crate) fn moved(self) -> Error {
        Error { cause: Cause::Moved, ..self }
    }

    /// Whether the server can serve without this address, as long as there is another one: one of those that a `name`
    /// stands for and this machine doesn't have, or one of a family that its kernel doesn't have, as `[::]` without IPv6.
    pub(crate) fn can_be_left_out(&self, name: bool) -> bool {
        let Cause::Other(error) = &self.cause else {
            return false;
        };
        let is_not_here = name && error.kind() == io::ErrorKind::AddrNotAvailable;
        is_not_here || ports::is_family_missing(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.purpose.key();
        write!(f, "cannot listen on {}: ", self.address)?;
        match &self.cause {
            Cause::Unresolved(error) => {
                write!(f, "the name does not resolve: {error}; check {key}")
            }
            Cause::SeveralEntries => write!(f, "several entries of {key} stand for it"),
            Cause::OtherPurpose => write!(
                f,
                "this server listens there itself: server.listen and admin.listen can't share a port; set {key} to another"
            ),
            Cause::Moved => write!(
                f,
                "the configuration that is served has it as {}, until another one is served; leave it out of both keys \
                 and reload, then set {key} to it and reload again",
                self.purpose.other().key()
            ),
            Cause::InUse(Some(PortHolder { pid, name })) => write!(
                f,
                "the port is in use by pid {pid} ({name}); stop it, or set {key} to another port"
            ),
            Cause::InUse(None) => write!(
                f,
                "the port is in use, by a process that /proc doesn't show; stop it, or set {key} to another port"
            ),
            Cause::Listening(Some(PortHolder { pid, name })) => write!(
                f,
                "pid {pid} ({name}) listens there; stop it, or set {key} to another path"
            ),
            Cause::Listening(None) => write!(
                f,
                "a process listens there whose queue is full; stop it, or set {key} to another path"
            ),
            Cause::OwnPath => write!(
                f,
                "this server listens there itself, for another entry of server.listen or admin.listen; set {key} to \
                 another path"
            ),
            Cause::File(folder, error) => {
                write!(f, "{error}; ")?;
                match error.kind() {
                    io::ErrorKind::NotFound => {
                        write!(f, "create the folder {folder} (systemd: RuntimeDirectory=)")
                    }
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => write!(
                        f,
                        "the user of this process has to be able to create a file in {folder}, and to connect to what is \
                         there"
                    ),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse => {
                        write!(f, "move it away, or set {key} to another path")
                    }
                    _ => write!(f, "set {key} to another path"),
                }
            }
            Cause::Other(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{error}; ports below 1024 need root or CAP_NET_BIND_SERVICE")
            }
            Cause::Other(error) if error.kind() == io::ErrorKind::AddrNotAvailable => f.write_str(
                "no interface of this machine has that address; `ip address` shows those it has, and 0.0.0.0 or [::] \
                 stands for all",
            ),
            Cause::Other(error) => write!(f, "{error}"),
        }
    }
}
