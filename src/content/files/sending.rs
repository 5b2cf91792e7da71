//! A file on its way that is too large for memory: slice by slice, each read by a thread of the pool first unless it is known
//! to be in memory, so that the lane never waits for a disk. Before the last slice it is looked at once more: of a file that
//! has changed the end is not sent, which breaks the response off.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;
use std::{borrow::Cow, vec};

use super::form::{Form, SLICE_BYTES};
use super::pool::Pool;
use super::rules::Part;
use crate::content::answer::{FileSpan, Kept, Piece, Stream};

/// How long a disk may take for a slice.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a thread reads at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// How far a thread is with the slice that it reads.
const READING: u8 = 0;
const READ: u8 = 1;
const FAILED: u8 = 2;

/// Parts of a file, with what goes before each and behind the last.
pub(super) struct Sending {
    form: Rc<Form>,
    pool: Arc<Pool>,
    kept: Kept,
    parts: vec::IntoIter<Part>,
    /// What is left of the part under way: from where to where.
    left: Option<(u64, u64)>,
    end: Vec<u8>,
    length: u64,
    waker: Option<Waker>,
    /// The slice that a thread reads.
    reading: Option<Arc<AtomicU8>>,
}

impl Sending {
    /// `length`: of all together.
    pub(super) fn new(
        form: &Rc<Form>,
        parts: Vec<Part>,
        end: Vec<u8>,
        length: u64,
        pool: &Arc<Pool>,
        kept: &Kept,
    ) -> Sending {
        Sending {
            form: Rc::clone(form),
            pool: Arc::clone(pool),
            kept: kept.clone(),
            parts: parts.into_iter(),
            left: None,
            end,
            length,
            waker: None,
            reading: None,
        }
    }

    /// The next slice of the part under way.
    fn slice(&mut self, from: u64, to: u64, file: &Arc<File>) -> Piece<'static> {
        let slice_end = to.min((from / SLICE_BYTES + 1) * SLICE_BYTES);
        let now_ms = self.kept.now_ms();
        if !self.form.is_warm(from, now_ms) {
            match self.reading.take().map(|reading| (reading.load(Ordering::Acquire), reading)) {
                Some((READ, _)) => {}
                Some((READING, reading)) => {
                    self.reading = Some(reading);
                    return Piece::Later;
                }
                Some(_) => return Piece::Failed,
                None => {
                    return if self.read(file, from, slice_end) {
                        Piece::Later
                    } else {
                        Piece::Failed
                    };
                }
            }
        }
        self.form.set_warm(from, now_ms);
        let is_last = slice_end == to && self.parts.as_slice().is_empty();
        if is_last && !self.form.is_unchanged() {
            return Piece::Failed;
        }
        self.left = (slice_end < to).then_some((slice_end, to));
        Piece::File(FileSpan::new(Arc::clone(file), from, slice_end - from))
    }

    /// Has a thread read what is there, so that it is in memory. False if none can.
    fn read(&mut self, file: &Arc<File>, from: u64, to: u64) -> bool {
        let progress = Arc::new(AtomicU8::new(READING));
        let (file, told, waker) = (Arc::clone(file), Arc::clone(&progress), self.waker.clone());
        self.reading = Some(progress);
        self.pool.submit(move || {
            let outcome = if read_through(&file, from, to) { READ } else { FAILED };
            told.store(outcome, Ordering::Release);
            if let Some(waker) = waker {
                waker.wake();
            }
        })
    }
}

/// Reads a part of a file, up to its end. False if it can't be read.
fn read_through(file: &File, from: u64, to: u64) -> bool {
    let mut buffer = vec![0; READ_BYTES];
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(READ_BYTES as u64) as usize;
        match file.read_at(&mut buffer[..wanted], at) {
            Ok(0) => return true,
            Ok(count) => at += count as u64,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

impl Stream for Sending {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn begin(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    fn next(&mut self) -> Piece<'_> {
        let Some(file) = self.form.file().map(Arc::clone) else {
            return Piece::Failed;
        };
        if let Some((from, to)) = self.left {
            return self.slice(from, to, &file);
        }
        match self.parts.next() {
            Some(Part { head, offset, length }) => {
                self.left = (length > 0).then_some((offset, offset + length));
                match self.left {
                    Some((from, to)) if head.is_empty() => self.slice(from, to, &file),
                    _ => Piece::Bytes(Cow::Owned(head)),
                }
            }
            None if self.end.is_empty() => Piece::End,
            None => Piece::Bytes(Cow::Owned(std::mem::take(&mut self.end))),
        }
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn held_bytes(&self) -> usize {
        let heads =
            self.parts.as_slice().iter().map(|part| size_of::<Part>() + part.head.capacity());
        size_of::<Sending>() + heads.sum::<usize>() + self.end.capacity()
    }
}
