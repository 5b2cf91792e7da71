//! The place where the command socket is opened: what is there already, how it is cleared, and the link by which a server is
//! found whose configuration file has come to name another place.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::file;
use crate::sys::process::{self, ProcessId};
use crate::sys::socket;

/// How long a start waits for another server to open its socket in the same folder.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no command socket.
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

/// What is to be found where a command socket should be.
enum Found {
    Nothing,
    /// The socket of a server that lives, this one; `None` if its queue is full, because it is stopped or very busy.
    Living(Option<ProcessId>),
    /// A socket that was left behind.
    LeftOver,
}

/// Looks at `path`; what is no socket is an error, since it is never removed.
fn look(path: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let text = "what is there is no socket, and is left alone";
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
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
    SocketAddr::from_pathname(path)?;
    Ok(file::could_create_in(file::folder_of(path), &[])?)
}

/// A symbolic link to the command socket, whose name is made of the configuration file's path alone.
pub(crate) struct Link {
    path: PathBuf,
    target: PathBuf,
    /// Device and inode: whether what is at the path is this one.
    identity: Option<(u64, u64)>,
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

/// Device and inode of what is at a path, a link itself and not what it leads to.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
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
