//! Buffers that are shared with the kernel: an io_uring receives into whichever is free (io_uring_register(2),
//! `IORING_REGISTER_PBUF_RING`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The kernel requires the entries to start on a page.
const PAGE_BYTES: usize = 4096;
/// The kernel's limit for entries.
const BUFFERS_MAX: usize = 1 << 15;

/// The entries, which name the buffers that the kernel may use, and behind them the buffers.
pub struct Buffers {
    start: NonNull<u8>,
    /// Which of them are in our hands.
    taken: Box<[bool]>,
    /// The size of each.
    bytes: usize,
    tail: u16,
    is_leaked: bool,
}

/// One of the buffers, with bytes in it, until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    id: u16,
    bytes: u32,
}

impl Buffers {
    /// `count` buffers of `bytes` each; the count is rounded up to a power of two, and no more than 32,768.
    ///
    /// # Panics
    /// If `bytes` is 0, or they are too many to address.
    pub fn new(count: usize, bytes: usize) -> Buffers {
        assert!(bytes > 0);
        let count = count.next_power_of_two().min(BUFFERS_MAX);
        let layout = layout(count, bytes);
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        let taken = vec![true; count].into();
        let mut buffers = Buffers { start, taken, bytes, tail: 0, is_leaked: false };
        (0..count).for_each(|id| buffers.give(id as u16));
        buffers
    }

    /// Has a ring receive into them.
    ///
    /// # Safety
    /// They must not be dropped before everything that the ring receives with them has ended.
    pub unsafe fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let (start, count) = (self.start.as_ptr() as u64, self.taken.len() as u16);
        // SAFETY: page-aligned, begins with `count` initialised entries, and outlives what the ring does with them, as
        // the caller says.
        unsafe { submitter.register_buf_ring_with_flags(start, count, group, 0) }
    }

    /// Takes a buffer that the kernel has put so many bytes into.
    pub fn take(&mut self, id: u16, bytes: usize) -> Buffer {
        self.taken[usize::from(id)] = true;
        Buffer { id, bytes: bytes.min(self.bytes) as u32 }
    }

    /// What is in a buffer.
    ///
    /// # Panics
    /// If it was given back.
    pub fn bytes(&self, buffer: Buffer) -> &[u8] {
        self.check(buffer);
        let start = self.buffer(buffer.id).as_ptr();
        // SAFETY: initialised (zeroes at first), within the buffer (`take`), and not the kernel's: giving it back takes
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(start, buffer.bytes as usize) }
    }

    /// Lets the kernel receive into a buffer again.
    ///
    /// # Panics
    /// If it was given back before.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.check(buffer);
        self.give(buffer.id);
    }

    /// Never frees them: something may still use them.
    pub fn leak(&mut self) {
        self.is_leaked = true;
    }

    fn check(&self, buffer: Buffer) {
        assert!(self.taken[usize::from(buffer.id)], "a buffer that the kernel has");
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let count = self.taken.len();
        assert!(usize::from(id) < count);
        let offset = count * size_of::<BufRingEntry>() + usize::from(id) * self.bytes;
        // SAFETY: within the allocation, because `id` is below `count`.
        unsafe { self.start.add(offset) }
    }

    /// Names a buffer to the kernel as one it may use.
    fn give(&mut self, id: u16) {
        self.taken[usize::from(id)] = false;
        let address = self.buffer(id).as_ptr() as u64;
        let entries: NonNull<BufRingEntry> = self.start.cast();
        let index = usize::from(self.tail) & (self.taken.len() - 1);
        // SAFETY: the index is below the count, a power of two.
        let mut entry = unsafe { entries.add(index) };
        // SAFETY: initialised (zeroes), and not read by the kernel before the tail is past it.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(self.bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry, in which the kernel keeps the tail.
        let tail = unsafe { BufRingEntry::tail(entries.as_ptr()) }.cast_mut();
        // SAFETY: aligned and valid; nobody but the kernel looks at it, atomically.
        unsafe { AtomicU16::from_ptr(tail) }.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.is_leaked {
            let layout = layout(self.taken.len(), self.bytes);
            // SAFETY: allocated with this layout, and nothing uses it any more (`register`).
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

fn layout(count: usize, bytes: usize) -> Layout {
    let size = count * (size_of::<BufRingEntry>() + bytes);
    Layout::from_size_align(size, PAGE_BYTES).expect("memory that can be addressed")
}
