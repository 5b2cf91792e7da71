//! Where the access log is written: a file, or standard output. A write never waits where the kernel can be told so, and
//! what can't be written yet stays with the caller.
//!
//! Whatever else appends to the same file, no line is mixed with another: a write to a file appends whole lines under the
//! kernel's lock, and one to a pipe is no longer than the kernel keeps together.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::config::AccessLog;
use crate::observe::access::ring::LINE_BYTES_MAX;
use crate::sys::file::{open_for_appending, reopen_without_waiting};
use crate::sys::takes_write_within;

/// Most bytes of one write to a file: so many take a quarter less of the kernel's time for a line than 64 KiB.
pub(super) const FILE_WRITE_BYTES_MAX: usize = 256 << 10;
/// Who may read and write a file that is made here, as far as the process's umask allows it.
const FILE_MODE: u32 = 0o640;
/// How long another writer may take from the first byte of its last line to the last.
const OTHERS_LINE: Duration = Duration::from_millis(20);

/// An open log.
pub(super) struct Output {
    file: File,
    kind: Kind,
    /// Where what was written last ends, if that was less than was to be written.
    cut_at: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Appended to, under a lock of the kernel's.
    Regular,
    /// A pipe or a device that says when it has no room.
    Nonblocking,
    /// What can only be asked whether it has room before each write.
    Blocking,
}

impl Output {
    /// Opens what `target` names; `None` if that is nothing.
    pub(super) fn open(target: &AccessLog) -> io::Result<Option<Output>> {
        match target {
            AccessLog::Off => Ok(None),
            AccessLog::Stdout => Output::of_stdout().map(Some),
            AccessLog::File(path) => Output::of_file(path).map(Some),
        }
    }

    fn of_file(path: &Path) -> io::Result<Output> {
        let file = open_for_appending(path, FILE_MODE)?;
        let is_regular = file.metadata()?.is_file();
        let kind = if is_regular { Kind::Regular } else { Kind::Nonblocking };
        let mut output = Output { file, kind, cut_at: None };
        if is_regular && output.ends_within_line(path)? {
            output.write(b"\n")?;
        }
        Ok(output)
    }

    /// The flags of what it shares with other processes stay as they are.
    fn of_stdout() -> io::Result<Output> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        if file.metadata()?.is_file() {
            return Ok(Output { file, kind: Kind::Regular, cut_at: None });
        }
        let own = reopen_without_waiting(&file);
        let kind = if own.is_ok() { Kind::Nonblocking } else { Kind::Blocking };
        Ok(Output { file: own.unwrap_or(file), kind, cut_at: None })
    }

    /// Whether the file ends within a line, which a writer that was killed has left there. One that is being written just
    /// now grows. A file that can't be read is taken for whole.
    fn ends_within_line(&self, path: &Path) -> io::Result<bool> {
        let end = || -> io::Result<(u64, bool)> {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            if length == 0 {
                return Ok((0, false));
            }
            file.seek(SeekFrom::Start(length - 1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            Ok((length, last != *b"\n"))
        };
        let Ok((mut length, mut is_within)) = end() else {
            return Ok(false);
        };
        while is_within {
            thread::sleep(OTHERS_LINE);
            let Ok(now) = end() else {
                return Ok(false);
            };
            if now.0 == length {
                break;
            }
            (length, is_within) = now;
        }
        Ok(is_within)
    }

    /// Most bytes of a write.
    pub(super) fn write_bytes_max(&self) -> usize {
        if self.kind == Kind::Regular { FILE_WRITE_BYTES_MAX } else { LINE_BYTES_MAX }
    }

    /// Writes once, and says how much of `lines` that was.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now; else what the file can't be written for.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.kind == Kind::Blocking && !takes_write_within(&self.file, Duration::ZERO) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match self.file.write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    let is_cut = self.kind == Kind::Regular && count < lines.len();
                    self.cut_at = if is_cut { self.file.stream_position().ok() } else { None };
                    return Ok(count);
                }
            }
        }
    }

    /// Whether what was cut there is still what the file ends with: no other writer has gone on since. What isn't a file
    /// takes a line as a whole, or has one writer alone.
    pub(super) fn is_at_end(&self) -> bool {
        let length = self.file.metadata().map(|of| of.len());
        self.cut_at.is_none_or(|cut_at| length.is_ok_and(|length| length == cut_at))
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_made_appended_to_and_begun_on_a_new_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let target = AccessLog::File(path.clone());
        let open = || Output::open(&target).expect("open it").expect("a log");
        let mut output = open();
        assert_eq!(output.write(b"first\nsecond").expect("room"), 12);
        output.cut_at = output.file.stream_position().ok();
        assert!(output.is_at_end());
        // The mode is bounded by the umask of whatever runs the tests.
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let mut other = open();
        assert!(!output.is_at_end(), "the other has ended the line");
        other.write(b"third\n").expect("room");
        drop(open());
        assert_eq!(fs::read_to_string(&path).expect("read"), "first\nsecond\nthird\n");
    }

    #[test]
    fn what_can_not_be_opened_is_an_error_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for path in [folder.path().to_owned(), folder.path().join("none/log"), pipe.clone()] {
            assert!(Output::open(&AccessLog::File(path)).is_err());
        }
        let reader = crate::sys::file::open_without_waiting(&pipe, crate::sys::file::Links::Follow);
        let mut output = Output::open(&AccessLog::File(pipe)).expect("open it").expect("a log");
        let written = (0..).map_while(|_| output.write(&[b'x'; LINE_BYTES_MAX]).ok()).count();
        assert!(written >= 1, "it has some room");
        let error = output.write(b"x").expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        let error = output.write(b"x").expect_err("nothing reads it");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
