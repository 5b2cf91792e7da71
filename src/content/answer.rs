//! What answers a request: a reply that is there, one that is made of the request's body, or one that comes later.
//!
//! Everything that serves content implements [`Handler`]; nothing beyond this module knows which kinds there are.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::http::{Request, Response};

/// Answers the requests of a route. One is made for a generation, and serves all its lanes at once.
pub trait Handler: Send + Sync {
    /// What answers this request, whose head is whole. Must not wait: other connections would wait with it. `kept` is what
    /// its lane keeps.
    fn answer(&self, request: &Request<'_>, kept: &Kept) -> Answer<'_>;
}

/// What a lane keeps for the content that it asks, which alone knows what that is; and the lane's time. A clone is the same.
#[derive(Clone, Default)]
pub struct Kept(Option<Rc<OfLane>>);

struct OfLane {
    now_ms: Cell<u64>,
    kept: Box<dyn Any>,
}

impl Kept {
    /// Keeps this.
    pub(super) fn new(kept: impl Any) -> Kept {
        Kept(Some(Rc::new(OfLane { now_ms: Cell::new(0), kept: Box::new(kept) })))
    }

    /// What is kept, if it is such.
    pub(super) fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.kept.downcast_ref()
    }

    /// The time of a turn that begins, in milliseconds.
    #[inline]
    pub fn begin_turn(&self, now_ms: u64) {
        if let Some(lane) = &self.0 {
            lane.now_ms.set(now_ms);
        }
    }

    /// The time of the turn, in milliseconds; 0 where nothing is kept.
    pub(super) fn now_ms(&self) -> u64 {
        self.0.as_ref().map_or(0, |lane| lane.now_ms.get())
    }
}

/// What answers a request. `'s` is the site that it is of.
pub enum Answer<'s> {
    /// This, whatever the request's body, which is read and dropped.
    Known(Outcome<'s>),
    /// What comes of the request's body.
    Collect(Box<dyn Collect<'s> + 's>),
}

/// What a request comes to, once it is whole.
pub enum Outcome<'s> {
    /// A reply that can be sent.
    Ready(Reply<'s>),
    /// One that something has to happen for first.
    Pending(Pending<'s>),
}

/// Takes the body of a request, piece by piece, to answer it.
pub trait Collect<'s> {
    /// A piece of the body, in order.
    fn push(&mut self, piece: &[u8]);

    /// How much memory it holds, in bytes.
    fn held_bytes(&self) -> usize;

    /// How much it will hold with so many bytes of the body more.
    fn held_bytes_with(&self, more: usize) -> usize;

    /// The body is whole.
    fn finish(self: Box<Self>) -> Outcome<'s>;
}

/// What has to happen before a request comes to something.
pub enum Pending<'s> {
    /// So much time has to pass after the request was whole.
    Delay(Duration, Reply<'s>),
    /// A job that is done elsewhere has to end.
    Job(Box<dyn Job<'s> + 's>),
}

/// Work on a request that is not done by the thread of its lane: by another thread, as a rule. When its connection is
/// closed it is dropped, and what comes of the work is not wanted any more.
pub trait Job<'s> {
    /// Begins it, once. `waker` is to be woken when it has ended, by any thread. Must not wait.
    fn begin(&mut self, waker: Waker);

    /// How long it may take.
    fn timeout(&self) -> Duration;

    /// What the request comes to, after the job has ended or has taken as long as it may.
    fn finish(self: Box<Self>) -> Outcome<'s>;

    /// How much memory it holds, in bytes.
    fn held_bytes(&self) -> usize;
}

/// A response and its content.
pub struct Reply<'s> {
    /// The response.
    pub response: ResponseOf<'s>,
    /// Its content, which isn't sent in answer to HEAD.
    pub body: Body<'s>,
}

/// A response that is the site's, or made for one request.
pub enum ResponseOf<'s> {
    /// The site's.
    Site(&'s Response),
    /// Of this one request.
    Request(Box<Response>),
    /// One that the lane keeps.
    Kept(Rc<dyn KeptReply>),
}

/// A response and its content that a lane keeps, and gives up when it likes: what is being sent lives on.
pub trait KeptReply {
    /// The response.
    fn response(&self) -> &Response;

    /// The content.
    fn bytes(&self) -> &[u8];
}

