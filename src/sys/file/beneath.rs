//! Files below a folder, which no name leads out of: the kernel looks them up (`RESOLVE_BENEATH`, openat2(2)). Where it may
//! not be asked to, a walk by components comes to the same.
//!
//! A link is followed if it is relative and never rises above the folder, on no part of its way. One that is absolute is
//! refused even where it leads inside, and one of /proc that isn't made of a name always.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::sys::retry;

/// So often a lookup begins again that a rename elsewhere has made uncertain (`EAGAIN`, openat2(2)).
const ATTEMPTS_MAX: usize = 64;
/// So many links are followed in one lookup, as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A file is opened like this: without waiting for the writer of a pipe, and without a terminal becoming ours.
const READ: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
/// A folder on the way, or whatever else has its name, held without being opened.
const HOLD: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Whether the kernel may not be asked: it is older than 5.6, or a filter of system calls is in the way, which doesn't go.
static IS_BLOCKED: AtomicBool = AtomicBool::new(false);

/// What is done about symbolic links below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksBelow {
    /// They are followed as long as they stay there.
    Follow,
    /// They are refused (`ELOOP`).
    Refuse,
}

/// A folder that files are looked up in.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The folder at `path`, to which links of any kind may lead.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        retry(|| open(path, flags, Mode::empty())).map(Root)
    }

    /// Opens what is at `path` for reading: a file, a folder, or what else there is. It has no slash at either end; an empty
    /// one is the root.
    ///
    /// # Errors
    /// As open(2): `EXDEV` for a name that leads out, `ELOOP` for a link that is refused, and `EAGAIN` if renames elsewhere
    /// never let it be certain.
    pub fn look_up(&self, path: &[u8], links: LinksBelow) -> io::Result<File> {
        let path = CString::new(path).map_err(|_| Errno::ENOENT)?;
        let path = if path.is_empty() { c"." } else { &path };
        let opened = again(|| self.by_kernel(path, links));
        opened
            .unwrap_or_else(|| again(|| Some(self.by_walk(path, links))).unwrap_or(UNCERTAIN))
            .map(File::from)
            .map_err(io::Error::from)
    }

    /// `None` if the kernel may not be asked.
    fn by_kernel(&self, path: &CStr, links: LinksBelow) -> Option<nix::Result<OwnedFd>> {
        if IS_BLOCKED.load(Ordering::Relaxed) {
            return None;
        }
        let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        resolve.set(ResolveFlag::RESOLVE_NO_SYMLINKS, links == LinksBelow::Refuse);
        let how = OpenHow::new().flags(READ).resolve(resolve);
        match openat2(&self.0, path, how) {
            // A filter of system calls says the one or the other; nothing else does, of an open for reading.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                IS_BLOCKED.store(true, Ordering::Relaxed);
                None
            }
            result => Some(result),
        }
    }

    /// The same, component by component. What is walked through is held, so that a rename can't change what is above it.
    fn by_walk(&self, path: &CStr, links: LinksBelow) -> nix::Result<OwnedFd> {
        let mut walk = Walk { root: self.0.as_fd(), above: Vec::new(), links_left: LINKS_MAX };
        let mut ahead: VecDeque<OsString> = components(path.to_bytes());
        while let Some(name) = ahead.pop_front() {
            match name.as_bytes() {
                b"" | b"." => {}
                b".." => drop(walk.above.pop().ok_or(Errno::EXDEV)?),
                _ => {
                    let link = match walk.enter(&name, ahead.is_empty())? {
                        Entered::Folder => continue,
                        Entered::Last(file) => return Ok(file),
                        Entered::Link(link) => link,
                    };
                    walk.links_left = walk.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
                    if links == LinksBelow::Refuse {
                        return Err(Errno::ELOOP);
                    }
                    if link.is_empty() || link.as_bytes()[0] == b'/' {
                        return Err(Errno::EXDEV);
                    }
                    for component in components(link.as_bytes()).into_iter().rev() {
                        ahead.push_front(component);
                    }
                }
            }
        }
        openat(walk.here(), c".", READ, Mode::empty())
    }
}

/// The names in a folder that was looked up, but for `.` and `..`.
///
/// # Errors
/// If it is none.
pub fn names_in(folder: File) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>>> {
    let entries = Dir::from_fd(folder.into())?.into_iter();
    let names = entries.map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
    Ok(names.filter(|name| !matches!(name.as_deref(), Ok(b"." | b".."))))
}

/// Whether a lookup failed because nothing is there that may be had, and not because something is wrong with what it is on.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ELOOP
                | Errno::EXDEV
                | Errno::EACCES
                | Errno::EPERM
                | Errno::ENAMETOOLONG
                // Of what can be opened by its name alone: a socket, a device that isn't there.
                | Errno::ENXIO
                | Errno::ENODEV
        )
    )
}

const UNCERTAIN: nix::Result<OwnedFd> = Err(Errno::EAGAIN);

/// Tries again while a rename elsewhere, or a signal, is in the way.
fn again(
    mut look_up: impl FnMut() -> Option<nix::Result<OwnedFd>>,
) -> Option<nix::Result<OwnedFd>> {
    for _ in 1..ATTEMPTS_MAX {
        match look_up() {
            Some(Err(Errno::EAGAIN | Errno::EINTR)) => {}
            result => return result,
        }
    }
    look_up()
}

