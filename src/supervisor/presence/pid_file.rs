//! The pid file: claimed at the start, written when the server serves, whole or not at all; removed at the end, if it is
//! still this process's.
//!
//! ```text
//! claimed: PATH.new, with the pid in it, locked ── renamed ──▶ written: PATH, still locked
//! ```
//!
//! The kernel gives the lock back when the process ends, however it ends: a file that is not locked is left over from
//! one that has. A start looks at PATH after it has PATH.new, so that of two that start at once one is refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::sys::file::{self, Links};
use crate::sys::process::{self, ProcessId};
use crate::sys::socket::is_exhaustion;

/// A pid file that belongs to this process.
pub(crate) struct PidFile {
    path: PathBuf,
    /// Where it is until it is written.
    new: PathBuf,
    /// Locked for as long as this process lives.
    file: File,
    is_written: bool,
    /// A forked child that drops its copy removes nothing.
    owner: ProcessId,
}

/// Why a pid file can't be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotClaimed {
    /// Another server that lives has it, this one if its pid can be read.
    Taken(Option<ProcessId>),
    Failed(String),
}

impl NotClaimed {
    /// In words.
    pub(crate) fn text(self, path: &Path) -> String {
        let pid = match self {
            NotClaimed::Taken(pid) => pid,
            NotClaimed::Failed(text) => return text,
        };
        let who =
            pid.map_or_else(|| "that is about to start".into(), |pid| format!("with pid {pid}"));
        let path = path.display();
        format!(
            "another server {who} has supervisor.pid_file {path}; stop that one, or name another file for this one"
        )
    }
}

/// Longest content of a pid file.
const PID_BYTES_MAX: usize = 16;
/// How often a file may be taken away by another process between two looks at it.
const ATTEMPTS: usize = 10;
/// How often, and how long, a start waits for a rehearsal that has the lock for the time of a system call.
const LOCK_ATTEMPTS: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

impl PidFile {
    /// Claims `path`, unless another server that lives has it; `predecessor` may, which this one follows.
    ///
    /// # Errors
    /// Which process has it, or what keeps this one from writing it.
    pub(crate) fn claim(
        path: &Path,
        predecessor: Option<ProcessId>,
    ) -> Result<PidFile, NotClaimed> {
        let new = claim_of(path);
        for _ in 0..ATTEMPTS {
            let file = match file::create_new(&new) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_left_over(&new, path)?;
                    continue;
                }
                Err(error) => return Err(NotClaimed::Failed(cannot(path, &error))),
            };
            // Another one may have taken it for left over before it was locked.
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !leads_to(&new, &file) {
                continue;
            }
            let owner = process::id();
            // First, so that a disk without room for the pid leaves no file behind.
            let mut claimed =
                PidFile { path: path.to_owned(), new, file, is_written: false, owner };
            writeln!(claimed.file, "{owner}")
                .map_err(|error| NotClaimed::Failed(cannot(path, &error)))?;
            check_holder(path, predecessor)?;
            return Ok(claimed);
        }
        let path = path.display();
        let text = format!("cannot write supervisor.pid_file {path}: it changes all the time");
        Err(NotClaimed::Failed(text))
    }

    /// Whether it could be claimed, as far as that can be told without doing it.
    ///
    /// # Errors
    /// As for a claim.
    pub(crate) fn rehearse(path: &Path) -> Result<(), NotClaimed> {
        let is_free = |at: &Path| match look(at, Look::Rehearsal) {
            Ok(Found::Living(pid)) => Err(NotClaimed::Taken(pid)),
            Ok(Found::Nothing | Found::LeftOver(_)) => Ok(()),
            Err(reason) => Err(NotClaimed::Failed(reason)),
        };
        let path_is_free = is_free(path);
        // First, because a server that runs has no need of what follows any more.
        if matches!(path_is_free, Err(NotClaimed::Taken(_))) {
            return path_is_free;
        }
        let new = claim_of(path);
        if fs::symlink_metadata(&new).is_ok() {
            is_free(&new)?;
        }
        let content = format!("{}\n", process::id());
        file::could_create_in(file::folder_of(&new), content.as_bytes())
            .map_err(|error| NotClaimed::Failed(cannot(path, &error)))?;
        path_is_free
    }

    /// Where it is written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it where it belongs.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        fs::rename(&self.new, &self.path)?;
        self.is_written = true;
        Ok(())
    }

    /// Writes it again, if an heir that has ended had taken its place.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        if self.is_written && !leads_to(&self.path, &self.file) {
            let path = self.path.clone();
            *self = PidFile::claim(&path, None).map_err(|error| error.text(&path))?;
            self.write().map_err(|error| cannot(&path, &error))?;
        }
        Ok(())
    }
}

