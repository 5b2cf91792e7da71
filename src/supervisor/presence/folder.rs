//! Whether a file could be made in a folder, found out without making one that anybody could see: for `server check`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

/// The folder of `path`.
pub(crate) fn of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether this process could write `bytes` into a new file of `folder`: into one without a name (`O_TMPFILE`, open(2)),
/// which is gone at once and shows a full disk, too.
///
/// # Errors
/// What making the file would fail with. A file system without nameless files tells of permissions alone.
pub(crate) fn takes_a_file(folder: &Path, bytes: &[u8]) -> io::Result<()> {
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

fn has_no_nameless_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL))
}
