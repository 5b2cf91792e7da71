//! The sockets of one address, one for each lane, which the kernel keeps as one group of the port: how they are opened,
//! added to and closed. It knows of no other address. Of a Unix socket there is one, which all lanes share: the kernel has
//! no groups of those.
//!
//! **Port guard.** `SO_REUSEPORT` would let a second instance join the first one's port and silently take
//! half its traffic. Therefore the first socket of an address listens alone, which fails while another process
//! listens there, and opens itself to the group only afterwards. Two instances that start in the
//! same instant can't both get past that, as they could if the port were tested and then let go.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::presence::socket_file::{Access, Identity, NotOpened, SocketFile};
use crate::sys::socket::{self, Address, Bound, Listener, Sharing};

/// The sockets of one address, one for each lane.
pub struct Group {
    /// By which it is found again.
    pub requested: RequestedAddress,
    /// A service manager opened its first socket: it is served whatever the configuration says.
    pub is_activated: bool,
    /// Its one socket only keeps the port: workers of an engine that opens its own listen there.
    pub is_held: bool,
    /// The address, with its real port.
    pub address: Address,
    /// By lane, which is also their order in the kernel's group. An activated socket that can't be joined is
    /// alone, and all lanes share it; so is a Unix socket.
    pub listeners: Vec<Listener>,
    /// The file of a Unix socket, unless a service manager opened it.
    pub(super) file: Option<SocketFile>,
    /// The backlog in effect.
    pub backlog: u32,
}

/// An address as it was asked for, where the port may be 0, and how many times it was before: each of two ports 0 is a
/// port of its own, and of a Unix socket whose file was taken away there is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedAddress(pub(super) Address, pub(super) usize);

impl RequestedAddress {
    /// The address alone.
    pub(crate) fn address(&self) -> &Address {
        &self.0
    }
}

/// The backlog that may gives every socket of its own.
const MAY_BACKLOG: u32 = 1024;

/// The first socket of an address, where no other process listens. Of two processes that ask at the same moment the kernel
/// may refuse both; they try again, each after a time of its own.
fn listen_alone(address: SocketAddr, backlog: u32) -> io::Result<Listener> {
    const ATTEMPTS: u32 = 5;
    let mut attempts = 1;
    loop {
        let bound = Bound::bind(address, Sharing::Exclusive)?; // Fails where a process listens.
        match bound.listen(backlog) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < ATTEMPTS => {
                attempts += 1;
                thread::sleep(Duration::from_millis(1 + u64::from(std::process::id() % 8)));
            }
            listener => return listener,
        }
    }
}

impl Group {
    /// One socket for each lane; a port of 0 is chosen once, so that all lanes share it.
    pub(super) fn open(
        requested: RequestedAddress,
        address: SocketAddr,
        backlog: u32,
        lanes: usize,
    ) -> io::Result<Group> {
        let first = listen_alone(address, backlog)?;
        first.open_to_group()?;
        let mut group = Group::of(requested, first.local_address()?, vec![first])?;
        group.grow(lanes, backlog, false)?;
        Ok(group)
    }

    /// The socket at `path`, which all lanes share.
    pub(super) fn open_file(
        requested: RequestedAddress,
        path: &Path,
        backlog: u32,
        access: Access,
        patience: Duration,
    ) -> Result<Group, NotOpened> {
        let listen = |bound: Bound| bound.listen(backlog);
        let (file, listener) = SocketFile::open(path, access, patience, listen)?;
        let address = requested.0.clone();
        let mut group = Group::of(requested, address, vec![listener])?;
        (group.file, group.backlog) = (Some(file), backlog_of(&group.listeners, backlog)?);
        Ok(group)
    }

    /// Keeps a port for workers that listen there themselves. No other process may listen there now, or bind it alone
    /// from here on.
    pub(super) fn hold(requested: RequestedAddress, address: SocketAddr) -> io::Result<Group> {
        let first = listen_alone(address, MAY_BACKLOG)?;
        first.open_to_group()?;
        let of_first = Group::of(requested, first.local_address()?, vec![first])?;
        let address = of_first.address.internet().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let listeners = vec![Bound::bind(address, Sharing::Held)?.hold()];
        Ok(Group { is_held: true, listeners, ..of_first })
    }

