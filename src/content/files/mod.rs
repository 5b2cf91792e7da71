//! `files`: what is below a folder, which no request leads out of.
//!
//! ```text
//! a path ─ known to the lane ──────────────────────────────────────────▶ answered in this turn
//!   └──── not, or for too long ─ a thread of the pool looks it up ─▶ kept ─┘
//! ```
//!
//! The lane itself waits for no file system: what it doesn't know a thread of the [`pool`] finds out, which is the only one
//! that opens anything ([`looking`]). What HTTP makes of what was found is decided in [`rules`], and how a file that isn't in
//! memory goes out in [`sending`].

mod cache;
mod form;
mod looking;
mod pool;
mod root;
mod rules;
mod sending;

use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::answer::{
    Answer, Body, Handler, Job, Kept, KeptReply, Outcome, Pending, Reply, ResponseOf,
};
use super::plain;
use crate::config::{self, FileRoute};
use crate::http::{KeptRequest, Request, Response};
use crate::sys::file::beneath::LinksBelow;
use cache::{Answering, Borrowed, Entry, KeptFile};
use form::Form;
use looking::{Found, Known, Sought};
use root::Roots;
use rules::{Part, Plan};
use sending::Sending;

pub(super) use cache::Answers;
pub(super) use pool::Pool;

/// How long a lookup may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A route that serves files.
pub(super) struct Files {
    /// Tells its paths from those of other routes.
    number: u32,
    /// How much of a request's path is the route's own.
    prefix_bytes: usize,
    delay: Duration,
    pool: Arc<Pool>,
    folder: Arc<ServedFolder>,
}

/// What the threads of the pool need to know of a route.
struct ServedFolder {
    roots: Roots,
    links: LinksBelow,
    route: FileRoute,
    headers: Vec<(String, String)>,
    cached_file_bytes: u64,
}

impl Files {
    pub(super) fn new(
        number: u32,
        route: &config::Route,
        files: &FileRoute,
        settings: &config::Files,
        pool: &Arc<Pool>,
    ) -> Files {
        let (config::RoutePath::Exact(prefix) | config::RoutePath::Prefix(prefix)) = &route.path;
        Files {
            number,
            prefix_bytes: prefix.len(),
            delay: route.delay,
            pool: Arc::clone(pool),
            folder: Arc::new(ServedFolder {
                roots: Roots::new(files.root.clone(), settings.cache_ttl),
                links: looking::links(files.symlinks),
                route: files.clone(),
                headers: route.headers.clone(),
                cached_file_bytes: settings.cached_file_bytes,
            }),
        }
    }

    /// What comes of a request that `sought` is to be the answer to.
    fn outcome(&self, request: &Request<'_>, sought: &Borrowed<'_>, kept: &Kept) -> Outcome<'_> {
        let (answers, now_ms) = (kept.get::<Answers>(), kept.now_ms());
        if let Some(entry) = answers.and_then(|of| of.find(self.number, sought, now_ms)) {
            return self.conclude(request, sought, &entry, kept);
        }
        let known = answers.and_then(|of| of.begin_check(self.number, sought, now_ms));
        let (request, sought) = (request.keep(), sought.to_sought());
        let (kept, found) = (kept.clone(), Arc::default());
        let lookup = Lookup { files: self, request, sought, known, kept, found };
        Outcome::Pending(Pending::Job(Box::new(lookup)))
    }

    /// What comes of it once it is known what is there.
    fn conclude(
        &self,
        request: &Request<'_>,
        sought: &Borrowed<'_>,
        entry: &Rc<Entry>,
        kept: &Kept,
    ) -> Outcome<'_> {
        match &entry.answer {
            Answering::File(file) => self.ready(self.send(request, file, kept)),
            Answering::Folder => {
                let location = rules::slash_location(&request.target);
                self.ready(own(plain(308, &[("Location", &location)], "it is a folder")))
            }
            Answering::Listing => {
                let request = request.keep();
                let listing = Listing { files: self, request, page: Arc::default() };
                Outcome::Pending(Pending::Job(Box::new(listing)))
            }
            Answering::Missing => self.missing(request, sought, kept),
            Answering::Unavailable => self.ready(unavailable()),
        }
    }

    /// There is nothing at a path: what stands in for it, if anything does.
    fn missing(&self, request: &Request<'_>, sought: &Borrowed<'_>, kept: &Kept) -> Outcome<'_> {
        let route = &self.folder.route;
        match sought {
            Borrowed::Path(path)
                if route.fallback.is_some() && rules::takes_fallback(request, path) =>
            {
                self.outcome(request, &Borrowed::Other(&Sought::Fallback), kept)
            }
            Borrowed::Path(_) | Borrowed::Other(Sought::Fallback) if route.not_found.is_some() => {
                self.outcome(request, &Borrowed::Other(&Sought::NotFound), kept)
            }
            _ => {
                let vary = route.fallback.is_some().then_some(("Vary", rules::VARY_OF_FALLBACK));
                self.ready(own(plain(404, vary.as_slice(), "there is nothing at this path")))
            }
        }
    }

    fn ready<'s>(&self, reply: Reply<'s>) -> Outcome<'s> {
        Outcome::after(self.delay, reply)
    }

    /// A file, or what of it the request wants.
    fn send(&self, request: &Request<'_>, file: &KeptFile, kept: &Kept) -> Reply<'static> {
        let mut coding = None;
        if file.has_coded() {
            let acceptable = rules::acceptable(request.fields);
            coding = match acceptable.choose(|coding| file.form(Some(coding)).is_some()) {
                Some(coding) => coding,
                None => return own(rules::not_acceptable()),
            };
        }
        let Some(form) = file.form(coding) else { return unavailable() };
        let rendered = form.rendered();
        if rules::is_plain(request.fields) {
            return self.whole(form, kept);
        }
        match rules::plan(request, rendered) {
            Plan::Whole => self.whole(form, kept),
            Plan::Bare(response, body) => own((response, body)),
            Plan::Part { response, offset, length } => {
                let body = match form.file() {
                    None => Body::Kept(as_reply(form), range(offset, length)),
                    Some(_) => self.stream(form, vec![bare(offset, length)], Vec::new(), kept),
                };
                Reply { response: ResponseOf::Request(Box::new(response)), body }
            }
            Plan::Parts { response, parts, end } => {
                let body = match form.file() {
                    None => Body::Owned(joined(form.in_memory(), parts, end)),
                    Some(_) => self.stream(form, parts, end, kept),
                };
                Reply { response: ResponseOf::Request(Box::new(response)), body }
            }
        }
    }

    fn whole(&self, form: &Rc<Form>, kept: &Kept) -> Reply<'static> {
        let body = match form.file() {
            None => form.whole(),
            Some(_) => self.stream(form, vec![bare(0, form.stamp().size())], Vec::new(), kept),
        };
        Reply { response: ResponseOf::Kept(as_reply(form)), body }
    }

    fn stream(
        &self,
        form: &Rc<Form>,
        parts: Vec<Part>,
        end: Vec<u8>,
        kept: &Kept,
    ) -> Body<'static> {
        let sent = parts.iter().map(|part| part.head.len() as u64 + part.length);
        let length = sent.sum::<u64>() + end.len() as u64;
        Body::Stream(Box::new(Sending::new(form, parts, end, length, &self.pool, kept)))
    }
}

