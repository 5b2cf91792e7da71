//! The file of a Unix socket: what is at its place already, how that is cleared, and how a socket that lanes accept from
//! gets there with the owner and the permissions that were asked for. It removes only what is left over or its own.
//!
//! ```text
//! lock of the folder ─▶ look ─▶ what was left over is removed ─▶ bind, with its permissions ─▶ owner ─▶ listen
//! ```
//!
//! Until it listens, a client is refused. Nothing that is there is ever overwritten: bind(2) itself fails then.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sys::file::{self, Named};
use crate::sys::process::{self, ProcessId};
use crate::sys::socket::{self, Bound};

/// How long a start waits for another server to open its socket in the same folder.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why a socket can't be opened at its path.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// A server that lives has it, this one; `None` if it takes no connection, which would tell.
    Taken(Option<ProcessId>),
    Failed(io::Error),
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> NotOpened {
        NotOpened::Failed(error)
    }
}

/// Keeps other servers from opening a socket in this folder, as soon as none does. Without a lock, after `patience`, the
/// order is left to chance, as it is where a file system has none.
pub(crate) fn lock_folder(path: &Path, patience: Duration) -> Option<File> {
    let folder = File::open(file::folder_of(path)).ok()?;
    let start = Instant::now();
    while let Err(TryLockError::WouldBlock) = folder.try_lock() {
        if start.elapsed() >= patience {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Some(folder)
}

/// What is to be found where a socket should be.
enum Found {
    Nothing,
    /// The socket of a server that lives, this one; `None` if its queue is full, because it is stopped or very busy.
    Living(Option<ProcessId>),
    /// A socket that was left behind.
    LeftOver,
}

/// What [`look`] fails with where something else is.
const NO_SOCKET: &str = "what is there is no socket, and is left alone";

/// Looks at `path`; what is no socket is an error, since it is never removed.
fn look(path: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(ErrorKind::AlreadyExists, NO_SOCKET)),
    }
    match socket::connect_without_waiting(path) {
        Ok(stream) => Ok(Found::Living(Some(socket::peer_pid(&stream)?))),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Found::Living(None)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Found::LeftOver),
        Err(error) => Err(error),
    }
}

/// Removes a socket that was left behind, or that of `predecessor`, and nothing else.
pub(crate) fn make_way(path: &Path, predecessor: Option<ProcessId>) -> Result<(), NotOpened> {
    match look(path)? {
        Found::Nothing => Ok(()),
        Found::Living(pid) if pid.is_none() || pid != predecessor => Err(NotOpened::Taken(pid)),
        Found::Living(_) | Found::LeftOver => Ok(fs::remove_file(path)?),
    }
}

/// Whether a socket could be opened at `path`, as far as that can be told without doing it.
pub(crate) fn rehearse(path: &Path) -> Result<(), NotOpened> {
    if let Found::Living(pid) = look(path)? {
        return Err(NotOpened::Taken(pid));
    }
    std::os::unix::net::SocketAddr::from_pathname(path)?;
    Ok(file::could_create_in(file::folder_of(path), &[])?)
}

/// Device and inode of what is at a path, a link itself and not what it leads to.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// By which a file is told from another one that has come to its name.
pub(crate) type Identity = (u64, u64);

/// Whose a socket's file is, and who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// The owner, if not the user of this process.
    uid: Option<u32>,
    /// The group, if not that of this process.
    gid: Option<u32>,
    mode: u32,
}

impl Access {
    /// An owner and a group by name or number, if they are named, as the keys of `table` in the configuration ask for.
    /// Waits for the user database.
    ///
    /// # Errors
    /// If one is unknown, or this process may not give a file to another user.
    pub(crate) fn find(
        table: &str,
        owner: Option<&str>,
        group: Option<&str>,
        mode: u32,
    ) -> Result<Access, String> {
        let cannot = |key: &str, reason: &str| format!("cannot use {table}.{key}: {reason}");
        let uid = owner.map(process::user_id).transpose();
        let uid = uid.map_err(|reason| cannot("socket_owner", &reason))?;
        let gid = group.map(process::group_id).transpose();
        let gid = gid.map_err(|reason| cannot("socket_group", &reason))?;
        let own = process::effective_user();
        if own != 0 && uid.is_some_and(|uid| uid != own) {
            return Err(cannot("socket_owner", "only root can give a socket to another user"));
        }
        Ok(Access { uid, gid, mode })
    }
}