    /// One that was opened by another process.
    pub(crate) fn inherit(
        requested: RequestedAddress,
        is_activated: bool,
        file: Option<Identity>,
        listeners: impl IntoIterator<Item = Listener>,
    ) -> io::Result<Group> {
        let listeners: Vec<Listener> = listeners.into_iter().collect();
        let first = listeners.first().ok_or(io::ErrorKind::InvalidData)?;
        let address = first.local_address()?;
        let path = address.path().map(Path::to_owned);
        let file = path.zip(file).map(|(path, file)| SocketFile::inherit(path, file));
        Ok(Group { is_activated, file, ..Group::of(requested, address, listeners)? })
    }

    fn of(
        requested: RequestedAddress,
        address: Address,
        listeners: Vec<Listener>,
    ) -> io::Result<Group> {
        let backlog = backlog_of(&listeners, u32::MAX)?;
        let (is_activated, is_held, file) = (false, false, None);
        Ok(Group { requested, is_activated, is_held, address, listeners, file, backlog })
    }

    /// Device and inode of its file, by which an heir tells it from another one at the same path.
    pub(crate) fn file_identity(&self) -> Option<Identity> {
        self.file.as_ref().map(SocketFile::identity)
    }

    /// Whether clients still find it: the file of a Unix socket is in its place.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_at_its_path)
    }

    /// Whether all lanes take connections from its one socket, or the acceptor does, whatever the way of accepting.
    pub(crate) fn is_shared(&self) -> bool {
        self.address.path().is_some()
    }

    /// Closes the supervisor's copies, after which no new connection may enter a queue: one that completes after a
    /// worker's last accept and before its close would be reset. The service manager keeps the socket that it opened,
    /// and will want it again.
    pub(super) fn close(self) {
        for listener in self.listeners.iter().skip(usize::from(self.is_activated)) {
            // Where the kernel has no such filter, a client may be reset that would be refused.
            let _ = listener.ignore_new();
        }
    }

    pub(super) fn of_lane(&self, lane: usize) -> Option<&Listener> {
        match &self.listeners[..] {
            // One that is shared, or that can't be joined; where each lane has its own, no lane beyond them is asked for.
            [shared] => Some(shared),
            listeners => listeners.get(lane),
        }
    }

    /// Adds sockets; while the group `is_lent`, such as don't listen yet.
    pub(super) fn grow(&mut self, lanes: usize, backlog: u32, is_lent: bool) -> io::Result<()> {
        let Some(address) = self.address.internet() else {
            return Ok(());
        };
        if self.is_activated && self.listeners.len() == 1 && lanes > 1 {
            return self.join_activated(address, lanes, backlog, is_lent);
        }
        while self.listeners.len() < lanes && !self.is_held {
            self.listeners.push(Group::another(address, backlog, is_lent)?);
        }
        Ok(())
    }

    fn another(address: SocketAddr, backlog: u32, is_lent: bool) -> io::Result<Listener> {
        let bound = Bound::bind(address, Sharing::Group)?;
        if is_lent { Ok(bound.hold()) } else { bound.listen(backlog) }
    }

    /// Joins the port of a socket that a service manager opened, where the kernel allows it: it asks for the
    /// same user (socket(7), `SO_REUSEPORT`).
    fn join_activated(
        &mut self,
        address: SocketAddr,
        lanes: usize,
        backlog: u32,
        is_lent: bool,
    ) -> io::Result<()> {
        let join = || {
            self.listeners[0].open_to_group()?;
            let others = (1..lanes).map(|_| Group::another(address, backlog, is_lent));
            others.collect::<io::Result<Vec<_>>>()
        };
        match join() {
            Ok(listeners) => {
                self.listeners.extend(listeners);
                tracing::info!(address = %self.address, accept = "reuseport", "socket activated");
            }
            Err(error) => {
                let reason = format!("the lanes can't join its port: {error}");
                tracing::info!(address = %self.address, accept = "shared", reason, "socket activated");
            }
        }
        Ok(())
    }

    pub(super) fn set_backlog(&mut self, backlog: u32) -> io::Result<()> {
        if self.is_held {
            return Ok(());
        }
        self.listeners.iter().try_for_each(|listener| listener.set_backlog(backlog))?;
        self.backlog = backlog_of(&self.listeners, backlog)?;
        Ok(())
    }
}

/// The backlog in effect of these sockets, which is that of the first; so much was asked for.
fn backlog_of(listeners: &[Listener], asked: u32) -> io::Result<u32> {
    let first = listeners.first().ok_or(io::ErrorKind::InvalidData)?;
    match first.accept_queue() {
        Ok(queue) => Ok(queue.backlog),
        // Of Unix sockets sock_diag(7) alone tells, which a kernel may lack.
        Err(_) if first.is_unix() => Ok(asked.min(socket::backlog_max())),
        Err(error) => Err(error),
    }
}
