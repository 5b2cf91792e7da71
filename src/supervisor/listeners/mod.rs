//! Every lane's listening sockets, which belong to the supervisor: workers get copies. It decides neither which lane's
//! sockets a worker accepts from, nor when a lane is closed.
//!
//! **State in the kernel.** A backlog, a filter, a program that steers, the file of a Unix socket: they belong to the
//! sockets, so an upgrade has two supervisors with a hand on them. As long as the one before serves, the heir changes none,
//! and what it adds to a group doesn't listen; the one before restores what it had when an heir has failed.

mod error;
mod group;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Engine, ListenAddress, SocketAccess};
use crate::supervisor::presence::socket_file::{Access, SocketFile};
use crate::sys::socket::{Address, Listener};

pub use error::{Error, PortHolders};
pub use group::{Group, RequestedAddress};
pub(crate) use resolve::{Resolved, resolve};

/// What addresses are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: each lane has a socket of its own.
    #[default]
    Serve,
    /// To tell of the server.
    Admin,
}

impl Purpose {
    /// The other one.
    pub(crate) fn other(self) -> Purpose {
        match self {
            Purpose::Serve => Purpose::Admin,
            Purpose::Admin => Purpose::Serve,
        }
    }

    /// The key that has them.
    pub fn key(self) -> &'static str {
        match self {
            Purpose::Serve => "server.listen",
            Purpose::Admin => "admin.listen",
        }
    }
}

/// Whose the Unix sockets are to be, by what they are for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Accesses {
    serve: Access,
    admin: Access,
}

impl Accesses {
    /// Those that `config` asks for. Waits for the user database.
    ///
    /// # Errors
    /// If a user or a group is unknown, or this process may not give a file to another user.
    pub(crate) fn find(config: &Config) -> Result<Accesses, String> {
        let find = |asked: SocketAccess<'_>| {
            Access::find(asked.table, asked.owner, asked.group, asked.mode)
        };
        let serve = find(config.server.socket_access())?;
        Ok(Accesses { serve, admin: find(config.admin.socket_access())? })
    }

    /// Of the sockets for this.
    pub(crate) fn of(self, purpose: Purpose) -> Access {
        match purpose {
            Purpose::Serve => self.serve,
            Purpose::Admin => self.admin,
        }
    }
}

/// The listening sockets for one purpose.
#[derive(Default)]
pub struct Listeners {
    purpose: Purpose,
    groups: Vec<Group>,
    /// New connections go to the sockets of this many lanes, if not to all.
    steered_to: Option<usize>,
    /// Another supervisor still serves from them.
    are_lent: bool,
}

/// What [`Listeners::open`] is to open.
pub struct Wanted<'c> {
    /// The entries of the configuration.
    pub listen: &'c [ListenAddress],
    /// What each of them stands for, in order.
    pub resolved: &'c [Resolved],
    /// The backlog that is asked for.
    pub backlog: u32,
    /// How many sockets each address has.
    pub sockets: usize,
    /// What accepts from them.
    pub engine: Engine,
    /// Which other processes listen.
    pub holders: &'c PortHolders,
    /// Whose the Unix sockets are to be.
    pub(crate) accesses: Accesses,
    /// How long to wait for another server that opens one in the same folder.
    pub lock_patience: Duration,
}

/// What [`Listeners::open`] came to.
pub struct Opened {
    /// The addresses of the configuration, as they were asked for.
    pub requested: Vec<RequestedAddress>,
    /// Those of them that are new.
    pub new: Vec<RequestedAddress>,
    /// Addresses of a host name that the machine doesn't have.
    pub left_out: Vec<Error>,
}

impl Listeners {
    /// Those that another supervisor is about to hand over, and serves from until [`Listeners::take_over`].
    pub fn inherit(purpose: Purpose, groups: Vec<Group>) -> Listeners {
        Listeners { purpose, groups, steered_to: None, are_lent: true }
    }

