//! inotify(7): what to be told of folders and files, and what happened to them. What is made of it is for its caller.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;

use crate::sys::cvt;

/// Bytes that one [`Watch::read`] takes at most: some two thousand events.
const READ_BYTES: usize = 64 << 10;
/// Bytes of an event before its name: `struct inotify_event`.
const HEAD_BYTES: usize = 16;

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// That a folder was moved or removed.
    Folder,
    /// The same, and which of its names means something else, or a file that was written to.
    Names,
    /// Of a file: that it was written to, or that its name is gone.
    File,
}

impl Interest {
    fn flags(self) -> AddWatchFlags {
        use AddWatchFlags as Flags;
        let itself = Flags::IN_MOVE_SELF | Flags::IN_DELETE_SELF;
        let written = Flags::IN_MODIFY | Flags::IN_CLOSE_WRITE | Flags::IN_ATTRIB;
        let named = Flags::IN_CREATE | Flags::IN_DELETE | Flags::IN_MOVE;
        match self {
            Interest::Folder => itself | Flags::IN_ONLYDIR,
            Interest::Names => itself | written | named | Flags::IN_ONLYDIR,
            Interest::File => itself | written,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A file was written to, and whatever has done so may have it open still.
    Written,
    /// A file was closed after it was written to; or a name is new, gone, or of other permissions.
    Changed,
    /// What was watched was moved, removed or unmounted.
    Gone,
    /// Events were lost: anything may have happened.
    Lost,
}

impl What {
    fn of(mask: u32) -> What {
        use AddWatchFlags as Flags;
        let is = |flags: Flags| mask & flags.bits() != 0;
        if is(Flags::IN_Q_OVERFLOW) {
            What::Lost
        } else if is(Flags::IN_MOVE_SELF
            | Flags::IN_DELETE_SELF
            | Flags::IN_IGNORED
            | Flags::IN_UNMOUNT)
        {
            What::Gone
        } else if is(Flags::IN_MODIFY) {
            What::Written
        } else {
            What::Changed
        }
    }
}

/// One thing that happened: to what, as [`Watch::add`] numbered it, and under which of its names, if it has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened<'b> {
    /// Which watch tells of it.
    pub number: i32,
    /// What it was.
    pub what: What,
    /// The name in the folder that is watched.
    pub name: &'b OsStr,
}

/// The limit of the kernel's that an error of [`Watch`] says is reached, by its name in sysctl(8).
pub fn reached_limit(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => Some("fs.inotify.max_user_instances"),
        Some(Errno::ENOSPC) => Some("fs.inotify.max_user_watches"),
        _ => None,
    }
}

/// What tells of what happens to files and folders. Copies of it in other processes watch and tell the same.
///
/// To close the last copy waits until the kernel has forgotten every watch, which may take seconds on a machine that is short
/// of memory: so a process that must not wait keeps its copy.
#[derive(Debug)]
pub struct Watch(Inotify);

impl Watch {
    /// One that watches nothing so far.
    ///
    /// # Errors
    /// `EMFILE` if this user has fs.inotify.max_user_instances already.
    pub fn new() -> io::Result<Watch> {
        Ok(Watch(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?))
    }

    /// Takes over a copy that another process has sent.
    pub fn received(fd: OwnedFd) -> Watch {
        // SAFETY: `read_events` alone relies on what comes from the file, and nothing here calls it; to watch with another
        // kind of file is an error.
        Watch(unsafe { Inotify::from_owned_fd(fd) })
    }

    /// Another copy.
    pub fn try_clone(&self) -> io::Result<Watch> {
        self.0.as_fd().try_clone_to_owned().map(Watch::received)
    }

    /// Watches what is at `path`, which is no symbolic link, from here on, and numbers it: what is watched already keeps its
    /// number, and only the last interest in it counts.
    ///
    /// # Errors
    /// `EACCES` if it can't be read, `ENOSPC` beyond fs.inotify.max_user_watches.
    pub fn add(&self, path: &Path, interest: Interest) -> io::Result<i32> {
        let flags = interest.flags() | AddWatchFlags::IN_DONT_FOLLOW;
        Ok(self.0.add_watch(path, flags)?.as_raw())
    }

