//! Every lane's listening sockets, which belong to the supervisor: workers get copies.
//!
//! **Port guard.** `SO_REUSEPORT` would let a second instance join the first one's port and silently take
//! half its traffic. Therefore the first socket of an address listens alone, which fails while anybody
//! else listens there, and opens itself to the group only afterwards. Two instances that start in the
//! same instant can't both get past that, as they could if the port were tested and then let go.
//!
//! **State in the kernel.** A backlog, a filter, a program that steers: they belong to the sockets, so an upgrade has
//! two supervisors with a hand on them. As long as the one before serves, the heir changes none, and what it adds
//! to a group doesn't listen; the one before restores what it had when an heir has failed.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::config::{Engine, ListenAddress, Server};
use crate::sys::process;
use crate::sys::socket::{self, Bound, Listener, Sharing};

/// The sockets of one address, one for each lane.
pub struct Group {
    /// By which it is found again.
    pub asked: Asked,
    /// A service manager opened its first socket: it is served whatever the configuration says.
    pub is_activated: bool,
    /// Its one socket only keeps the port: workers of an engine that opens its own listen there.
    pub is_held: bool,
    /// The address, with its real port.
    pub address: SocketAddr,
    /// By lane, which is also their order in the kernel's group. An activated socket that can't be joined is
    /// alone, and all lanes share it.
    pub listeners: Vec<Listener>,
    /// The backlog in effect.
    pub backlog: u32,
}

/// An address as it was asked for, where the port may be 0, and how many times it was before: each of two
/// ports 0 is a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked(SocketAddr, usize);

/// Every listening socket of the server.
#[derive(Default)]
pub struct Listeners {
    groups: Vec<Group>,
    /// New connections go to the sockets of this many lanes, if not to all.
    steered_to: Option<usize>,
    /// Another supervisor still serves from them.
    are_lent: bool,
}

/// What [`Listeners::open`] came to.
pub struct Opened {
    /// The addresses of the configuration, as they were asked for.
    pub asked: Vec<Asked>,
    /// Those of them that are new.
    pub new: Vec<Asked>,
    /// Addresses of a host name that the machine doesn't have.
    pub left_out: Vec<Error>,
}

/// The backlog that may gives every socket of its own.
const MAY_BACKLOG: u32 = 1024;

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct Error {
    address: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unresolved(String),
    InUse(Option<Holder>),
    Other(io::Error),
}

/// Who has a port.
#[derive(Debug)]
struct Holder {
    pid: i32,
    name: String,
}

impl Listeners {
    /// Those that another supervisor is about to hand over, and serves from until [`Listeners::take_over`].
    pub fn inherit(groups: Vec<Group>) -> Listeners {
        Listeners { groups, steered_to: None, are_lent: true }
    }

    /// Whether another supervisor still serves from them.
    pub fn are_lent(&self) -> bool {
        self.are_lent
    }

    /// Has those sockets listen that this supervisor added to groups that it was lent: its workers are ready.
    pub fn begin_to_listen(&self, backlog: u32) -> io::Result<()> {
        if !self.are_lent {
            return Ok(());
        }
        let groups = self.groups.iter().filter(|group| !group.is_held);
        let mut listeners = groups.flat_map(|group| &group.listeners);
        listeners.try_for_each(|listener| listener.set_backlog(backlog))
    }

