//! The ring of provided buffers (`IORING_REGISTER_PBUF_RING`, Linux 5.19): an idle socket holds no memory, the kernel
//! takes a buffer at the instant bytes arrive.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The kernel wants the ring on a page boundary.
const PAGE_BYTES: usize = 4096;

/// Memory that the kernel writes to. Freed when dropped: after the io_uring that it was registered with.
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    pool: NonNull<u8>,
    count: u16,
    buffer_bytes: usize,
    /// The next entry to fill; free-running, the kernel masks it.
    tail: u16,
}

impl Buffers {
    /// `count` must be a power of two of at most 32,768 (io_uring_register(2)).
    pub(crate) fn new(count: u16, buffer_bytes: usize) -> Self {
        assert!(count.is_power_of_two() && buffer_bytes > 0, "checked by DriverOptions");
        let mut buffers = Self {
            entries: allocate(Self::ring_layout(count)).cast(),
            pool: allocate(Self::pool_layout(count, buffer_bytes)),
            count,
            buffer_bytes,
            tail: 0,
        };
        for id in 0..count {
            buffers.give(id);
        }
        buffers
    }

    pub(crate) fn ring_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// The first `length` bytes of a buffer that the kernel has filled and that was not given back.
    pub(crate) fn bytes(&self, id: u16, length: usize) -> &[u8] {
        assert!(
            id < self.count && length <= self.buffer_bytes,
            "the kernel names only buffers that it was given"
        );
        let first = self.address(id);
        // SAFETY: `length` bytes from there are inside the pool by the assertion; they are initialised (zeroed at first,
        // then written by the kernel), and the kernel writes there again only after `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(first, length) }
    }

    /// Hands a buffer to the kernel.
    pub(crate) fn give(&mut self, id: u16) {
        assert!(id < self.count, "the kernel names only buffers that it was given");
        let address = self.address(id) as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`: inside the ring.
        let entry = unsafe { self.entries.as_ptr().add(index) };
        // SAFETY: aligned and initialised (zeroed). The kernel reads an entry only below the published tail, which does
        // not cover this one until the store below, so nobody reads it meanwhile.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` points at the first entry of the ring, whose reserved field is the tail (the definition of
        // `struct io_uring_buf_ring`).
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: aligned for u16, inside the ring, and written nowhere else.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entry's fields are visible to the kernel before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` is below `count` (asserted by both callers): inside the pool.
        unsafe { self.pool.as_ptr().add(usize::from(id) * self.buffer_bytes) }
    }

    fn ring_layout(count: u16) -> Layout {
        Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE_BYTES)
            .expect("at most 512 KiB, aligned to a power of two")
    }

    fn pool_layout(count: u16, buffer_bytes: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * buffer_bytes, PAGE_BYTES)
            .expect("DriverOptions bounds the pool far below isize::MAX")
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, freed once. The io_uring is gone by now (field order of its
        // owner), so the kernel takes no buffer any more.
        unsafe { dealloc(self.entries.as_ptr().cast(), Self::ring_layout(self.count)) };
        // SAFETY: likewise.
        unsafe { dealloc(self.pool.as_ptr(), Self::pool_layout(self.count, self.buffer_bytes)) };
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero (count >= 1, buffer_bytes >= 1).
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
