//! Looking up what answers a path: which file, with what it contains and with the coded forms beside it, or a folder, or
//! nothing. Waits for the file system, so a thread of the pool does it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ServedFolder;
use super::rules::{self, Coding, Entry, Facts, Rendered, Wanted};
use crate::config::Symlinks;
use crate::sys::file::beneath::{self, LinksBelow, Root};

/// So often a small file is read again that changes while it is read.
const READS_MAX: usize = 3;
/// After this time a change of a file can't share its time of modification any more, whatever the clock's grain.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What answers.
pub(super) enum Found {
    /// What was known still does.
    Unchanged,
    /// A file.
    File(Box<FoundFile>),
    /// A folder that was asked for without a slash.
    Folder,
    /// A folder, by what is in it.
    Listing,
    /// Nothing.
    Missing,
    /// It can't be told: the root is gone, or something else is wrong with what it is on.
    Unavailable,
}

/// A file with the coded forms beside it.
pub(super) struct FoundFile {
    pub(super) plain: FoundForm,
    pub(super) coded: [Option<FoundForm>; Coding::ALL.len()],
}

/// One form of a file.
pub(super) struct FoundForm {
    pub(super) rendered: Rendered,
    pub(super) stamp: Stamp,
    pub(super) content: Content,
}

/// Where the bytes are.
pub(super) enum Content {
    /// In memory.
    Memory(Vec<u8>),
    /// In the file.
    File(Arc<File>),
}

/// What changes when a file does, as far as its file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// It was old enough when it was looked at that any later change shows.
    is_settled: bool,
}

impl Stamp {
    /// How long the file is, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn of(metadata: &Metadata, now: SystemTime) -> Stamp {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled_s = since_epoch.as_secs() as i64 - SETTLED_AFTER.as_secs() as i64;
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed,
            is_settled: changed.0 < settled_s && metadata.mtime() < settled_s,
        }
    }

    /// Whether what `file`, which it is of, contains is still the same. The time of its last change isn't asked: it changes
    /// with its last name, too.
    pub(super) fn is_of(&self, file: &File) -> bool {
        let now = file.metadata().map(|metadata| Stamp::of(&metadata, SystemTime::UNIX_EPOCH));
        now.is_ok_and(|now| (now.size, now.modified) == (self.size, self.modified))
    }
}

/// What is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// What a request's path names, as it follows the route's own.
    Path(Box<[u8]>),
    /// The file that answers a navigation to what is not there.
    Fallback,
    /// The file that says that there is nothing.
    NotFound,
}

/// The forms of a file that are known, in the order of [`ServedFolder::forms`].
pub(super) type Known = [Option<Stamp>; 1 + Coding::ALL.len()];

impl ServedFolder {
    /// Looks up what is `sought`. `known`: what was found before, which is not read again if it hasn't changed.
    pub(super) fn look_up(&self, sought: &Sought, known: Option<&Known>) -> Found {
        let Ok(root) = self.roots.find() else {
            return Found::Unavailable;
        };
        let found = match sought {
            Sought::Path(rest) => match rules::wanted(rest, self.route.dotfiles) {
                Wanted::File(path) => self.of_file(&root, path, known),
                Wanted::Folder(path) => self.of_folder(&root, path, known),
                Wanted::Hidden => Ok(Found::Missing),
            },
            Sought::Fallback => self.named(&root, self.route.fallback.as_deref(), sought, known),
            Sought::NotFound => self.named(&root, self.route.not_found.as_deref(), sought, known),
        };
        found.unwrap_or_else(|error| of_error(&error))
    }

    fn of_file(&self, root: &Root, path: &[u8], known: Option<&Known>) -> io::Result<Found> {
        let opened = self.open(root, path);
        let (name, file) = match opened {
            Ok(file) if file.metadata()?.is_dir() => return Ok(Found::Folder),
            Ok(file) => (path.to_vec(), file),
            Err(error) if self.route.clean_urls && is_missing(&error) => {
                let name = [path, b".html"].concat();
                let file = self.open(root, &name)?;
                (name, file)
            }
            Err(error) => return Err(error),
        };
        self.forms(root, &name, file, &Sought::Path(Box::default()), known)
    }