    /// The supervisor before this one serves no longer: what the kernel keeps for the sockets is set as this one
    /// wants it, whatever that one left there.
    pub fn take_over(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.are_lent) { self.apply_steering() } else { Ok(()) }
    }

    /// Sets what the kernel keeps for the sockets as it was before an heir had them, which has failed.
    pub fn restore(&self, backlog: u32) -> io::Result<()> {
        for listener in
            self.groups.iter().filter(|group| !group.is_held).flat_map(|group| &group.listeners)
        {
            listener.set_backlog(backlog)?;
            listener.heed_new()?;
        }
        self.apply_steering()
    }

    /// Takes sockets that a service manager opened.
    ///
    /// # Errors
    /// If one of them doesn't listen on an internet address.
    pub fn activate(&mut self, sockets: Vec<OwnedFd>) -> io::Result<()> {
        for socket in sockets {
            let listener = Listener::from(socket);
            listener.prepare()?;
            let address = listener.local_address()?;
            self.groups.push(Group::inherit(Asked(address, 0), true, [listener])?);
        }
        Ok(())
    }

    /// How many lanes have sockets.
    pub fn lanes(&self) -> usize {
        self.groups.iter().map(|group| group.listeners.len()).max().unwrap_or_default()
    }

    /// Opens what `server` asks for, which stands for what was `found`, and isn't open yet, for `lanes` lanes, and gives those that are the
    /// backlog it asks for. What other addresses are open stays so.
    ///
    /// # Errors
    /// If an address can't be had, other than one of several that a host name stands for. What was opened
    /// before stays open until [`Listeners::keep`].
    pub fn open(
        &mut self,
        server: &Server,
        found: &[Found],
        lanes: usize,
        engine: Engine,
    ) -> Result<Opened, Error> {
        let mut opened = Opened { asked: Vec::new(), new: Vec::new(), left_out: Vec::new() };
        for (listen, found) in server.listen.iter().zip(found) {
            let name = matches!(listen, ListenAddress::Name(..));
            let unresolved = |reason| Error::unresolved(listen, reason);
            let addresses = found.clone().map_err(unresolved)?;
            let mut count = 0;
            for address in addresses {
                let before = opened.asked.iter().filter(|asked| asked.0 == address).count();
                let asked = Asked(address, before);
                match self.open_address(asked, server.backlog, lanes, engine) {
                    Ok(is_new) => {
                        opened.asked.push(asked);
                        opened.new.extend(is_new.then_some(asked));
                        count += 1;
                    }
                    Err(error) if error.can_be_left_out(name) => opened.left_out.push(error),
                    Err(error) => return Err(error),
                }
            }
            if count == 0
                && name
                && let Some(error) = opened.left_out.pop()
            {
                return Err(error);
            }
        }
        if opened.asked.is_empty()
            && let Some(error) = opened.left_out.pop()
        {
            return Err(error);
        }
        let activated = self.groups.iter().filter(|group| group.is_activated);
        let activated = activated.map(|group| group.asked);
        let more: Vec<_> = activated.filter(|asked| !opened.asked.contains(asked)).collect();
        opened.asked.extend(more);
        self.grow(lanes, server.backlog)?;
        Ok(opened)
    }

    /// Opens an address, and says whether it was not open before.
    fn open_address(
        &mut self,
        asked: Asked,
        backlog: u32,
        lanes: usize,
        engine: Engine,
    ) -> Result<bool, Error> {
        let failed = |error| Error::at(asked.0, error);
        if let Some(group) = self.groups.iter_mut().find(|group| group.asked == asked) {
            group.set_backlog(backlog).map_err(failed)?;
            return Ok(false);
        }
        let group = match engine {
            Engine::Native => Group::open(asked, backlog, lanes),
            Engine::May => Group::hold(asked),
        };
        self.groups.push(group.map_err(failed)?);
        Ok(true)
    }

    /// Sees to it that every group has sockets for so many lanes.
    pub fn grow(&mut self, lanes: usize, backlog: u32) -> Result<(), Error> {
        let are_lent = self.are_lent;
        self.groups.iter_mut().try_for_each(|group| {
            group.grow(lanes, backlog, are_lent).map_err(|error| Error::at(group.address, error))
        })?;
        // A group that is new isn't steered yet.
        match (self.steered_to, self.groups.first()) {
            (Some(_), Some(first)) => {
                self.apply_steering().map_err(|error| Error::at(first.address, error))
            }
            _ => Ok(()),
        }
    }

    /// Closes the supervisor's copies of all others. Workers take what waits in theirs, and close them.
    pub fn keep(&mut self, asked: &[Asked]) {
        if self.are_lent {
            return;
        }
        let others = self.groups.extract_if(.., |group| !asked.contains(&group.asked));
        others.for_each(|group| group.close());
    }

    /// Closes the supervisor's copies of all, as above.
    pub fn close(&mut self) {
        if self.are_lent {
            return self.groups.clear();
        }
        self.groups.drain(..).for_each(|group| group.close());
    }

    /// Closes the supervisor's copies of all, which another supervisor has, too.
    pub fn leave_to_heir(&mut self) {
        self.groups.clear();
    }

    /// The groups, in the order in which they were opened.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// These addresses, with their real ports.
    pub fn addresses(&self, asked: &[Asked]) -> Arc<[SocketAddr]> {
        let groups = self.groups.iter().filter(|group| asked.contains(&group.asked));
        groups.map(|group| group.address).collect()
    }

    /// The sockets of one lane on these addresses.
    pub fn of_lane(&self, lane: usize, asked: &[Asked]) -> Vec<BorrowedFd<'_>> {
        let groups = self.groups.iter().filter(|group| asked.contains(&group.asked));
        groups.filter_map(|group| group.of_lane(lane)).map(AsFd::as_fd).collect()
    }

    /// Has new connections go to the sockets of the first `lanes` lanes; `None`: to all.
    pub fn steer(&mut self, lanes: Option<usize>) -> io::Result<()> {
        self.steered_to = lanes;
        self.apply_steering()
    }

    fn apply_steering(&self) -> io::Result<()> {
        if self.are_lent {
            return Ok(());
        }
        let groups = self.groups.iter().filter(|group| group.listeners.len() > 1);
        let mut first = groups.filter_map(|group| group.listeners.first());
        first.try_for_each(|first| first.steer(self.steered_to))
    }

    /// Closes the sockets of the last lane for everybody, if nobody waits in them, and says whether it did.
    pub fn close_lane(&mut self, lane: usize) -> io::Result<bool> {
        let is_last = |group: &&mut Group| group.listeners.len() == lane + 1;
        let last = |group: &Group| group.listeners[lane].accept_queue();
        for group in self.groups.iter_mut().filter(is_last) {
            if last(group)?.waiting > 0 {
                return Ok(false);
            }
        }
        for group in self.groups.iter_mut().filter(is_last) {
            if let Some(listener) = group.listeners.pop() {
                listener.close_everywhere()?;
            }
        }
        Ok(true)
    }
}

