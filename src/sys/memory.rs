//! Memory that survives a fork as one piece (parent and children read and write the same pages), and what the heap
//! gives back.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crossbeam::utils::CachePadded;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// `N` counters in cache lines of their own.
pub type Block<const N: usize> = CachePadded<[AtomicU64; N]>;

/// An empty file in memory, of no folder; `name` is for /proc alone.
pub fn file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// From this size on a block of the heap is a mapping of its own, in bytes.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 128 * 1024;

/// Has the allocator give large blocks back as soon as they are freed, whatever sizes it has seen: glibc would take the
/// largest for usual, and keep up to 32 MiB of each size (mallopt(3), `M_MMAP_THRESHOLD`).
pub fn return_large_at_once() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives back what lies free between blocks in use (malloc_trim(3)). Takes about as long as clearing that memory.
pub fn return_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Blocks of `N` counters in anonymous `MAP_SHARED` memory, all zero at first.
pub struct SharedBlocks<const N: usize> {
    start: NonNull<Block<N>>,
    count: usize,
}

// SAFETY: the blocks are atomics, and the mapping lives until the drop of this, its only owner.
unsafe impl<const N: usize> Send for SharedBlocks<N> {}
// SAFETY: as above; a shared reference gives out shared references to atomics alone.
unsafe impl<const N: usize> Sync for SharedBlocks<N> {}

impl<const N: usize> SharedBlocks<N> {
    /// Maps `count` blocks.
    ///
    /// # Errors
    /// If there is no memory for so many.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn new(count: usize) -> io::Result<SharedBlocks<N>> {
        assert!(count > 0, "at least one block");
        // Half of the addresses is more than a mapping can have, and the most that a pointer can be moved by.
        let bytes =
            count.checked_mul(size_of::<Block<N>>()).filter(|bytes| *bytes <= isize::MAX as usize);
        let bytes = bytes.and_then(NonZeroUsize::new).ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address the kernel chooses aliases nothing.
        let start = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED) }?;
        Ok(SharedBlocks { start: start.cast(), count })
    }

    /// How many blocks there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The block at `index`.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block(&self, index: usize) -> &Block<N> {
        assert!(index < self.count, "no block {index} among {}", self.count);
        // SAFETY: within the mapping by the assertion.
        let block = unsafe { self.start.add(index) };
        // SAFETY: a mapping is aligned to a page, which a block divides; its zeroes are valid atomics; it
        // lives as long as self.
        unsafe { block.as_ref() }
    }
}

impl<const N: usize> Drop for SharedBlocks<N> {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<Block<N>>();
        // SAFETY: exactly the mapping made in `new`; no reference outlives self.
        let unmapped = unsafe { munmap(self.start.cast(), bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Words in `MAP_SHARED` memory, all zero at first. A page of them takes memory when it is written for the first time,
/// and none before, whatever the kernel's rules for memory that is promised.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the words are atomics, and the mapping lives until the drop of this, its only owner.
unsafe impl Send for SharedWords {}
// SAFETY: as above; a shared reference gives out shared references to atomics alone.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `count` words; `name` is for /proc alone.
    ///
    /// # Errors
    /// If there are no addresses for so many, or no file can be opened for them.
    pub fn new(name: &str, count: usize) -> io::Result<SharedWords> {
        let bytes = count.checked_mul(size_of::<AtomicU64>());
        // Half of the addresses is the most that a pointer can be moved by.
        let bytes = bytes.filter(|bytes| *bytes <= isize::MAX as usize).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let file = file(name)?;
        file.set_len(bytes.get() as u64)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses aliases nothing; the file, which has the name of no
        // folder and is closed here, keeps its length.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(SharedWords { start: start.cast(), count })
    }

    /// All of them.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: exactly the mapping made in `new`: it is aligned to a page, its zeroes are valid atomics, and it lives
        // as long as self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<AtomicU64>();
        // SAFETY: exactly the mapping made in `new`; no reference outlives self.
        let unmapped = unsafe { munmap(self.start.cast(), bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_start_at_zero_and_more_than_there_are_addresses_are_refused() {
        // More than this machine has memory for.
        let words = SharedWords::new("test", 1 << 38).expect("addresses alone");
        let last = words.words().last().expect("a word");
        assert_eq!(last.swap(7, Ordering::Relaxed), 0);
        assert_eq!(words.words()[(1 << 38) - 1].load(Ordering::Relaxed), 7);
        for count in [0, usize::MAX / 8 + 2, usize::MAX] {
            let error = SharedWords::new("test", count).err().expect("refused");
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{count}");
        }
    }

    #[test]
    fn blocks_share_no_cache_line_and_start_at_zero() {
        let blocks = SharedBlocks::<3>::new(2).unwrap();
        let first = blocks.block(0) as *const _ as usize;
        let second = blocks.block(1) as *const _ as usize;
        assert!(second - first >= 64);
        assert_eq!(blocks.block(1)[2].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_blocks_than_there_are_addresses_are_refused() {
        let block = size_of::<Block<1>>();
        for count in [usize::MAX / block + 2, usize::MAX, isize::MAX as usize / block + 1] {
            let error = SharedBlocks::<1>::new(count).err().expect("refused");
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{count}");
        }
    }

    #[test]
    #[should_panic(expected = "no block 2 among 2")]
    fn a_block_past_the_end_is_refused() {
        SharedBlocks::<1>::new(2).unwrap().block(2);
    }
}