    /// None yet, for this.
    pub fn of(purpose: Purpose) -> Listeners {
        Listeners { purpose, ..Listeners::default() }
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
    pub(crate) fn take_over(&mut self, accesses: Accesses) -> io::Result<()> {
        if !std::mem::take(&mut self.are_lent) {
            return Ok(());
        }
        self.files().for_each(SocketFile::take_over);
        self.set_access(accesses).and(self.apply_steering())
    }

    fn files(&mut self) -> impl Iterator<Item = &mut SocketFile> {
        self.groups.iter_mut().filter_map(|group| group.file.as_mut())
    }

    fn set_access(&mut self, accesses: Accesses) -> io::Result<()> {
        let access = accesses.of(self.purpose);
        self.files().try_for_each(|file| file.set_access(access))
    }

    /// Sets what the kernel keeps for the sockets as it was before an heir had them, which has failed, or before a
    /// configuration that was given up.
    pub(crate) fn restore(&mut self, backlog: u32, accesses: Accesses) -> io::Result<()> {
        self.set_access(accesses)?;
        for listener in
            self.groups.iter().filter(|group| !group.is_held).flat_map(|group| &group.listeners)
        {
            listener.set_backlog(backlog)?;
            listener.stop_ignoring_new()?;
        }
        self.apply_steering()
    }

    /// Takes sockets that a service manager opened.
    ///
    /// # Errors
    /// If one of them has no address.
    pub fn activate(&mut self, sockets: Vec<OwnedFd>) -> io::Result<()> {
        for socket in sockets {
            let listener = Listener::from(socket);
            listener.prepare()?;
            let address = listener.local_address()?;
            let requested = RequestedAddress(address, 0);
            self.groups.push(Group::inherit(requested, true, None, [listener])?);
        }
        Ok(())
    }

    /// How many lanes have sockets.
    pub fn lanes(&self) -> usize {
        self.groups.iter().map(|group| group.listeners.len()).max().unwrap_or_default()
    }

    /// Opens the addresses that are wanted and aren't open yet, and gives those that are open the backlog that is asked
    /// for, and the files of Unix sockets their owner and permissions. Other addresses that are open stay so.
    ///
    /// # Errors
    /// If an address can't be had, other than one of several that a host name stands for. What was opened
    /// before stays open until [`Listeners::keep`].
    pub fn open(&mut self, wanted: &Wanted<'_>) -> Result<Opened, Error> {
        let purpose = self.purpose;
        let mut opened = self.open_wanted(wanted).map_err(|error| error.of(purpose))?;
        opened.left_out = opened.left_out.into_iter().map(|error| error.of(purpose)).collect();
        Ok(opened)
    }

    fn open_wanted(&mut self, wanted: &Wanted<'_>) -> Result<Opened, Error> {
        let mut opened = Opened { requested: Vec::new(), new: Vec::new(), left_out: Vec::new() };
        for (listen, resolved) in wanted.listen.iter().zip(wanted.resolved) {
            let name = matches!(listen, ListenAddress::Name(..));
            let unresolved = |reason| Error::unresolved(listen, reason);
            let addresses = resolved.clone().map_err(unresolved)?;
            let mut count = 0;
            for address in addresses {
                let before =
                    opened.requested.iter().filter(|requested| requested.0 == address).count();
                let requested = match &address {
                    Address::Internet(_) => RequestedAddress(address, before),
                    Address::Unix(_) => self.requested_file(address),
                };
                match self.open_address(&requested, wanted) {
                    Ok(is_new) => {
                        opened.new.extend(is_new.then(|| requested.clone()));
                        opened.requested.push(requested);
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
        if opened.requested.is_empty()
            && let Some(error) = opened.left_out.pop()
        {
            return Err(error);
        }
        let activated = self.groups.iter().filter(|group| group.is_activated);
        let activated = activated.map(|group| group.requested.clone());
        let more: Vec<_> =
            activated.filter(|requested| !opened.requested.contains(requested)).collect();
        opened.requested.extend(more);
        self.grow(wanted.sockets, wanted.backlog)?;
        Ok(opened)
    }

    /// By what a Unix socket is known: a name that none had, if the file of the one before was taken away.
    fn requested_file(&self, address: Address) -> RequestedAddress {
        let open: Vec<&Group> =
            self.groups.iter().filter(|group| group.requested.0 == address).collect();
        let found = open.iter().find(|group| group.is_in_place());
        let next = || open.iter().map(|group| group.requested.1 + 1).max().unwrap_or_default();
        let number = found.map_or_else(next, |group| group.requested.1);
        RequestedAddress(address, number)
    }

    /// Opens an address, and says whether it was not open before.
    fn open_address(
        &mut self,
        requested: &RequestedAddress,
        wanted: &Wanted<'_>,
    ) -> Result<bool, Error> {
        let Wanted { backlog, sockets, engine, holders, .. } = *wanted;
        let access = wanted.accesses.of(self.purpose);
        let are_lent = self.are_lent;
        let failed = |error| match &requested.0 {
            Address::Internet(_) => Error::at(&requested.0, error, holders),
            Address::Unix(path) => Error::at_path(path, error.into()),
        };
        if let Some(group) = self.groups.iter_mut().find(|group| group.requested == *requested) {
            let file = group.file.as_mut().filter(|_| !are_lent);
            file.map_or(Ok(()), |file| file.set_access(access)).map_err(failed)?;
            group.set_backlog(backlog).map_err(failed)?;
            return Ok(false);
        }
        let group = match (&requested.0, engine.abilities().own_sockets) {
            (Address::Unix(path), _) => {
                Group::open_file(requested.clone(), path, backlog, access, wanted.lock_patience)
                    .map_err(|error| Error::at_path(path, error))
            }
            (Address::Internet(address), own_sockets) => match own_sockets {
                None => Group::open(requested.clone(), *address, backlog, sockets),
                Some(_) => Group::hold(requested.clone(), *address),
            }
            .map_err(|error| {
                let is_own = |group: &Group| clashes(&group.address, &requested.0);
                match error.kind() {
                    io::ErrorKind::AddrInUse if self.groups.iter().any(is_own) => {
                        Error::several_entries(&requested.0)
                    }
                    _ => failed(error),
                }
            }),
        };
        self.groups.push(group?);
        Ok(true)
    }

    /// Sees to it that every group has sockets for so many lanes.
    pub fn grow(&mut self, lanes: usize, backlog: u32) -> Result<(), Error> {
        // These ports are this server's: no other process listens there.
        let failed = |address: &Address, error| Error::at(address, error, &PortHolders::none());
        let are_lent = self.are_lent;
        self.groups.iter_mut().try_for_each(|group| {
            group.grow(lanes, backlog, are_lent).map_err(|error| failed(&group.address, error))
        })?;
        // A group that is new isn't steered yet.
        match (self.steered_to, self.groups.first()) {
            (Some(_), Some(first)) => {
                self.apply_steering().map_err(|error| failed(&first.address, error))
            }
            _ => Ok(()),
        }
    }

    /// Closes the supervisor's copies of all others. Workers take what waits in theirs, and close them.
    pub fn keep(&mut self, requested: &[RequestedAddress]) {
        if self.are_lent {
            return;
        }
        let others = self.groups.extract_if(.., |group| !requested.contains(&group.requested));
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
        self.files().for_each(SocketFile::leave);
        self.groups.clear();
    }

    /// The groups, in the order in which they were opened.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Those of these addresses that an engine can open itself, with their real ports.
    pub fn addresses(&self, requested: &[RequestedAddress]) -> Arc<[SocketAddr]> {
        let groups = self.groups.iter().filter(|group| requested.contains(&group.requested));
        groups.filter_map(|group| group.address.internet()).collect()
    }

    /// The sockets of one lane on these addresses.
    pub fn of_lane(&self, lane: usize, requested: &[RequestedAddress]) -> Vec<BorrowedFd<'_>> {
        let groups = self.groups.iter().filter(|group| requested.contains(&group.requested));
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

    /// Closes the sockets of the last lane in every process, if no connection waits in them, and says whether it did.
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

/// Whether one of the addresses takes the port, or the path, that the other needs. `[::]` is IPv6 alone, here.
pub(crate) fn clashes(one: &Address, other: &Address) -> bool {
    let (Some(one), Some(other)) = (one.internet(), other.internet()) else {
        return one == other;
    };
    let same_host =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && same_host
}

#[cfg(test)]
mod tests;