/// Removes it, unless another supervisor has taken over.
impl Drop for PidFile {
    fn drop(&mut self) {
        let path = if self.is_written { &self.path } else { &self.new };
        if self.owner == process::id() && leads_to(path, &self.file) {
            // What can't be removed is overwritten by the next.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where the pid file `path` is until it is written.
fn claim_of(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    PathBuf::from(new)
}

fn cannot(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create its folder, or name another file",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that this user may write to"
        }
        _ if is_exhaustion(error) => "raise the limit on open files",
        _ => "name another file",
    };
    format!("cannot write supervisor.pid_file {path}: {error}; {remedy}")
}

fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let at_path = fs::symlink_metadata(path).map(identity);
    at_path.is_ok_and(|found| file.metadata().map(identity).is_ok_and(|of_file| of_file == found))
}

/// What is to be found where a pid file should be.
enum Found {
    Nothing,
    /// A server that lives, with its pid if that can be read.
    Living(Option<ProcessId>),
    /// What an ended process left behind; locked, so that no other process claims it meanwhile.
    LeftOver(File),
}

/// What a look is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Claim,
    /// It shares its lock with other looks, and a start that meets it waits.
    Rehearsal,
}

/// Looks at `path`; what is no pid file is an error, since it would be overwritten. No message advises to remove it: it may be of use.
fn look(path: &Path, purpose: Look) -> Result<Found, String> {
    let shown = path.display();
    let no_pid_file = |what: &str| {
        format!("{shown} is in the way of supervisor.pid_file: {what}; name another path")
    };
    let file = match file::open_without_waiting(path, Links::Refuse) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if file::is_link(&error) => {
            return Err(no_pid_file("it is a symbolic link"));
        }
        Err(error) if is_exhaustion(&error) => return Err(cannot(path, &error)),
        Err(error) => return Err(no_pid_file(&error.to_string())),
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(no_pid_file("it is not a regular file"));
    }
    let mut text = String::new();
    let read = (&file).take(PID_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    let pid = text.trim().parse::<ProcessId>().ok();
    if read.is_err() || text.len() > PID_BYTES_MAX || pid.is_none() && !text.trim().is_empty() {
        return Err(no_pid_file("it holds something else than a pid"));
    }
    match lock(&file, purpose) {
        Err(TryLockError::WouldBlock) => Ok(Found::Living(pid)),
        // A file system without locks can't tell; the command socket and the port still do.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Found::LeftOver(file)),
    }
}

/// Takes the lock that a living server has. A rehearsal's is shared, which tells it from a server's.
fn lock(file: &File, purpose: Look) -> Result<(), TryLockError> {
    if purpose == Look::Rehearsal {
        return file.try_lock_shared();
    }
    for _ in 0..LOCK_ATTEMPTS {
        let locked = file.try_lock();
        let is_taken = matches!(locked, Err(TryLockError::WouldBlock));
        if !is_taken || file.try_lock_shared().is_err() {
            return locked;
        }
        file.unlock().map_err(TryLockError::Error)?;
        thread::sleep(LOCK_PAUSE);
    }
    file.try_lock()
}

fn check_holder(path: &Path, predecessor: Option<ProcessId>) -> Result<(), NotClaimed> {
    match look(path, Look::Claim).map_err(NotClaimed::Failed)? {
        Found::Living(pid) if pid.is_none() || pid != predecessor => Err(NotClaimed::Taken(pid)),
        _ => Ok(()),
    }
}

/// Removes a claim whose process has ended.
fn remove_left_over(new: &Path, path: &Path) -> Result<(), NotClaimed> {
    match look(new, Look::Claim).map_err(NotClaimed::Failed)? {
        Found::Nothing => Ok(()),
        Found::Living(pid) => Err(NotClaimed::Taken(pid)),
        Found::LeftOver(file) if leads_to(new, &file) => {
            fs::remove_file(new).map_err(|error| NotClaimed::Failed(cannot(path, &error)))
        }
        Found::LeftOver(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rehearsals_are_in_the_way_of_neither_each_other_nor_a_start() {
        let folder = std::env::temp_dir().join(format!("laneway-pid-file-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("server.pid");
        // What a server that was killed has left.
        fs::write(&path, "1\n").expect("a file");
        let rehearsal = File::open(&path).expect("the file");
        lock(&rehearsal, Look::Rehearsal).expect("a lock");
        assert_eq!(PidFile::rehearse(&path), Ok(()));
        let unlocked = thread::spawn(move || {
            thread::sleep(10 * LOCK_PAUSE);
            drop(rehearsal);
        });
        let claimed = PidFile::claim(&path, None);
        unlocked.join().expect("the thread");
        let mut claimed = claimed.unwrap_or_else(|error| panic!("{}", error.text(&path)));
        let taken = Err(NotClaimed::Taken(Some(process::id())));
        assert_eq!(PidFile::rehearse(&path), taken, "about to start");
        claimed.write().expect("write it");
        assert_eq!(PidFile::rehearse(&path), taken);
        drop(claimed);
        assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 0);
        fs::remove_dir(folder).expect("remove it");
    }
}