    fn of_folder(&self, root: &Root, path: &[u8], known: Option<&Known>) -> io::Result<Found> {
        for index in &self.route.index {
            let name = below(path, index.as_bytes());
            match self.open(root, &name) {
                Ok(file) if file.metadata()?.is_file() => {
                    return self.forms(root, &name, file, &Sought::Path(Box::default()), known);
                }
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if !self.route.listing {
            return Ok(Found::Missing);
        }
        let is_folder = self.open(root, path)?.metadata()?.is_dir();
        Ok(if is_folder { Found::Listing } else { Found::Missing })
    }

    fn named(
        &self,
        root: &Root,
        name: Option<&str>,
        sought: &Sought,
        known: Option<&Known>,
    ) -> io::Result<Found> {
        let Some(name) = name else { return Ok(Found::Missing) };
        let file = self.open(root, name.as_bytes())?;
        self.forms(root, name.as_bytes(), file, sought, known)
    }

    fn open(&self, root: &Root, path: &[u8]) -> io::Result<File> {
        root.look_up(path, self.links)
    }

    /// The file and what lies beside it, or that nothing of it has changed.
    fn forms(
        &self,
        root: &Root,
        name: &[u8],
        file: File,
        sought: &Sought,
        known: Option<&Known>,
    ) -> io::Result<Found> {
        let now = SystemTime::now();
        let stamp_of = |file: &File| {
            file.metadata().map(|found| found.is_file().then(|| Stamp::of(&found, now)))
        };
        let Some(stamp) = stamp_of(&file)? else {
            return Ok(Found::Missing);
        };
        let mut opened: [Option<(File, Stamp)>; 1 + Coding::ALL.len()] = Default::default();
        opened[0] = Some((file, stamp));
        let codings = if self.route.precompressed { &Coding::ALL[..] } else { &[] };
        for (at, coding) in codings.iter().enumerate() {
            let beside = [name, coding.suffix().as_bytes()].concat();
            // One that can't be had is as good as none.
            if let Ok(file) = self.open(root, &beside)
                && let Ok(Some(stamp)) = stamp_of(&file)
            {
                opened[1 + at] = Some((file, stamp));
            }
        }
        let stamps: Known = std::array::from_fn(|at| opened[at].as_ref().map(|(_, stamp)| *stamp));
        if known == Some(&stamps) && stamps.iter().flatten().all(|stamp| stamp.is_settled) {
            return Ok(Found::Unchanged);
        }
        let varies = stamps[1..].iter().any(Option::is_some);
        let form = |at: usize, opened: Option<(File, Stamp)>| {
            let Some((file, stamp)) = opened else { return Ok(None) };
            let coding = at.checked_sub(1).map(|at| Coding::ALL[at]);
            self.form(name, sought, file, stamp, coding, varies, now).map(Some)
        };
        let [plain, coded @ ..] = opened;
        let Some(plain) = form(0, plain)? else { return Ok(Found::Missing) };
        let mut forms: [Option<FoundForm>; Coding::ALL.len()] = Default::default();
        for (at, opened) in coded.into_iter().enumerate() {
            forms[at] = form(1 + at, opened)?;
        }
        Ok(Found::File(Box::new(FoundFile { plain, coded: forms })))
    }

    #[allow(clippy::too_many_arguments, reason = "each is a part of what is rendered")]
    fn form(
        &self,
        name: &[u8],
        sought: &Sought,
        file: File,
        stamp: Stamp,
        coding: Option<Coding>,
        varies: bool,
        now: SystemTime,
    ) -> io::Result<FoundForm> {
        let (stamp, content) = self.content(file, stamp, now)?;
        let (modified_s, modified_ns) = stamp.modified;
        let content_hash = match &content {
            Content::Memory(bytes) if matches!(modified_s, 0 | 1) => {
                Some(rules::content_hash(bytes))
            }
            _ => None,
        };
        let metadata =
            rules::Metadata { size: stamp.size, modified_s, modified_ns: modified_ns as u32 };
        let facts = Facts {
            name,
            metadata,
            coding,
            varies,
            // With other fields the same path has the other of both.
            accept_varies: self.route.fallback.is_some() && !matches!(sought, Sought::Path(_)),
            content_hash,
            now,
            status: if *sought == Sought::NotFound { 404 } else { 200 },
        };
        let rendered = rules::render(&facts, &self.route, &self.headers);
        Ok(FoundForm { rendered, stamp, content })
    }

    /// The bytes of a file, in memory if they are few, as they were when its stamp was this one.
    fn content(
        &self,
        mut file: File,
        stamp: Stamp,
        now: SystemTime,
    ) -> io::Result<(Stamp, Content)> {
        let mut stamp = stamp;
        for _ in 0..READS_MAX {
            if stamp.size > self.cached_file_bytes {
                break;
            }
            let mut bytes = Vec::with_capacity(stamp.size as usize);
            io::Seek::rewind(&mut file)?;
            (&mut file).take(stamp.size).read_to_end(&mut bytes)?;
            let after = Stamp::of(&file.metadata()?, now);
            if after == stamp && bytes.len() as u64 == stamp.size {
                return Ok((stamp, Content::Memory(bytes)));
            }
            stamp = after;
        }
        // One that changes all the time is sent from where it is, and checked then.
        Ok((stamp, Content::File(Arc::new(file))))
    }

    /// What is in a folder, if it can be told, and whether there is more than is listed.
    pub(super) fn list(&self, rest: &[u8]) -> Option<(Vec<Entry>, bool)> {
        let Wanted::Folder(path) = rules::wanted(rest, self.route.dotfiles) else { return None };
        let root = self.roots.find().ok()?;
        let folder = self.open(&root, path).ok()?;
        let mut names = beneath::names_in(folder).ok()?;
        let mut entries = Vec::new();
        for name in &mut names {
            let Ok(name) = name else { break };
            if entries.len() == rules::ENTRIES_MAX {
                return Some((entries, true));
            }
            if !self.route.dotfiles && name.starts_with(b".") {
                continue;
            }
            // What can't be asked for is not shown: a link that leaves, a pipe, what may not be read.
            let Ok(found) = self.open(&root, &below(path, &name)).and_then(|it| it.metadata())
            else {
                continue;
            };
            if found.is_file() || found.is_dir() {
                let (size, modified_s) = (found.size(), found.mtime());
                entries.push(Entry { name, is_folder: found.is_dir(), size, modified_s });
            }
        }
        Some((entries, false))
    }
}

/// The path of `name` in the folder at `path`, which is the root if that is empty.
fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(of_error(error), Found::Missing)
}

/// What an error means for a request. What this server may not read is not there for its clients either.
fn of_error(error: &io::Error) -> Found {
    if beneath::is_absent(error) { Found::Missing } else { Found::Unavailable }
}

/// How links below a root are to be taken.
pub(super) fn links(symlinks: Symlinks) -> LinksBelow {
    match symlinks {
        Symlinks::Inside => LinksBelow::Follow,
        Symlinks::Never => LinksBelow::Refuse,
    }
}