    /// Watches what has this number no more; [`What::Gone`] is the last that is told of it.
    pub fn remove(&self, number: i32) -> io::Result<()> {
        // SAFETY: it takes numbers alone.
        cvt(unsafe { libc::inotify_rm_watch(self.0.as_fd().as_raw_fd(), number) }).map(drop)
    }

    /// Hands `tell` what has happened since it was read last, as much as fits into 64 KiB; without waiting.
    ///
    /// # Errors
    /// If it can't be read, or tells something else than inotify does.
    pub fn read(&self, tell: impl FnMut(Happened<'_>)) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        match read(self.0.as_fd(), &mut buffer) {
            Ok(count) => parse(&buffer[..count], tell),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes events apart: a number, a mask, a cookie, the length of what follows, and a name that zeros fill up.
fn parse(mut bytes: &[u8], mut tell: impl FnMut(Happened<'_>)) -> io::Result<()> {
    while let Some((head, tail)) = bytes.split_at_checked(HEAD_BYTES) {
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let (number, mask) = (i32::from_ne_bytes(word(0)), u32::from_ne_bytes(word(4)));
        let length = u32::from_ne_bytes(word(12)) as usize;
        let Some((name, tail)) = tail.split_at_checked(length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        tell(Happened { number, what: What::of(mask), name: OsStr::from_bytes(name) });
        bytes = tail;
    }
    if bytes.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has happened since the last look, with the numbers and names.
    fn told(watch: &Watch) -> Vec<(i32, What, String)> {
        let mut told = Vec::new();
        let note = |it: Happened<'_>| {
            told.push((it.number, it.what, it.name.to_string_lossy().into_owned()))
        };
        watch.read(note).expect("read");
        told
    }

    #[test]
    fn writes_renames_and_the_end_of_a_folder_are_told_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).expect("a folder");
        let watch = Watch::new().expect("inotify");
        let number = watch.add(&inside, Interest::Names).expect("watched");
        assert_eq!(told(&watch), []);
        std::fs::write(inside.join("a"), "1").expect("written");
        let happened = |what, name: &str| (number, what, name.to_owned());
        let written = [What::Changed, What::Written, What::Changed].map(|what| happened(what, "a"));
        assert_eq!(told(&watch), written);
        std::fs::read(inside.join("a")).expect("read");
        assert_eq!(told(&watch), []);
        std::fs::rename(inside.join("a"), inside.join("b")).expect("renamed");
        assert_eq!(told(&watch), ["a", "b"].map(|name| happened(What::Changed, name)));
        std::fs::remove_dir_all(&inside).expect("removed");
        let gone = told(&watch);
        assert_eq!(gone.first(), Some(&happened(What::Changed, "b")));
        assert!(gone.contains(&happened(What::Gone, "")), "{gone:?}");
    }

    #[test]
    fn only_the_last_interest_in_a_folder_counts_also_of_a_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let watch = Watch::new().expect("inotify");
        let number = watch.add(folder.path(), Interest::Names).expect("watched");
        let copy = watch.try_clone().expect("a copy");
        assert_eq!(copy.add(folder.path(), Interest::Folder).expect("watched"), number);
        std::fs::write(folder.path().join("a"), "1").expect("written");
        assert_eq!(told(&watch), []);
        copy.remove(number).expect("removed");
        assert_eq!(told(&watch), [(number, What::Gone, String::new())]);
        assert!(copy.remove(number).is_err());
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let event = |length: u32| [[0; 12].as_slice(), &length.to_ne_bytes()].concat();
        let ignore = |_: Happened<'_>| {};
        parse(&event(0), ignore).expect("an event");
        for wrong in [event(1), event(u32::MAX), vec![0; 15], [event(0), vec![1]].concat()] {
            assert_eq!(parse(&wrong, ignore).expect_err("none").kind(), io::ErrorKind::InvalidData);
        }
    }
}
