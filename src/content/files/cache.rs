//! What a lane keeps of files between requests: the answer to each path that was looked up lately, with small files whole.
//! Nothing here waits, locks, or is seen by another lane.

use std::cell::{Cell, OnceCell, RefCell};
use std::hash::{Hash, Hasher, RandomState};
use std::rc::Rc;

use quick_cache::unsync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::form::Form;
use super::looking::{Found, FoundFile, Known, Sought};
use super::rules::Coding;
use crate::config::{self, OPEN_FILE_BYTES};

/// What an entry takes besides the bytes of files, about.
const ENTRY_BYTES: u64 = 512;

/// The answers that a lane keeps.
pub(in crate::content) struct Answers {
    ttl_ms: u64,
    cache_bytes: u64,
    /// Made when the first file is asked for.
    entries: OnceCell<RefCell<Entries>>,
}

/// Hashed by SipHash: clients choose the paths.
type Entries = Cache<Key, Rc<Entry>, WeightOf, RandomState>;

/// Which route is asked for what.
#[derive(PartialEq, Eq)]
struct Key {
    route: u32,
    sought: Sought,
}

/// The same, for a path that is borrowed.
struct PathOf<'p>(u32, &'p [u8]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.sought {
            Sought::Path(path) => PathOf(self.route, path).hash(state),
            Sought::Fallback => (self.route, 1_u8).hash(state),
            Sought::NotFound => (self.route, 2_u8).hash(state),
        }
    }
}

impl Hash for PathOf<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, 0_u8, self.1).hash(state);
    }
}

impl Equivalent<Key> for PathOf<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.route && matches!(&key.sought, Sought::Path(path) if **path == *self.1)
    }
}

/// The answer to a path.
pub(super) struct Entry {
    pub(super) answer: Answering,
    /// When it was found, or found unchanged, in milliseconds of the lane.
    checked_ms: Cell<u64>,
    /// Until when it answers all the same, because one request is waiting to hear whether it still does.
    checking_until_ms: Cell<u64>,
    weight: u64,
}

impl Entry {
    /// Of what was found at this time.
    pub(super) fn new(found: Found, now_ms: u64) -> Rc<Entry> {
        let answer = match found {
            Found::File(file) => Answering::File(KeptFile::from(*file)),
            Found::Folder => Answering::Folder,
            Found::Listing => Answering::Listing,
            Found::Missing => Answering::Missing,
            // Evicted meanwhile, if it was unchanged: the client may ask again.
            Found::Unchanged | Found::Unavailable => Answering::Unavailable,
        };
        let weight = match &answer {
            Answering::File(file) => file.forms().map(|form| form.weight(OPEN_FILE_BYTES)).sum(),
            _ => 0,
        };
        let (checked_ms, checking_until_ms) = (Cell::new(now_ms), Cell::new(0));
        Rc::new(Entry { answer, checked_ms, checking_until_ms, weight })
    }

    /// Whether it is known not to be what is there any more.
    fn is_outdated(&self) -> bool {
        matches!(&self.answer, Answering::File(file) if file.forms().any(|form| form.is_outdated()))
    }
}

/// What answers a path.
pub(super) enum Answering {
    File(KeptFile),
    Folder,
    Listing,
    Missing,
    Unavailable,
}

/// A file with the coded forms beside it.
pub(super) struct KeptFile {
    plain: Rc<Form>,
    coded: [Option<Rc<Form>>; Coding::ALL.len()],
}

impl From<FoundFile> for KeptFile {
    fn from(FoundFile { plain, coded }: FoundFile) -> KeptFile {
        KeptFile {
            plain: Rc::new(Form::from(plain)),
            coded: coded.map(|form| form.map(|form| Rc::new(Form::from(form)))),
        }
    }
}

impl KeptFile {
    /// The form of it with this coding.
    pub(super) fn form(&self, coding: Option<Coding>) -> Option<&Rc<Form>> {
        match coding {
            None => Some(&self.plain),
            Some(coding) => self.coded[coding as usize].as_ref(),
        }
    }

    /// Whether there is any but the plain one.
    pub(super) fn has_coded(&self) -> bool {
        self.coded.iter().any(Option::is_some)
    }

