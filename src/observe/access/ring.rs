//! Lines on their way from the lanes to the writer: a ring in shared memory for each worker, with one producer and one
//! consumer.
//!
//! A producer copies a line into its ring and then publishes its end. So a line is there as a whole or not at all, and what
//! a killed worker has published is still read; the next worker of that ring goes on at the published end. The consumer
//! says how far it has read in shared memory, too, so that the next one goes on there. Neither waits for the other.
//!
//! A line is a word with its length in bytes, and its bytes, filled up to whole words. All words are atomics: whatever
//! another process does to them, nothing here reads or writes out of bounds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::memory::SharedWords;
use crate::sys::process::ProcessId;
use crate::sys::wake::Wake;

/// Longest line, in bytes with its end: the kernel never mixes writes of so many to a pipe (pipe(7), `PIPE_BUF`).
pub const LINE_BYTES_MAX: usize = 4096;
/// What a ring holds, in bytes with what frames its lines: about 12,000 lines, which a saturated lane makes in a tenth of a
/// second or more. So long a disk may keep the writer waiting, or another writer take to start.
pub const RING_BYTES: usize = 4 << 20;

/// So much in one ring wakes the consumer: lines for a few writes, which lie in a CPU's cache still, and most of the ring is
/// left for the time that it takes to come.
const WAKE_BYTES: usize = RING_BYTES / 8;

const WORD_BYTES: usize = size_of::<AtomicU64>();
/// What a ring holds, in words.
const RING_WORDS: usize = RING_BYTES / WORD_BYTES;
/// Words of a cache line, and of the one that is fetched beside it: what two processes write lies so far apart.
const APART: usize = 16;
/// Words in front of the rings, which belong to all of them.
const SHARED_WORDS: usize = 2 * APART;
/// Words in front of the lines of a ring.
const HEAD_WORDS: usize = 2 * APART;

/// The rings of one generation, one for each block of the ledger, and what wakes their consumer. A ring takes memory once
/// there are lines in it.
pub struct Rings {
    words: SharedWords,
    count: usize,
    wake: Wake,
}

/// What all rings share.
struct Shared<'r> {
    /// Not 0: the consumer waits, and wants to be woken.
    asleep: &'r AtomicU64,
    /// Lines dropped, of those that were told of.
    told: &'r AtomicU64,
    /// How many of the rings, from the first one on, may have had a producer.
    used: &'r AtomicU64,
}

/// One ring.
#[derive(Clone, Copy)]
struct Ring<'r> {
    /// How many words were published, ever.
    published: &'r AtomicU64,
    /// Lines that there was no room for.
    dropped: &'r AtomicU64,
    /// The process of its producer; 0 if there is none.
    producer: &'r AtomicU64,
    /// How many words were read, ever.
    read: &'r AtomicU64,
    lines: &'r [AtomicU64],
}

impl Rings {
    /// So many rings, of which processes forked from here on have the same.
    ///
    /// # Errors
    /// If there are no addresses for so many, or no descriptors.
    pub fn new(count: usize) -> io::Result<Rings> {
        let words = SHARED_WORDS + count * (HEAD_WORDS + RING_WORDS);
        let words = SharedWords::new("laneway access log", words)?;
        Ok(Rings { words, count, wake: Wake::new()? })
    }

    /// As many others.
    ///
    /// # Errors
    /// As of [`Rings::new`].
    pub fn another(&self) -> io::Result<Rings> {
        Rings::new(self.count)
    }

    fn shared(&self) -> Shared<'_> {
        let words = &self.words.words()[..SHARED_WORDS];
        Shared { asleep: &words[0], used: &words[1], told: &words[APART] }
    }

    fn ring(&self, ring: usize) -> Ring<'_> {
        let start = SHARED_WORDS + ring * (HEAD_WORDS + RING_WORDS);
        let words = &self.words.words()[start..start + HEAD_WORDS + RING_WORDS];
        let (head, lines) = words.split_at(HEAD_WORDS);
        Ring {
            published: &head[0],
            dropped: &head[1],
            producer: &head[2],
            read: &head[APART],
            lines,
        }
    }

    /// The producer's end of a ring, for a worker in this process. There must be no other worker that has it.
    ///
    /// # Panics
    /// If there is no such ring.
    pub fn produce(self: &Arc<Rings>, number: usize, process: ProcessId) -> Producer {
        let ring = self.ring(number);
        self.shared().used.fetch_max(number as u64 + 1, Ordering::Release);
        ring.producer.store(process as u64, Ordering::Relaxed);
        let read = ring.read.load(Ordering::Acquire);
        // What no producer leaves is begun anew.
        let published = Some(ring.published.load(Ordering::Relaxed));
        let published = published.filter(|published| is_sound(*published, read)).unwrap_or(read);
        ring.published.store(published, Ordering::Release);
        Producer { rings: Arc::clone(self), number, published, read }
    }

    /// The consumer's end of all rings. There must be no other consumer.
    pub fn consume(&self) -> Consumer<'_> {
        Consumer { rings: self }
    }
}

