//! The ring of provided buffers (`IORING_REGISTER_PBUF_RING`, Linux 5.19): an idle socket holds no memory, because the kernel
//! takes a buffer only when bytes arrive.
//!
//! A buffer belongs to the kernel or, as a [`BufferId`], to the owner. There is one `BufferId` for each buffer that the kernel
//! has filled, it cannot be copied, and returning the buffer consumes it: so no code reads a buffer while the kernel may write
//! to it, and no buffer is returned twice.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// `struct io_uring_buf`.
#[repr(C)]
struct Entry {
    address: u64,
    length: u32,
    id: u16,
    /// In the first entry this is the ring's tail (the union in `struct io_uring_buf_ring`), which the kernel reads at any
    /// time; therefore no reference is ever made to an entry.
    reserved: u16,
}

const _: () = assert!(size_of::<Entry>() == 16 && offset_of!(Entry, reserved) == 14, "the kernel's layout");

/// A buffer that the kernel has filled and that is not returned yet.
#[derive(Debug)]
pub struct BufferId(u16);

impl BufferId {
    /// A buffer id for the fake, which has no such memory.
    #[cfg(test)]
    pub(crate) fn imagined(id: u16) -> Self {
        Self(id)
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> usize {
        usize::from(self.0)
    }
}

/// Memory that the kernel writes to. Dropped after the io_uring that it was registered with.
pub(crate) struct Buffers {
    entries: NonNull<Entry>,
    entries_layout: Layout,
    pool: NonNull<u8>,
    pool_layout: Layout,
    count: u16,
    buffer_bytes: usize,
    /// The next entry to fill; free-running, the kernel masks it.
    tail: u16,
    /// Which buffers belong to the owner, and how many.
    is_taken: Vec<bool>,
    taken: usize,
}

impl Buffers {
    /// `count` must be a power of two of at most 32,768 (io_uring_register(2)), `page_bytes` the system's page size: the kernel
    /// requires the ring on a page boundary.
    pub(crate) fn new(count: u16, buffer_bytes: usize, page_bytes: usize) -> Self {
        assert!(count.is_power_of_two() && buffer_bytes > 0, "checked by DriverOptions");
        let entries_layout = Layout::from_size_align(usize::from(count) * size_of::<Entry>(), page_bytes)
            .expect("at most 512 KiB, aligned to a power of two");
        let pool_layout = Layout::from_size_align(usize::from(count) * buffer_bytes, page_bytes)
            .expect("DriverOptions bounds the pool far below isize::MAX");
        let mut buffers = Self {
            entries: allocate(entries_layout).cast(),
            entries_layout,
            pool: allocate(pool_layout),
            pool_layout,
            count,
            buffer_bytes,
            tail: 0,
            is_taken: vec![true; usize::from(count)],
            taken: usize::from(count),
        };
        for id in 0..count {
            buffers.give(BufferId(id));
        }
        buffers
    }

    pub(crate) fn ring_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// The number of buffers that belong to the owner.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Takes the buffer of a completion; the kernel reports a buffer once each time it was given the buffer.
    pub(crate) fn take(&mut self, id: u16) -> BufferId {
        let is_taken =
            self.is_taken.get_mut(usize::from(id)).expect("the kernel names only buffers that it was given");
        assert!(!std::mem::replace(is_taken, true), "the kernel names a buffer once");
        self.taken += 1;
        BufferId(id)
    }

    /// The first `length` bytes of a buffer.
    pub(crate) fn bytes(&self, id: &BufferId, length: usize) -> &[u8] {
        assert!(
            length <= self.buffer_bytes && self.is_taken[usize::from(id.0)],
            "the kernel fills what it was given"
        );
        let first = self.address(id);
        // SAFETY: `length` bytes from there are inside the pool by the assertion; they are initialised (zeroed at first,
        // then written by the kernel), and the kernel writes there again only after `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(first, length) }
    }

    /// Returns a buffer to the kernel.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a buffer that was given back must not be used any more"
    )]
    pub(crate) fn give(&mut self, id: BufferId) {
        assert!(
            std::mem::replace(&mut self.is_taken[usize::from(id.0)], false),
            "a name of another ring's buffer"
        );
        self.taken -= 1;
        let address = self.address(&id) as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`: inside the ring.
        let entry = unsafe { self.entries.as_ptr().add(index) };
        // SAFETY: (This and the next two.) In bounds and aligned, as above. The kernel reads these three fields only below
        // the published tail, which does not cover this entry until the store below. The fourth field, which in the first
        // entry the kernel reads at any time, is not touched, and no reference is made that would cover it.
        unsafe { (*entry).address = address };
        // SAFETY: as above.
        unsafe { (*entry).length = self.buffer_bytes as u32 };
        // SAFETY: as above.
        unsafe { (*entry).id = id.0 };
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the address of a field of the first entry, which always exists.
        let tail = unsafe { &raw mut (*self.entries.as_ptr()).reserved };
        // SAFETY: aligned for u16, inside the ring for as long as `self`, and otherwise accessed only by the kernel, which
        // reads it as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        // Release: the entry's fields are visible to the kernel before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: &BufferId) -> *mut u8 {
        let offset = usize::from(id.0) * self.buffer_bytes;
        assert!(id.0 < self.count);
        // SAFETY: inside the pool, which has `count` buffers.
        unsafe { self.pool.as_ptr().add(offset) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        #[cfg(test)]
        FREED.with(|freed| freed.set(freed.get() + 1));
        // SAFETY: allocated in `new` with the same layout, freed once. The io_uring is already dropped (`Uring::drop`), so the
        // kernel takes no more buffers.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.entries_layout) };
        // SAFETY: as above.
        unsafe { dealloc(self.pool.as_ptr(), self.pool_layout) };
    }
}

#[cfg(test)]
thread_local! {
    /// The number of rings of buffers whose memory this thread has freed.
    pub(crate) static FREED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The system's page size, which is not 4 KiB everywhere.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf(3) takes an integer and touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every Linux tells it")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero (count >= 1, buffer_bytes >= 1).
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_lies_on_a_boundary_of_the_systems_pages() {
        for page_bytes in [page_bytes(), 64 << 10] {
            let rings: Vec<_> = (0..8).map(|_| Buffers::new(1, 1, page_bytes)).collect();
            for ring in &rings {
                assert_eq!(ring.ring_address() % page_bytes as u64, 0, "pages of {page_bytes} bytes");
            }
        }
    }

    #[test]
    fn what_is_written_to_entries_leaves_the_tail_alone() {
        let mut buffers = Buffers::new(2, 8, page_bytes());
        let tail = |buffers: &Buffers| {
            // SAFETY: the first entry; nothing writes to it meanwhile.
            unsafe { (*buffers.entries.as_ptr()).reserved }
        };
        assert_eq!(tail(&buffers), 2);
        for given in 3..1000u16 {
            let id = buffers.take(given % 2);
            assert_eq!((buffers.taken(), buffers.bytes(&id, 8)), (1, &[0; 8][..]));
            buffers.give(id);
            assert_eq!((buffers.taken(), tail(&buffers)), (0, given));
        }
    }

    #[test]
    #[should_panic(expected = "the kernel names a buffer once")]
    fn a_buffer_that_is_out_cannot_be_taken_again() {
        let mut buffers = Buffers::new(2, 8, page_bytes());
        let _first = buffers.take(1);
        buffers.take(1);
    }
}