impl Handler for Files {
    fn answer(&self, request: &Request<'_>, kept: &Kept) -> Answer<'_> {
        let rest = request.target.path.get(self.prefix_bytes..).unwrap_or_default();
        Answer::Known(self.outcome(request, &Borrowed::Path(rest), kept))
    }
}

/// A request that waits for its path to be looked up.
struct Lookup<'s> {
    files: &'s Files,
    request: KeptRequest,
    sought: Sought,
    known: Option<Known>,
    kept: Kept,
    found: Arc<Mutex<Option<Found>>>,
}

impl<'s> Job<'s> for Lookup<'s> {
    fn begin(&mut self, waker: Waker) {
        let (folder, found) = (Arc::clone(&self.files.folder), Arc::clone(&self.found));
        let (sought, known) = (self.sought.clone(), self.known.take());
        let late = waker.clone();
        let is_taken = self.files.pool.submit(move || {
            let seen = folder.look_up(&sought, known.as_ref());
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
            waker.wake();
        });
        if !is_taken {
            // Nothing will be found: it is answered with that.
            late.wake();
        }
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(found) = found else {
            return Outcome::Ready(unavailable());
        };
        let now_ms = self.kept.now_ms();
        let entry = match self.kept.get::<Answers>() {
            Some(answers) => answers.keep(self.files.number, &self.sought, found, now_ms),
            None => Entry::new(found, now_ms),
        };
        let request = self.request.request();
        self.files.conclude(&request, &Borrowed::from(&self.sought), &entry, &self.kept)
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.request.held_bytes()
    }
}

/// A request that waits for a folder to be listed.
struct Listing<'s> {
    files: &'s Files,
    request: KeptRequest,
    page: Arc<Mutex<Option<Made>>>,
}

/// A response, and its content.
type Made = (Response, Vec<u8>);

impl<'s> Job<'s> for Listing<'s> {
    fn begin(&mut self, waker: Waker) {
        let (folder, page) = (Arc::clone(&self.files.folder), Arc::clone(&self.page));
        let (request, prefix_bytes) = (self.request.clone(), self.files.prefix_bytes);
        let late = waker.clone();
        let is_taken = self.files.pool.submit(move || {
            let request = request.request();
            let rest = request.target.path.get(prefix_bytes..).unwrap_or_default();
            let made = folder.list(rest).map(|(entries, is_cut)| {
                let path = &request.target.path;
                let of = rules::Folder { path, has_parent: !rest.is_empty(), is_cut };
                rules::page(rules::form(request.fields), of, request.target.query, entries)
            });
            *page.lock().unwrap_or_else(PoisonError::into_inner) = made;
            waker.wake();
        });
        if !is_taken {
            late.wake();
        }
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        let page = self.page.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.files.ready(page.map_or_else(unavailable, own))
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.request.held_bytes()
    }
}

fn unavailable() -> Reply<'static> {
    own(plain(503, &[], "the files can't be looked at now"))
}

fn own((response, body): Made) -> Reply<'static> {
    Reply { response: ResponseOf::Request(Box::new(response)), body: Body::Owned(body) }
}

fn as_reply(form: &Rc<Form>) -> Rc<dyn KeptReply> {
    Rc::clone(form) as Rc<dyn KeptReply>
}

/// A part of a file without anything before it.
fn bare(offset: u64, length: u64) -> Part {
    Part { head: Vec::new(), offset, length }
}

/// Of a file that is in memory.
fn range(offset: u64, length: u64) -> Range<usize> {
    offset as usize..(offset + length) as usize
}

/// Parts of a file that is in memory, as one piece.
fn joined(bytes: &[u8], parts: Vec<Part>, end: Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    for Part { head, offset, length } in parts {
        body.extend_from_slice(&head);
        body.extend_from_slice(&bytes[range(offset, length)]);
    }
    body.extend_from_slice(&end);
    body
}