    fn forms(&self) -> impl Iterator<Item = &Rc<Form>> {
        std::iter::once(&self.plain).chain(self.coded.iter().flatten())
    }
}

struct WeightOf;

impl Weighter<Key, Rc<Entry>> for WeightOf {
    fn weight(&self, key: &Key, entry: &Rc<Entry>) -> u64 {
        let path = match &key.sought {
            Sought::Path(path) => path.len() as u64,
            Sought::Fallback | Sought::NotFound => 0,
        };
        ENTRY_BYTES + path + entry.weight
    }
}

impl Answers {
    /// None yet.
    pub(in crate::content) fn new(settings: &config::Files) -> Answers {
        let ttl_ms = settings.cache_ttl.as_millis() as u64;
        Answers { ttl_ms, cache_bytes: settings.cache_bytes, entries: OnceCell::new() }
    }

    /// The answer to what is `sought` of the route with this number, if it is known and not too old.
    pub(super) fn find(&self, route: u32, sought: &Borrowed<'_>, now_ms: u64) -> Option<Rc<Entry>> {
        let entry = self.get(route, sought)?;
        let is_known =
            now_ms < entry.checked_ms.get() + self.ttl_ms || now_ms < entry.checking_until_ms.get();
        (is_known && !entry.is_outdated()).then_some(entry)
    }

    /// What is known of it, though it may be too old: to be asked by the one request that finds out. Others take it for
    /// true meanwhile, as long again.
    pub(super) fn begin_check(
        &self,
        route: u32,
        sought: &Borrowed<'_>,
        now_ms: u64,
    ) -> Option<Known> {
        let entry = self.get(route, sought)?;
        entry.checking_until_ms.set(now_ms + self.ttl_ms);
        let Answering::File(file) = &entry.answer else { return None };
        (!entry.is_outdated()).then(|| {
            let coded = file.coded.each_ref();
            let [zstd, br, gzip] = coded.map(|form| form.as_ref().map(|form| form.stamp()));
            [Some(file.plain.stamp()), zstd, br, gzip]
        })
    }

    /// Keeps what was found, and says what that is now.
    pub(super) fn keep(&self, route: u32, sought: &Sought, found: Found, now_ms: u64) -> Rc<Entry> {
        if let Found::Unchanged = found
            && let Some(entry) = self.get(route, &sought.into())
        {
            entry.checked_ms.set(now_ms);
            entry.checking_until_ms.set(0);
            return entry;
        }
        let entry = Entry::new(found, now_ms);
        if self.ttl_ms > 0 {
            let key = Key { route, sought: sought.clone() };
            self.entries().borrow_mut().insert(key, Rc::clone(&entry));
        }
        entry
    }

    fn entries(&self) -> &RefCell<Entries> {
        self.entries.get_or_init(|| {
            // A guess, from which it grows.
            let items = (self.cache_bytes / (16 * ENTRY_BYTES)).clamp(16, 1024) as usize;
            let (hasher, bytes) = (RandomState::new(), self.cache_bytes);
            RefCell::new(Cache::with(items, bytes, WeightOf, hasher, Default::default()))
        })
    }

    fn get(&self, route: u32, sought: &Borrowed<'_>) -> Option<Rc<Entry>> {
        let entries = self.entries().borrow();
        let entry = match sought {
            Borrowed::Path(path) => entries.get(&PathOf(route, path)),
            Borrowed::Other(sought) => entries.get(&Key { route, sought: (*sought).clone() }),
        };
        entry.cloned()
    }
}

/// What is sought, where a path is borrowed.
pub(super) enum Borrowed<'p> {
    Path(&'p [u8]),
    Other(&'p Sought),
}

impl<'p> From<&'p Sought> for Borrowed<'p> {
    fn from(sought: &'p Sought) -> Borrowed<'p> {
        match sought {
            Sought::Path(path) => Borrowed::Path(path),
            other => Borrowed::Other(other),
        }
    }
}

impl Borrowed<'_> {
    pub(super) fn to_sought(&self) -> Sought {
        match self {
            Borrowed::Path(path) => Sought::Path((*path).into()),
            Borrowed::Other(sought) => (*sought).clone(),
        }
    }
}