/// How far a walk by components has come.
struct Walk<'r> {
    root: BorrowedFd<'r>,
    /// The folders below the root that it is in, the innermost last.
    above: Vec<OwnedFd>,
    links_left: usize,
}

/// What a component of a path turned out to be.
enum Entered {
    /// A folder that the walk is in now.
    Folder,
    /// What the path leads to.
    Last(OwnedFd),
    /// A symbolic link to this.
    Link(OsString),
}

impl Walk<'_> {
    /// The folder that it is in.
    fn here(&self) -> BorrowedFd<'_> {
        self.above.last().map_or(self.root, AsFd::as_fd)
    }

    /// Goes on with `name`, which is the last of the path so far or not.
    fn enter(&mut self, name: &OsStr, is_last: bool) -> nix::Result<Entered> {
        let held = openat(self.here(), name, HOLD, Mode::empty())?;
        let found = fstat(&held)?;
        match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFLNK => Ok(Entered::Link(readlinkat(&held, c"")?)),
            SFlag::S_IFDIR => {
                self.above.push(held);
                Ok(Entered::Folder)
            }
            _ if !is_last => Err(Errno::ENOTDIR),
            _ => {
                // By its name once more: what is held can't be read. Another file by now means to look again.
                let opened = openat(self.here(), name, READ | OFlag::O_NOFOLLOW, Mode::empty())?;
                let same = fstat(&opened)?;
                let is_same = (same.st_dev, same.st_ino) == (found.st_dev, found.st_ino);
                if is_same { Ok(Entered::Last(opened)) } else { Err(Errno::EAGAIN) }
            }
        }
    }
}

fn components(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/').map(|name| OsString::from_vec(name.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What both ways of looking up come to: the first byte of a file, `/` for a folder, or the error.
    fn found(root: &Root, path: &str, links: LinksBelow) -> Result<u8, Errno> {
        let path = CString::new(path).expect("no NUL");
        let of = |result: nix::Result<OwnedFd>| {
            result.map(|fd| {
                let mut first = [b'/'];
                let read = nix::unistd::read(&fd, &mut first);
                assert!(read == Ok(1) || read == Err(Errno::EISDIR), "{path:?}: {read:?}");
                first[0]
            })
        };
        let walked = of(root.by_walk(&path, links));
        if let Some(asked) = root.by_kernel(&path, links) {
            assert_eq!(of(asked), walked, "{path:?}");
        }
        walked
    }

    #[test]
    fn the_kernel_and_a_walk_find_the_same_and_neither_leads_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("root/a/b")).expect("folders");
        for (name, text) in [("secret", "!"), ("root/f", "f"), ("root/a/b/g", "g")] {
            std::fs::write(at(name), text).expect("a file");
        }
        let absolute = at("root/f");
        for (link, target) in [
            ("root/in", "a/b/../../f"),
            ("root/a/up", "../f"),
            ("root/folder", "a/b"),
            ("root/out", "../secret"),
            ("root/a/b/out", "../../../secret"),
            ("root/through", "folder/../../f"),
            ("root/around", "../root/f"),
            ("root/absolute", absolute.to_str().expect("UTF-8")),
            ("root/loop", "loop"),
            ("root/dangling", "none"),
        ] {
            symlink(target, at(link)).expect("a link");
        }
        let root = Root::open(&at("root")).expect("a root");
        use LinksBelow::{Follow, Refuse};
        for (path, follow, refuse) in [
            ("f", Ok(b'f'), Ok(b'f')),
            ("a/b/g", Ok(b'g'), Ok(b'g')),
            ("a//b/./g", Ok(b'g'), Ok(b'g')),
            (".", Ok(b'/'), Ok(b'/')),
            ("a", Ok(b'/'), Ok(b'/')),
            ("none", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("f/g", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("in", Ok(b'f'), Err(Errno::ELOOP)),
            ("a/up", Ok(b'f'), Err(Errno::ELOOP)),
            ("folder/g", Ok(b'g'), Err(Errno::ELOOP)),
            // Upwards from where the link leads to, not from where it is.
            ("through", Ok(b'f'), Err(Errno::ELOOP)),
            ("out", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("a/b/out", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("around", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("absolute", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("..", Err(Errno::EXDEV), Err(Errno::EXDEV)),
            ("../secret", Err(Errno::EXDEV), Err(Errno::EXDEV)),
            ("/etc/passwd", Err(Errno::EXDEV), Err(Errno::EXDEV)),
            ("loop", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("dangling", Err(Errno::ENOENT), Err(Errno::ELOOP)),
        ] {
            if path.starts_with('/') {
                // A path is never absolute; the walk takes it for one below the root.
                assert!(root.look_up(path.as_bytes(), Follow).is_err());
                continue;
            }
            assert_eq!(found(&root, path, Follow), follow, "{path}");
            assert_eq!(found(&root, path, Refuse), refuse, "{path}");
        }
    }

    #[test]
    fn what_is_no_file_is_opened_without_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        nix::unistd::mkfifo(&folder.path().join("pipe"), Mode::S_IRWXU).expect("a pipe");
        let root = Root::open(folder.path()).expect("a root");
        let pipe = root.look_up(b"pipe", LinksBelow::Follow).expect("a pipe without a writer");
        assert!(!pipe.metadata().expect("metadata").is_file());
        assert!(root.by_walk(c"pipe", LinksBelow::Follow).is_ok());
    }
}
