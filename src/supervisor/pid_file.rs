//! The pid file: written when the server serves, whole or not at all; removed at the end, if it is still this
//! process's.

use std::fs;
use std::io;
use std::path::Path;

use crate::sys::process;

/// Writes this process's pid to `path`.
pub(super) fn write(path: &Path) -> io::Result<()> {
    // Renamed into place, so that nobody reads half a number.
    let new = path.with_extension("pid.new");
    fs::write(&new, format!("{}\n", process::id()))?;
    fs::rename(&new, path)
}

/// Removes `path` if it holds this process's pid: another supervisor may have taken over.
pub(super) fn remove(path: &Path) {
    let is_ours =
        fs::read_to_string(path).is_ok_and(|text| text.trim() == process::id().to_string());
    if is_ours {
        // What can't be removed is overwritten by the next.
        let _ = fs::remove_file(path);
    }
}