/// The first socket of an address, where nobody else listens. Of two who ask at the same moment the kernel may refuse
/// both; they try again, each after a time of its own.
fn listen_alone(address: SocketAddr, backlog: u32) -> io::Result<Listener> {
    const ATTEMPTS: u32 = 5;
    let mut attempts = 1;
    loop {
        let bound = Bound::bind(address, Sharing::Exclusive)?; // Fails where somebody listens.
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
    fn open(asked: Asked, backlog: u32, lanes: usize) -> io::Result<Group> {
        let first = listen_alone(asked.0, backlog)?;
        first.open_to_group()?;
        let address = first.local_address()?;
        let backlog_effective = first.accept_queue()?.backlog;
        let listeners = vec![first];
        let mut group = Group {
            asked,
            is_activated: false,
            is_held: false,
            address,
            listeners,
            backlog: backlog_effective,
        };
        group.grow(lanes, backlog, false)?;
        Ok(group)
    }

    /// Keeps a port for workers that listen there themselves. Nobody else may listen there now, or bind it alone
    /// from here on.
    fn hold(asked: Asked) -> io::Result<Group> {
        let first = listen_alone(asked.0, MAY_BACKLOG)?;
        first.open_to_group()?;
        let (address, backlog) = (first.local_address()?, first.accept_queue()?.backlog);
        let listeners = vec![Bound::bind(address, Sharing::Held)?.hold()];
        Ok(Group { asked, is_activated: false, is_held: true, address, listeners, backlog })
    }

    /// One that was opened by another process.
    pub(crate) fn inherit(
        asked: Asked,
        is_activated: bool,
        listeners: impl IntoIterator<Item = Listener>,
    ) -> io::Result<Group> {
        let listeners: Vec<Listener> = listeners.into_iter().collect();
        let first = listeners.first().ok_or(io::ErrorKind::InvalidData)?;
        let (address, backlog) = (first.local_address()?, first.accept_queue()?.backlog);
        Ok(Group { asked, is_activated, is_held: false, address, listeners, backlog })
    }

    /// Nobody is to get into a queue between a worker's last look into it and its close: he would be reset. The
    /// service manager keeps the socket that it opened, and will want it again.
    fn close(self) {
        for listener in self.listeners.iter().skip(usize::from(self.is_activated)) {
            // Without it a client may be reset that would be refused.
            let _ = listener.ignore_new();
        }
    }

    fn of_lane(&self, lane: usize) -> Option<&Listener> {
        match &self.listeners[..] {
            // One that is shared, or that can't be joined; where each lane has its own, nobody asks for more.
            [shared] => Some(shared),
            listeners => listeners.get(lane),
        }
    }

    /// Adds sockets; while the group `is_lent`, such as don't listen yet.
    fn grow(&mut self, lanes: usize, backlog: u32, is_lent: bool) -> io::Result<()> {
        if self.is_activated && self.listeners.len() == 1 && lanes > 1 {
            return self.join_activated(lanes, backlog, is_lent);
        }
        while self.listeners.len() < lanes && !self.is_held {
            self.listeners.push(self.another(backlog, is_lent)?);
        }
        Ok(())
    }

    fn another(&self, backlog: u32, is_lent: bool) -> io::Result<Listener> {
        let bound = Bound::bind(self.address, Sharing::Group)?;
        if is_lent { Ok(bound.hold()) } else { bound.listen(backlog) }
    }

    /// Joins the port of a socket that a service manager opened, where the kernel allows it: it asks for the
    /// same user (socket(7), `SO_REUSEPORT`).
    fn join_activated(&mut self, lanes: usize, backlog: u32, is_lent: bool) -> io::Result<()> {
        let join = || {
            self.listeners[0].open_to_group()?;
            let others = (1..lanes).map(|_| self.another(backlog, is_lent));
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

    fn set_backlog(&mut self, backlog: u32) -> io::Result<()> {
        if self.is_held {
            return Ok(());
        }
        self.listeners.iter().try_for_each(|listener| listener.set_backlog(backlog))?;
        self.backlog = self
            .listeners
            .first()
            .map_or(Ok(0), |first| first.accept_queue().map(|queue| queue.backlog))?;
        Ok(())
    }
}

/// What an entry of `server.listen` stands for, or why nothing is known of it.
pub(crate) type Found = Result<Vec<SocketAddr>, String>;

/// Looks up what an entry stands for. Waits for the resolver if it is a name.
pub(crate) fn resolve(listen: &ListenAddress) -> Found {
    match listen {
        ListenAddress::Socket(address) => Ok(vec![*address]),
        ListenAddress::Name(name, port) => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let mut addresses: Vec<_> = found.map_err(|error| error.to_string())?.collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses)
        }
    }
}

/// The process that listens on the port of `address`, where /proc tells.
fn holder(address: SocketAddr) -> Option<Holder> {
    let inodes = socket::listening_inodes(address.port());
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

fn is_errno(error: &io::Error, errnos: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|raw| errnos.contains(&Errno::from_raw(raw)))
}

impl Error {
    pub(crate) fn unresolved(listen: &ListenAddress, reason: String) -> Error {
        Error { address: listen.to_string(), cause: Cause::Unresolved(reason) }
    }

    pub(crate) fn at(address: SocketAddr, error: io::Error) -> Error {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => Cause::InUse(holder(address)),
            _ => Cause::Other(error),
        };
        Error { address: address.to_string(), cause }
    }

    /// Whether the server can serve without this address, as long as there is another one: one of those that a `name`
    /// stands for and this machine doesn't have, or one of a family that its kernel doesn't have, as `[::]` without IPv6.
    pub(crate) fn can_be_left_out(&self, name: bool) -> bool {
        let absent = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
        let absent = if name { &absent[..] } else { &absent[1..] };
        matches!(&self.cause, Cause::Other(error) if is_errno(error, absent))
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
            Cause::InUse(Some(Holder { pid, .. })) if *pid == process::id() => {
                write!(
                    f,
                    "cannot listen on {address}: several entries of server.listen stand for it"
                )
            }
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
            Cause::Other(error) if is_errno(error, &[Errno::EADDRNOTAVAIL]) => write!(
                f,
                "cannot listen on {address}: no interface of this machine has that address; `ip address` shows \
                 those it has, and 0.0.0.0 or [::] stands for all"
            ),
            Cause::Other(error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