impl<'r> Ring<'r> {
    /// The word that was published as this one.
    fn word(self, number: u64) -> &'r AtomicU64 {
        &self.lines[number as usize % RING_WORDS]
    }

    /// The words of a line that has so many, the first of which was published as this one: up to the end of the ring, and
    /// those that go on at its start.
    fn span(self, from: u64, count: usize) -> [&'r [AtomicU64]; 2] {
        let start = from as usize % RING_WORDS;
        let end = (start + count).min(RING_WORDS);
        [&self.lines[start..end], &self.lines[..start + count - end]]
    }

    /// The bytes of a line there, and where the next one begins. `None` if there is no line.
    fn line_at(self, start: u64, published: u64) -> Option<(usize, u64)> {
        let length = self.word(start).load(Ordering::Relaxed);
        let length = usize::try_from(length).ok()?;
        let end = start.saturating_add(1 + length.div_ceil(WORD_BYTES) as u64);
        let is_line = start < published && (1..=LINE_BYTES_MAX).contains(&length);
        (is_line && end <= published).then_some((length, end))
    }

    /// Copies whole words in, from that place on.
    fn store(self, from: u64, bytes: &[[u8; WORD_BYTES]]) {
        let [first, second] = self.span(from, bytes.len());
        let (before, behind) = bytes.split_at(first.len());
        for (words, bytes) in [(first, before), (second, behind)] {
            let pairs = words.iter().zip(bytes);
            pairs.for_each(|(word, bytes)| {
                word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            });
        }
    }

    /// Copies whole words out, from that place on.
    fn load(self, from: u64, bytes: &mut [[u8; WORD_BYTES]]) {
        let [first, second] = self.span(from, bytes.len());
        let (before, behind) = bytes.split_at_mut(first.len());
        for (words, bytes) in [(first, before), (second, behind)] {
            let pairs = words.iter().zip(bytes);
            pairs.for_each(|(word, bytes)| *bytes = word.load(Ordering::Relaxed).to_le_bytes());
        }
    }
}

/// Whether a ring can be like that, by how many words were published and read.
fn is_sound(published: u64, read: u64) -> bool {
    published.checked_sub(read).is_some_and(|words| words <= RING_WORDS as u64)
}

/// Where a lane puts its lines.
pub struct Producer {
    rings: Arc<Rings>,
    number: usize,
    /// As in the ring, of which this is the one that writes it.
    published: u64,
    /// What was read when that was looked at last.
    read: u64,
}

impl Producer {
    /// Puts a line into the ring. False, and counted, if there is no room for it, or it is longer than a line may be.
    pub fn push(&mut self, line: &[u8]) -> bool {
        let words = 1 + line.len().div_ceil(WORD_BYTES) as u64;
        let end = self.published + words;
        let is_full = |read: u64| end > read.saturating_add(RING_WORDS as u64);
        if is_full(self.read) {
            self.read = self.ring().read.load(Ordering::Acquire);
        }
        if is_full(self.read) || line.is_empty() || line.len() > LINE_BYTES_MAX {
            self.count_dropped();
            self.wake();
            return false;
        }
        let ring = self.ring();
        let (whole, rest) = line.as_chunks::<WORD_BYTES>();
        ring.word(self.published).store(line.len() as u64, Ordering::Relaxed);
        ring.store(self.published + 1, whole);
        if !rest.is_empty() {
            let mut last = [0; WORD_BYTES];
            last[..rest.len()].copy_from_slice(rest);
            ring.word(end - 1).store(u64::from_le_bytes(last), Ordering::Relaxed);
        }
        ring.published.store(end, Ordering::Release);
        self.published = end;
        self.wake_if_much();
        true
    }

    /// Counts a line that was not made.
    pub fn count_dropped(&self) {
        let dropped = self.ring().dropped;
        dropped.store(dropped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn ring(&self) -> Ring<'_> {
        self.rings.ring(self.number)
    }

    /// Wakes the consumer once there is much to read. Should it begin to wait just now, the next line wakes it, or its own
    /// time does.
    fn wake_if_much(&mut self) {
        const MUCH: u64 = (WAKE_BYTES / WORD_BYTES) as u64;
        if self.published.saturating_sub(self.read) < MUCH {
            return;
        }
        self.read = self.ring().read.load(Ordering::Acquire);
        if self.published.saturating_sub(self.read) >= MUCH {
            self.wake();
        }
    }

    fn wake(&self) {
        let asleep = self.rings.shared().asleep;
        if asleep.load(Ordering::Relaxed) != 0 {
            asleep.store(0, Ordering::Relaxed);
            self.rings.wake.notify();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.ring().producer.store(0, Ordering::Release);
    }
}

/// Where the writer takes lines from.
#[derive(Clone, Copy)]
pub struct Consumer<'r> {
    rings: &'r Rings,
}

impl Consumer<'_> {
    /// How many of the rings, from the first one on, may have lines. To look at others would take memory for each.
    pub fn used(self) -> usize {
        let used = self.rings.shared().used.load(Ordering::Acquire);
        usize::try_from(used).unwrap_or(usize::MAX).min(self.rings.count)
    }

