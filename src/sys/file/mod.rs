//! Files that need more than std's own `open`: those that must not keep this process waiting, and must be what their
//! name says; and the width of a terminal.

pub mod beneath;
pub mod watch;

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat, fchownat};

/// Whether a name may be a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It leads to the file.
    Follow,
    /// It is an error, which [`is_link`] recognises.
    Refuse,
}

/// Opens a file for reading without waiting for anything: a pipe would wait for a writer. To a regular file that means
/// nothing.
pub fn open_without_waiting(path: &Path, links: Links) -> io::Result<File> {
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    flags.set(OFlag::O_NOFOLLOW, links == Links::Refuse);
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Opens a pipe or a terminal that is open already once more, for writing without waiting: what there is no room for is
/// `WouldBlock`. The flag of the description that was given belongs to every process that has it.
///
/// # Errors
/// If it is something else; or this user may not open it, nothing reads it, or there is no /proc.
pub fn reopen_without_waiting(file: impl AsFd) -> io::Result<File> {
    let kind = File::from(file.as_fd().try_clone_to_owned()?).metadata()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    OpenOptions::new().write(true).custom_flags(flags.bits()).open(path)
}

/// Opens a file to append to without waiting for anything, and makes it if there is none, with these permissions as far as
/// the umask allows them. A pipe that nothing reads is an error, and one without room is `WouldBlock` when it is written.
pub fn open_for_appending(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().append(true).create(true).mode(mode).custom_flags(flags.bits()).open(path)
}

/// Makes a file that nothing has the name of, a symbolic link included, for writing.
pub fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW.bits();
    OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path)
}

/// What a name leads to, or the symbolic link that it is, held so that what is changed is what was looked at (`O_PATH`,
/// open(2)).
pub struct Named(File);

impl Named {
    /// Holds what is at `path`.
    pub fn hold(path: &Path) -> io::Result<Named> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map(Named)
    }

    /// What it is.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Gives it to another owner, and another group, where one is named.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        Ok(fchownat(&self.0, "", uid, gid, AtFlags::AT_EMPTY_PATH)?)
    }

    /// Gives it other permissions. Only /proc leads from a descriptor like this to the file.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// Whether `error` says that a name is a symbolic link.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ELOOP as i32)
}

/// The folder of `path`.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether this process could write `bytes` into a new file of `folder`: into one without a name (`O_TMPFILE`,
/// open(2)), which is gone at once and shows a full disk, too.
///
/// # Errors
/// What making the file would fail with. A file system without nameless files tells of permissions alone.
pub fn could_create_in(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_TMPFILE.bits();
    let opened = OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(folder);
    match opened {
        Ok(mut file) => file.write_all(bytes),
        Err(error) if has_no_nameless_files(&error) => {
            let access = AccessFlags::W_OK | AccessFlags::X_OK;
            Ok(faccessat(AT_FDCWD, folder, access, AtFlags::AT_EACCESS)?)
        }
        Err(error) => Err(error),
    }
}

/// Whether this process could append to a file, which need not be there yet.
///
/// # Errors
/// What it would fail with.
pub fn could_append(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().append(true).custom_flags(flags.bits()).open(path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            could_create_in(folder_of(path), b"1")
        }
        other => other.map(drop),
    }
}

fn has_no_nameless_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL))
}

/// How many columns the terminal of standard output has; none if it is no terminal.
pub fn columns_of_output() -> Option<usize> {
    // It asks the terminal of standard output first, then that of the other two.
    let terminal = io::IsTerminal::is_terminal(&io::stdout());
    let size = terminal.then(terminal_size::terminal_size).flatten();
    size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_or_refused_and_never_made_a_file() {
        let folder = std::env::temp_dir().join(format!("laneway-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (file, link) = (folder.join("file"), folder.join("link"));
        create_new(&file).expect("a new file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert!(open_without_waiting(&link, Links::Follow).is_ok());
        assert!(is_link(&open_without_waiting(&link, Links::Refuse).expect_err("a link")));
        assert!(open_without_waiting(&file, Links::Refuse).is_ok());
        assert_eq!(create_new(&link).expect_err("it exists").kind(), io::ErrorKind::AlreadyExists);
        could_create_in(&folder, b"1").expect("it could be");
        assert!(could_create_in(&folder.join("none"), b"1").is_err());
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