/// The content of a response.
pub enum Body<'s> {
    /// Bytes of the site.
    Shared(&'s [u8]),
    /// Bytes of this response alone.
    Owned(Vec<u8>),
    /// Some bytes of what the lane keeps.
    Kept(Rc<dyn KeptReply>, Range<usize>),
    /// Bytes of a file, which the kernel sends from where it has them.
    File(Box<FileSpan>),
    /// Bytes that come piece by piece.
    Stream(Box<dyn Stream + 's>),
}

/// A part of a regular file. If the file turns out to be shorter when it is sent, its connection is closed.
#[derive(Clone, Debug)]
pub struct FileSpan {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl FileSpan {
    /// `length` bytes from `offset` on.
    ///
    /// # Panics
    /// If its end is beyond what any file can have, 2⁶³ - 1 bytes.
    pub fn new(file: Arc<File>, offset: u64, length: u64) -> FileSpan {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| i64::try_from(end).is_ok()), "{offset} + {length} bytes");
        FileSpan { file, offset, length }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it begins in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes it no longer than so many bytes.
    pub fn limit(&mut self, length_max: u64) {
        self.length = self.length.min(length_max);
    }
}

/// Content that is made while it is sent, so that it needs not be held as a whole.
pub trait Stream {
    /// How long it will be, if that is known.
    fn length(&self) -> Option<u64>;

    /// Begins it, once. `waker` is to be woken, by any thread, when there is a piece after [`Piece::Later`]. Must not wait.
    fn begin(&mut self, waker: Waker) {
        drop(waker);
    }

    /// The next piece. Must not wait. Not asked again after the end, or a failure.
    fn next(&mut self) -> Piece<'_>;

    /// How long a piece may take that comes later; then the content is broken off.
    fn timeout(&self) -> Duration;

    /// How much memory it holds, in bytes.
    fn held_bytes(&self) -> usize;
}

/// What a stream is asked for.
pub enum Piece<'b> {
    /// These bytes.
    Bytes(Cow<'b, [u8]>),
    /// This part of a file. Only of content whose length is known: it isn't framed.
    File(FileSpan),
    /// There are none yet: the stream wakes its connection when there are.
    Later,
    /// There are no more.
    End,
    /// There should be more, and they can't be had: the client has to see that its response is not whole.
    Failed,
}

impl Deref for ResponseOf<'_> {
    type Target = Response;

    fn deref(&self) -> &Response {
        match self {
            ResponseOf::Site(response) => response,
            ResponseOf::Request(response) => response,
            ResponseOf::Kept(reply) => reply.response(),
        }
    }
}

impl Answer<'_> {
    /// How much memory it holds of its own, in bytes.
    pub fn held_bytes(&self) -> usize {
        match self {
            Answer::Known(outcome) => outcome.held_bytes(),
            Answer::Collect(collect) => collect.held_bytes(),
        }
    }
}

impl<'s> Outcome<'s> {
    /// This reply, when `delay` has passed.
    pub(super) fn after(delay: Duration, reply: Reply<'s>) -> Outcome<'s> {
        if delay.is_zero() {
            Outcome::Ready(reply)
        } else {
            Outcome::Pending(Pending::Delay(delay, reply))
        }
    }

    /// How much memory it holds of its own, in bytes.
    pub fn held_bytes(&self) -> usize {
        match self {
            Outcome::Ready(reply) => reply.body.held_bytes(),
            Outcome::Pending(pending) => pending.held_bytes(),
        }
    }
}

impl<'s> Pending<'s> {
    /// Begins what it waits for. `waker` makes what wakes it before its time is over.
    pub fn begin(&mut self, waker: impl FnOnce() -> Waker) {
        match self {
            Pending::Delay(..) => {}
            Pending::Job(job) => job.begin(waker()),
        }
    }

    /// After how long it is over, unless it was woken.
    pub fn timeout(&self) -> Duration {
        match self {
            Pending::Delay(delay, _) => *delay,
            Pending::Job(job) => job.timeout(),
        }
    }

    /// What it comes to, after it was woken or its time is over.
    pub fn finish(self) -> Outcome<'s> {
        match self {
            Pending::Delay(_, reply) => Outcome::Ready(reply),
            Pending::Job(job) => job.finish(),
        }
    }

    /// How much memory it holds of its own, in bytes.
    pub fn held_bytes(&self) -> usize {
        match self {
            Pending::Delay(_, reply) => reply.body.held_bytes(),
            Pending::Job(job) => job.held_bytes(),
        }
    }
}

impl Body<'_> {
    /// What of it is in memory: all, or nothing.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Shared(bytes) => bytes,
            Body::Owned(bytes) => bytes,
            Body::Kept(reply, range) => &reply.bytes()[range.clone()],
            Body::File(_) | Body::Stream(_) => &[],
        }
    }

    /// How long it is, in bytes, as far as that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Shared(_) | Body::Owned(_) | Body::Kept(..) => Some(self.bytes().len() as u64),
            Body::File(span) => Some(span.length()),
            Body::Stream(stream) => stream.length(),
        }
    }

    /// How much memory it holds of its own, in bytes.
    pub fn held_bytes(&self) -> usize {
        match self {
            Body::Shared(_) => 0,
            Body::Owned(bytes) => bytes.capacity(),
            // It may be this response alone by now that keeps it.
            Body::Kept(reply, _) => reply.bytes().len(),
            Body::File(_) => size_of::<FileSpan>(),
            Body::Stream(stream) => stream.held_bytes(),
        }
    }
}
