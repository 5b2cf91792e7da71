//! The pid file: claimed at the start, written when the server serves, whole or not at all; removed at the end, if it is
//! still this process's.
//!
//! ```text
//! claimed: PATH.new, with the pid in it, locked ── renamed ──▶ written: PATH, still locked
//! ```
//!
//! The kernel gives the lock back when the process ends, however it ends: a file that is not locked is left over from
//! one that has. Whoever claims looks at PATH after it has PATH.new, so that of two that start at once one is refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::process::{self, ProcessId};

/// A pid file that belongs to this process.
pub(super) struct PidFile {
    path: PathBuf,
    /// Where it is until it is written.
    new: PathBuf,
    /// Locked for as long as this process lives.
    file: File,
    is_written: bool,
    /// A forked child that drops its copy removes nothing.
    owner: ProcessId,
}

/// Longest content of a pid file.
const PID_BYTES_MAX: usize = 16;
/// How often a file may be taken away by another process between two looks at it.
const ATTEMPTS: usize = 10;

impl PidFile {
    /// Claims `path`, unless another server that lives has it; `predecessor` may, whom this one follows.
    ///
    /// # Errors
    /// Which process has it, or what keeps this one from writing it.
    pub(super) fn claim(path: &Path, predecessor: Option<ProcessId>) -> Result<PidFile, String> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&new);
            let file = match file {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_left_over(&new, path)?;
                    continue;
                }
                Err(error) => return Err(cannot(path, &error)),
            };
            // Another one may have taken it for left over before it was locked.
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !leads_to(&new, &file) {
                continue;
            }
            let owner = process::id();
            // First, so that a disk without room for the pid leaves no file behind.
            let mut claimed =
                PidFile { path: path.to_owned(), new, file, is_written: false, owner };
            writeln!(claimed.file, "{owner}").map_err(|error| cannot(path, &error))?;
            check_holder(path, path, predecessor)?;
            return Ok(claimed);
        }
        Err(format!("cannot write supervisor.pid_file {}: it changes all the time", path.display()))
    }

    /// Where it is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it where it belongs.
    pub(super) fn write(&mut self) -> io::Result<()> {
        fs::rename(&self.new, &self.path)?;
        self.is_written = true;
        Ok(())
    }

    /// Writes it again, if an heir that has ended had taken its place.
    pub(super) fn restore(&mut self) -> Result<(), String> {
        if self.is_written && !leads_to(&self.path, &self.file) {
            let path = self.path.clone();
            *self = PidFile::claim(&path, None)?;
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

fn cannot(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create its folder, or name another file",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that this user may write to"
        }
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
    /// What one left that is gone; locked, so that no other process takes it for its own meanwhile.
    LeftOver(File),
}

/// Looks at `path`; what is no pid file is an error, since it would be overwritten.
fn look(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let no_pid_file = |what: &str| {
        format!(
            "{shown} is in the way of supervisor.pid_file: {what}; remove it, or name another file"
        )
    };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            return Err(no_pid_file("it is a symbolic link"));
        }
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
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(Found::Living(pid)),
        // A file system without locks can't tell; the command socket and the port still do.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Found::LeftOver(file)),
    }
}

fn check_holder(at: &Path, path: &Path, predecessor: Option<ProcessId>) -> Result<(), String> {
    match look(at)? {
        Found::Living(pid) if pid.is_none() || pid != predecessor => {
            let who = pid
                .map_or_else(|| "that is about to start".into(), |pid| format!("with pid {pid}"));
            let path = path.display();
            Err(format!(
                "another server {who} has supervisor.pid_file {path}; stop that one, or name another file for this one"
            ))
        }
        _ => Ok(()),
    }
}

/// Removes a claim whose process is gone.
fn remove_left_over(new: &Path, path: &Path) -> Result<(), String> {
    match look(new)? {
        Found::Nothing => Ok(()),
        Found::Living(_) => check_holder(new, path, None),
        Found::LeftOver(file) if leads_to(new, &file) => {
            fs::remove_file(new).map_err(|error| cannot(path, &error))
        }
        Found::LeftOver(_) => Ok(()),
    }
}
