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
    /// So many words of lines, from the one that was published as this one.
    fn span(self, from: u64, count: u64) -> impl Iterator<Item = &'r AtomicU64> {
        let (start, count) = (from as usize % RING_WORDS, count as usize);
        let end = (start + count).min(RING_WORDS);
        self.lines[start..end].iter().chain(&self.lines[..start + count - end])
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
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        let length = (line.len() as u64).to_le_bytes();
        let first = [length];
        let mut bytes = first.iter().chain(whole);
        ring.span(self.published, words).for_each(|word| {
            let bytes = bytes.next().unwrap_or(&last);
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        });
        ring.published.store(end, Ordering::Release);
        self.published = end;
        self.wake_if_half_full();
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

    /// Wakes the consumer once half of the ring is full. Should it begin to wait just now, the next line wakes it, or its
    /// own time does.
    fn wake_if_half_full(&mut self) {
        const HALF: u64 = RING_WORDS as u64 / 2;
        if self.published.saturating_sub(self.read) < HALF {
            return;
        }
        self.read = self.ring().read.load(Ordering::Acquire);
        if self.published.saturating_sub(self.read) >= HALF {
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

    /// Puts lines of a ring behind those in `lines`, until there are `bytes_max` in all or no more, and returns how far
    /// that is: see [`Consumer::advance`]. A ring that isn't what its producer left is skipped.
    pub fn read(self, ring: usize, lines: &mut Vec<u8>, bytes_max: usize) -> u64 {
        let ring = self.rings.ring(ring);
        let published = ring.published.load(Ordering::Acquire);
        let mut read = ring.read.load(Ordering::Relaxed);
        if !is_sound(published, read) {
            return published;
        }
        while read < published {
            let length = ring.lines[read as usize % RING_WORDS].load(Ordering::Relaxed) as usize;
            let end = read.saturating_add(1 + length.div_ceil(WORD_BYTES) as u64);
            if length == 0 || length > LINE_BYTES_MAX || end > published {
                return published;
            }
            if lines.len() + length > bytes_max {
                break;
            }
            let before = lines.len();
            let words = end - read - 1;
            lines.resize(before + words as usize * WORD_BYTES, 0);
            let mut bytes = lines[before..].as_chunks_mut::<WORD_BYTES>().0.iter_mut();
            ring.span(read + 1, words).for_each(|word| {
                if let Some(bytes) = bytes.next() {
                    *bytes = word.load(Ordering::Relaxed).to_le_bytes();
                }
            });
            lines.truncate(before + length);
            read = end;
        }
        read
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

    /// How many of those were told of, by this consumer or one before it.
    pub fn told_dropped(self) -> u64 {
        self.rings.shared().told.load(Ordering::Relaxed)
    }

    /// So many were told of.
    pub fn tell_dropped(self, dropped: u64) {
        self.rings.shared().told.store(dropped, Ordering::Relaxed);
    }

    /// Has the producers wake this consumer from here on, when a ring is half full or over.
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
mod tests {
    use super::*;
    use crate::sys::has_input_within;
    use std::time::Duration;

    fn line(number: usize) -> Vec<u8> {
        // Every length but 0, so that lines lie across the end of the ring in every way.
        let mut line = format!("{number}:").into_bytes();
        line.resize((line.len() + number % 301).min(LINE_BYTES_MAX), b'x');
        line.push(b'\n');
        line
    }

    fn read_all(consumer: Consumer<'_>, ring: usize) -> Vec<u8> {
        let mut lines = Vec::new();
        loop {
            let (before, read) = (lines.len(), consumer.read(ring, &mut lines, usize::MAX));
            consumer.advance(ring, read);
            if lines.len() == before {
                return lines;
            }
        }
    }

    #[test]
    fn lines_come_out_as_they_went_in_for_many_rounds_of_the_ring() {
        let rings = Arc::new(Rings::new(3).expect("rings"));
        let consumer = rings.consume();
        let mut producer = rings.produce(1, 7);
        for round in 0..40 {
            let sent: Vec<u8> = (0..997).flat_map(|number| line(round * 997 + number)).collect();
            (0..997).for_each(|number| assert!(producer.push(&line(round * 997 + number))));
            assert!(consumer.is_empty(0) && !consumer.is_empty(1));
            assert_eq!(read_all(consumer, 1), sent, "round {round}");
            assert!(consumer.is_empty(1));
        }
        assert_eq!((consumer.producer(0), consumer.producer(1)), (None, Some(7)));
        assert_eq!(consumer.used(), 2);
        drop(producer);
        assert_eq!((consumer.producer(1), consumer.dropped()), (None, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_what_was_there_stays() {
        let rings = Arc::new(Rings::new(1).expect("rings"));
        let consumer = rings.consume();
        let mut producer = rings.produce(0, 1);
        let line = [b'x'; 1024];
        let fit = (0..).take_while(|_| producer.push(&line)).count();
        assert_eq!(fit, RING_WORDS / (1 + 1024 / 8));
        assert!(!producer.push(&line) && consumer.dropped() == 2);
        let mut lines = Vec::new();
        let read = consumer.read(0, &mut lines, 10 * 1024 + 1023);
        assert_eq!(lines.len(), 10 * 1024, "no half line");
        assert!(!producer.push(&line), "what is not done with keeps its room");
        consumer.advance(0, read);
        assert_eq!((0..20).filter(|_| producer.push(&line)).count(), 10);
        for too_long in [&[][..], &[b'x'; LINE_BYTES_MAX + 1]] {
            assert!(!producer.push(too_long));
        }
        assert_eq!(read_all(consumer, 0).len(), fit * 1024);
        assert!(producer.push(&[b'x'; LINE_BYTES_MAX]));
    }

    #[test]
    fn a_successor_on_either_side_goes_on_where_the_one_before_has_ended() {
        let rings = Arc::new(Rings::new(1).expect("rings"));
        let mut lines = Vec::new();
        for number in 0..100 {
            // Its end is not said: it was killed.
            let mut producer = rings.produce(0, 1);
            assert!(producer.push(&line(number)));
            std::mem::forget(producer);
            if number % 3 == 0 {
                let consumer = rings.consume();
                let read = consumer.read(0, &mut lines, usize::MAX);
                consumer.advance(0, read);
            }
        }
        assert_eq!(lines, (0..100).flat_map(line).collect::<Vec<u8>>());
    }

    #[test]
    fn a_consumer_that_waits_is_woken_once_when_a_ring_is_half_full() {
        let rings = Arc::new(Rings::new(2).expect("rings"));
        let consumer = rings.consume();
        let is_woken = || has_input_within(consumer, Duration::ZERO);
        let mut producer = rings.produce(1, 1);
        consumer.doze();
        let line = [b'x'; 1016];
        let pushed = (0..).take_while(|_| producer.push(&line) && !is_woken()).count();
        assert_eq!(pushed + 1, RING_BYTES / 2 / 1024);
        consumer.awake().expect("an event");
        assert!(producer.push(&line) && !is_woken(), "it is awake");
        consumer.doze();
        assert!(producer.push(&line) && is_woken());
        consumer.awake().expect("an event");
        read_all(consumer, 1);
        consumer.doze();
        assert!(producer.push(&line) && !is_woken(), "there is room again");
    }

    #[test]
    fn a_ring_that_is_no_ring_is_skipped() {
        for length in [0, LINE_BYTES_MAX as u64 + 1, u64::MAX, 4096] {
            let rings = Arc::new(Rings::new(1).expect("rings"));
            let mut producer = rings.produce(0, 1);
            assert!(producer.push(b"good\n") && producer.push(b"bad\n"));
            rings.ring(0).lines[2].store(length, Ordering::Relaxed);
            let (consumer, mut lines) = (rings.consume(), Vec::new());
            let read = consumer.read(0, &mut lines, usize::MAX);
            assert_eq!((&lines[..], read), (&b"good\n"[..], 4), "{length}");
            consumer.advance(0, read);
            assert!(consumer.is_empty(0));
        }
    }

    #[test]
    fn a_producer_and_a_consumer_at_once_lose_nothing() {
        const LINES: usize = 50_000;
        let rings = Arc::new(Rings::new(1).expect("rings"));
        let received = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut producer = rings.produce(0, 1);
                for number in 0..LINES {
                    while !producer.push(&line(number)) {
                        std::thread::yield_now();
                    }
                }
            });
            let (consumer, mut lines) = (rings.consume(), Vec::new());
            let total: usize = (0..LINES).map(|number| line(number).len()).sum();
            while lines.len() < total {
                let end = lines.len() + 64 * 1024;
                let read = consumer.read(0, &mut lines, end);
                consumer.advance(0, read);
            }
            lines
        });
        assert!(received == (0..LINES).flat_map(line).collect::<Vec<u8>>(), "they differ");
    }
}
