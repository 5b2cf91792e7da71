//! Buffers that are shared with the kernel: an io_uring receives into whichever is free (io_uring_register(2),
//! `IORING_REGISTER_PBUF_RING`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The kernel requires the entries to start on a page.
const PAGE_BYTES: usize = 4096;
/// The kernel's limit for entries.
const BUFFERS_MAX: usize = 1 << 15;

/// The entries, which name the buffers that the kernel may use, and behind them the buffers.
pub struct Buffers {
    start: NonNull<u8>,
    layout: Layout,
    /// Which instance this is, of all that there ever were in this process.
    instance: u64,
    /// Which of them are in our hands.
    taken: Box<[bool]>,
    /// The size of each.
    bytes: u32,
    tail: u16,
    is_leaked: bool,
}

/// One of the buffers, with bytes in it, until it is given back: there is one for each time it was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer {
    instance: u64,
    id: u16,
    bytes: u32,
}

impl Buffers {
    /// `count` buffers of `bytes` each; the count is rounded up to a power of two, and no more than 32,768.
    ///
    /// # Panics
    /// If either is 0, or they are too many to address, or one is larger than the kernel takes (4 GiB).
    pub fn new(count: usize, bytes: usize) -> Buffers {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        assert!(count > 0 && bytes > 0, "buffers of some size");
        let count = count.min(BUFFERS_MAX).next_power_of_two();
        let layout = layout(count, bytes).expect("memory that can be addressed");
        let bytes = u32::try_from(bytes).expect("a size that the kernel takes");
        // SAFETY: the size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let taken = vec![true; count].into();
        let mut buffers =
            Buffers { start, layout, instance, taken, bytes, tail: 0, is_leaked: false };
        (0..count).for_each(|id| buffers.give(id as u16));
        buffers
    }

    /// Has a ring receive into them.
    ///
    /// # Safety
    /// With one ring, once; and they must not be dropped before everything that the ring receives with them has ended.
    pub unsafe fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let (start, count) = (self.start.as_ptr() as u64, self.taken.len() as u16);
        // SAFETY: page-aligned, begins with `count` initialised entries, and outlives what the ring does with them, as
        // the caller says.
        unsafe { submitter.register_buf_ring_with_flags(start, count, group, 0) }
    }

    /// Takes a buffer that the kernel has put so many bytes into.
    ///
    /// # Panics
    /// If there is none with this number, or it is taken.
    ///
    /// # Safety
    /// A completion of a receive of the ring that they are registered with has told of it, and it was not taken for
    /// that completion before: the kernel writes into all others.
    pub unsafe fn take(&mut self, id: u16, bytes: usize) -> Buffer {
        let was_taken = std::mem::replace(&mut self.taken[usize::from(id)], true);
        assert!(!was_taken, "a buffer that the kernel had");
        let bytes = bytes.min(self.bytes as usize) as u32;
        Buffer { instance: self.instance, id, bytes }
    }

    /// What is in a buffer.
    ///
    /// # Panics
    /// If it is not one of these.
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.check(buffer);
        let start = self.buffer(buffer.id).as_ptr();
        // SAFETY: initialised (zeroes at first), within the buffer (`take`), and not the kernel's: a `Buffer` of this
        // instance is there for as long as it is taken, and giving it back takes `&mut self`.
        unsafe { std::slice::from_raw_parts(start, buffer.bytes as usize) }
    }

    /// Lets the kernel receive into a buffer again.
    ///
    /// # Panics
    /// If it is not one of these.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.check(&buffer);
        self.give(buffer.id);
    }

    /// Never frees them: something may still use them.
    pub fn leak(&mut self) {
        self.is_leaked = true;
    }

    fn check(&self, buffer: &Buffer) {
        assert!(buffer.instance == self.instance, "a buffer of another ring");
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let count = self.taken.len();
        assert!(usize::from(id) < count);
        let offset = count * size_of::<BufRingEntry>() + usize::from(id) * self.bytes as usize;
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
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry, in which the kernel keeps the tail.
        let tail = unsafe { BufRingEntry::tail(entries.as_ptr()) }.cast_mut();
        // SAFETY: aligned and valid; nothing but the kernel looks at it, atomically.
        unsafe { AtomicU16::from_ptr(tail) }.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.is_leaked {
            // SAFETY: allocated with this layout, and nothing uses it any more (`register`).
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

/// Of the entries and the buffers behind them; none if that is too much to address.
fn layout(count: usize, bytes: usize) -> Option<Layout> {
    let size = bytes.checked_add(size_of::<BufRingEntry>())?.checked_mul(count)?;
    Layout::from_size_align(size, PAGE_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a buffer as if the kernel had put something into it.
    fn take(buffers: &mut Buffers, id: u16, bytes: usize) -> Buffer {
        // SAFETY: no ring knows of them.
        unsafe { buffers.take(id, bytes) }
    }

    #[test]
    #[should_panic(expected = "memory that can be addressed")]
    fn more_memory_than_there_are_addresses_is_refused() {
        Buffers::new(1 << 15, 1 << 49);
    }

    #[test]
    #[should_panic(expected = "a size that the kernel takes")]
    fn a_buffer_too_large_for_the_kernel_is_refused() {
        Buffers::new(1, 1 << 32);
    }

    #[test]
    fn a_count_beyond_every_power_of_two_is_cut_to_what_the_kernel_takes() {
        assert_eq!(Buffers::new(usize::MAX, 1).taken.len(), BUFFERS_MAX);
        assert_eq!(Buffers::new(BUFFERS_MAX + 1, 1).taken.len(), BUFFERS_MAX);
        assert_eq!(Buffers::new(3, 1).taken.len(), 4);
    }

    #[test]
    #[should_panic(expected = "a buffer of another ring")]
    fn a_buffer_of_another_instance_cannot_be_read() {
        let (mut large, small) = (Buffers::new(64, 4096), Buffers::new(1, 16));
        let buffer = take(&mut large, 63, 4096);
        small.bytes(&buffer);
    }

    #[test]
    #[should_panic(expected = "a buffer of another ring")]
    fn a_buffer_of_another_instance_cannot_be_given_back() {
        let (mut one, mut other) = (Buffers::new(1, 16), Buffers::new(1, 16));
        let buffer = take(&mut one, 0, 1);
        other.give_back(buffer);
    }

    #[test]
    #[should_panic(expected = "a buffer that the kernel had")]
    fn a_buffer_is_taken_once_until_it_is_given_back() {
        let mut buffers = Buffers::new(1, 16);
        let buffer = take(&mut buffers, 0, 1);
        buffers.give_back(buffer);
        let _buffer = take(&mut buffers, 0, 1);
        take(&mut buffers, 0, 1);
    }

    #[test]
    fn no_more_than_a_whole_buffer_can_be_read() {
        let mut buffers = Buffers::new(2, 16);
        let buffer = take(&mut buffers, 1, 17);
        assert_eq!(buffers.bytes(&buffer), [0; 16]);
    }
}
