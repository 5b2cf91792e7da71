//! One form of a file as a lane keeps it: its response rendered, its bytes in memory or the file open, and what tells a
//! change.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use super::looking::{Content, FoundForm, Stamp};
use super::rules::Rendered;
use crate::content::answer::{Body, KeptReply};
use crate::http::Response;

/// What is sent, and known to be warm, at a time: so much of a file, in bytes.
pub(super) const SLICE_BYTES: u64 = 512 * 1024;
/// A slice that was read or sent within this time is taken to be in memory still.
const WARM_MS: u64 = 10_000;
/// Of so many slices that is remembered; those behind them are read before each is sent.
const SLICES_MAX: u64 = 8192;

/// One form of a file.
pub(super) struct Form {
    rendered: Rendered,
    stamp: Stamp,
    content: Content,
    /// It was found to be another file by now, or to have changed.
    is_outdated: Cell<bool>,
    /// For each slice, until when it is taken to be in memory, in milliseconds of the lane.
    warm_until_ms: RefCell<Vec<u64>>,
}

impl From<FoundForm> for Form {
    fn from(FoundForm { rendered, stamp, content }: FoundForm) -> Form {
        let (is_outdated, warm_until_ms) = (Cell::new(false), RefCell::default());
        Form { rendered, stamp, content, is_outdated, warm_until_ms }
    }
}

impl Form {
    pub(super) fn rendered(&self) -> &Rendered {
        &self.rendered
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The file, if it isn't in memory.
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        match &self.content {
            Content::Memory(_) => None,
            Content::File(file) => Some(file),
        }
    }

    /// What of it is in memory: all, or nothing.
    pub(super) fn in_memory(&self) -> &[u8] {
        match &self.content {
            Content::Memory(bytes) => bytes,
            Content::File(_) => &[],
        }
    }

    pub(super) fn weight(&self, of_open_file: u64) -> u64 {
        match &self.content {
            Content::Memory(bytes) => bytes.capacity() as u64,
            Content::File(_) => of_open_file,
        }
    }

    /// Whether it is known not to be what its file is.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated.get()
    }

    /// Whether the file is what it was, as far as its file system tells.
    pub(super) fn is_unchanged(&self) -> bool {
        let is_unchanged = self.file().is_none_or(|file| self.stamp.is_of(file));
        if !is_unchanged {
            self.is_outdated.set(true);
        }
        is_unchanged
    }

    /// Whether the slice that begins there is taken to be in memory.
    pub(super) fn is_warm(&self, offset: u64, now_ms: u64) -> bool {
        let slices = self.warm_until_ms.borrow();
        slices.get((offset / SLICE_BYTES) as usize).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// It is.
    pub(super) fn set_warm(&self, offset: u64, now_ms: u64) {
        let slice = offset / SLICE_BYTES;
        if slice >= SLICES_MAX {
            return;
        }
        let mut slices = self.warm_until_ms.borrow_mut();
        if slices.len() <= slice as usize {
            slices.resize(slice as usize + 1, 0);
        }
        slices[slice as usize] = now_ms + WARM_MS;
    }

    /// All of it, in memory.
    pub(super) fn whole(self: &Rc<Form>) -> Body<'static> {
        let range = 0..self.in_memory().len();
        Body::Kept(Rc::clone(self) as Rc<dyn KeptReply>, range)
    }
}

impl KeptReply for Form {
    fn response(&self) -> &Response {
        &self.rendered.response
    }

    fn bytes(&self) -> &[u8] {
        self.in_memory()
    }
}