/// The file of a socket that lanes accept from.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    /// What was asked for last, if that is known.
    access: Option<Access>,
    /// A forked child that drops its copy removes nothing, and neither does a supervisor that another one follows.
    owner: Option<ProcessId>,
}

impl SocketFile {
    /// Binds a socket to `path`, in place of one that was left behind there. It is to listen before others look at it,
    /// so `listen` does that under the folder's lock.
    ///
    /// # Errors
    /// Also if a server that lives listens there, or if what is there is no socket.
    pub(crate) fn open<T>(
        path: &Path,
        access: Access,
        patience: Duration,
        listen: impl FnOnce(Bound) -> io::Result<T>,
    ) -> Result<(SocketFile, T), NotOpened> {
        let _lock = lock_folder(path, patience);
        make_way(path, None)?;
        let bound = Bound::bind_unix(path, access.mode)?;
        // It doesn't listen yet, and is removed as one that was left behind, if it is still there.
        let named = Named::hold(path).inspect_err(|_| drop(make_way(path, None)))?;
        let found = named.metadata()?;
        if !found.file_type().is_socket() {
            // Another program has put something else there.
            return Err(NotOpened::Failed(ErrorKind::NotFound.into()));
        }
        let (path, identity) = (path.to_owned(), (found.dev(), found.ino()));
        let file = SocketFile { path, identity, access: Some(access), owner: Some(process::id()) };
        if access.uid.is_some() || access.gid.is_some() {
            named.set_owner(access.uid, access.gid)?;
        }
        Ok((file, listen(bound)?))
    }

    /// That of a supervisor before this one, which has it until [`SocketFile::take_over`].
    pub(crate) fn inherit(path: PathBuf, identity: Identity) -> SocketFile {
        SocketFile { path, identity, access: None, owner: None }
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the path still leads to it.
    pub(crate) fn is_at_its_path(&self) -> bool {
        identity(&self.path) == Some(self.identity)
    }

    /// It belongs to this process from here on.
    pub(crate) fn take_over(&mut self) {
        self.owner = Some(process::id());
    }

    /// It belongs to another process from here on.
    pub(crate) fn leave(&mut self) {
        self.owner = None;
    }

    /// Changes its owner and its permissions, if others were asked for before and it is still there. Meanwhile it has no
    /// permission that it had not before or is not to have.
    pub(crate) fn set_access(&mut self, access: Access) -> io::Result<()> {
        let before = self.access.replace(access);
        if before == Some(access) || !self.is_at_its_path() {
            return Ok(());
        }
        let named = Named::hold(&self.path)?;
        let found = named.metadata()?;
        if (found.dev(), found.ino()) != self.identity {
            return Ok(());
        }
        // The group of a new file may be its folder's (chown(2)), so it is only changed back if it was changed.
        let had_group = before.is_some_and(|before| before.gid.is_some());
        let uid = access.uid.unwrap_or_else(process::effective_user);
        let gid = access.gid.or_else(|| had_group.then(process::effective_group));
        let mode = found.mode() & 0o777;
        let is_owned = found.uid() == uid && gid.is_none_or(|gid| found.gid() == gid);
        if !is_owned {
            named.set_mode(mode & access.mode)?;
            named.set_owner(Some(uid), gid)?;
        }
        if !is_owned || mode != access.mode { named.set_mode(access.mode) } else { Ok(()) }
    }
}

/// Takes it away, if it is still this one's.
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owner == Some(process::id()) && self.is_at_its_path() {
            // What can't be removed is taken for left behind by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    #[test]
    fn a_socket_whose_queue_is_full_is_that_of_a_living_server_and_is_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("laneway-full-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("server.sock");
        let server = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        server.bind(&SockAddr::unix(&path).expect("a path that fits")).expect("bind it");
        server.listen(0).expect("listen");
        // Not even one more than is allowed fits.
        let clients: Vec<_> =
            std::iter::from_fn(|| socket::connect_without_waiting(&path).ok()).collect();
        assert!(!clients.is_empty());
        let (tell, told) = mpsc::channel();
        let looked = path.clone();
        thread::spawn(move || tell.send((make_way(&looked, None), rehearse(&looked))));
        let found = told.recv_timeout(Duration::from_secs(10)).expect("it doesn't wait");
        assert!(
            matches!(found, (Err(NotOpened::Taken(None)), Err(NotOpened::Taken(None)))),
            "{found:?}"
        );
        drop(clients);
        drop(server);
        make_way(&path, None).expect("it was left behind");
        fs::remove_dir(folder).expect("remove the folder, which is empty");
    }
}