    /// Copies as many lines of a ring into `lines` as there are and have room there, and says how many bytes that was, and
    /// how far it is: see [`Consumer::advance`]. A ring that isn't what its producer left is skipped.
    pub fn read(self, ring: usize, lines: &mut [u8]) -> (usize, u64) {
        let ring = self.rings.ring(ring);
        let published = ring.published.load(Ordering::Acquire);
        let (mut read, mut filled) = (ring.read.load(Ordering::Relaxed), 0);
        if !is_sound(published, read) {
            return (0, published);
        }
        while read < published {
            let Some((length, end)) = ring.line_at(read, published) else {
                return (filled, published);
            };
            let Some(line) = lines.get_mut(filled..filled + length) else { break };
            let (whole, rest) = line.as_chunks_mut::<WORD_BYTES>();
            ring.load(read + 1, whole);
            if !rest.is_empty() {
                let last = ring.word(end - 1).load(Ordering::Relaxed).to_le_bytes();
                rest.copy_from_slice(&last[..rest.len()]);
            }
            (read, filled) = (end, filled + length);
        }
        (filled, read)
    }

    /// Takes all lines off a ring, and says how many there were.
    fn discard(self, ring: usize) -> u64 {
        let of = self.rings.ring(ring);
        let published = of.published.load(Ordering::Acquire);
        let read = of.read.load(Ordering::Relaxed);
        let first = is_sound(published, read).then_some(read);
        let next = |read: &u64| of.line_at(*read, published).map(|(_, end)| end);
        let count = std::iter::successors(first, next).skip(1).count() as u64;
        self.advance(ring, published);
        count
    }

    /// What was read of a ring up to there is done with, and its room is the producer's.
    pub fn advance(self, ring: usize, read: u64) {
        self.rings.ring(ring).read.store(read, Ordering::Release);
    }

    /// Whether there is nothing to read in a ring.
    pub fn is_empty(self, ring: usize) -> bool {
        let ring = self.rings.ring(ring);
        ring.read.load(Ordering::Relaxed) >= ring.published.load(Ordering::Acquire)
    }

    /// The process of the worker that has a ring, if one has.
    pub fn producer(self, ring: usize) -> Option<ProcessId> {
        let process = self.rings.ring(ring).producer.load(Ordering::Acquire);
        ProcessId::try_from(process).ok().filter(|process| *process > 0)
    }

    /// How many lines all producers have dropped.
    pub fn dropped(self) -> u64 {
        let dropped = (0..self.used()).map(|ring| self.rings.ring(ring).dropped);
        dropped.map(|dropped| dropped.load(Ordering::Relaxed)).sum()
    }

    /// Takes off all that no writer will write any more, and says how many lines that was, and how many with those that
    /// producers have dropped and that were not told of.
    pub fn give_up(self) -> (u64, u64) {
        let left = (0..self.used()).map(|ring| self.discard(ring)).sum();
        let dropped = self.dropped();
        let untold = dropped.saturating_sub(self.told_dropped());
        self.tell_dropped(dropped);
        (left, left + untold)
    }

    /// How many of those were told of, by this consumer or one before it.
    pub fn told_dropped(self) -> u64 {
        self.rings.shared().told.load(Ordering::Relaxed)
    }

    /// So many were told of.
    pub fn tell_dropped(self, dropped: u64) {
        self.rings.shared().told.store(dropped, Ordering::Relaxed);
    }

    /// Has the producers wake this consumer from here on, when there is much in a ring.
    pub fn doze(self) {
        self.rings.shared().asleep.store(1, Ordering::SeqCst);
    }

    /// It is awake.
    ///
    /// # Errors
    /// If the descriptor can't be read.
    pub fn awake(self) -> io::Result<()> {
        self.rings.shared().asleep.store(0, Ordering::Relaxed);
        self.rings.wake.reset().map(drop)
    }
}

impl AsFd for Consumer<'_> {
    /// Readable when a producer has woken the consumer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.wake.as_fd()
    }
}

#[cfg(test)]
mod tests;
