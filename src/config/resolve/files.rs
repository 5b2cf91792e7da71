//! Files that the configuration consists of: of a bounded size, and none that could keep this process waiting.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::sys::file::{self, Links};

/// The bytes of a regular file of at most `bytes_max`.
///
/// # Errors
/// `FileTooLarge` beyond that; `InvalidInput` for anything that could keep its reader waiting.
pub(in crate::config) fn read_file(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Asked first, since some devices do something when they are opened.
    check_regular(&std::fs::metadata(file)?)?;
    // In case it is a pipe by now.
    let file = file::open_without_waiting(file, Links::Follow)?;
    check_regular(&file.metadata()?)?;
    read_whole(file, bytes_max)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    let found = found.file_type();
    let kinds = [
        (found.is_dir(), "a folder"),
        (found.is_fifo(), "a pipe"),
        (found.is_socket(), "a socket"),
        (found.is_char_device() || found.is_block_device(), "a device"),
    ];
    let what = kinds.iter().find(|(is, _)| *is).map(|(_, what)| *what);
    what.map_or(Ok(()), |what| {
        let text = format!("it is not a regular file but {what}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    })
}

/// The bytes of whatever `file` is.
///
/// # Errors
/// `FileTooLarge` beyond `bytes_max`.
pub(in crate::config) fn read_at_most(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_whole(File::open(file)?, bytes_max)
}

fn read_whole(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
