//! The work of a shard's thread for its clients, in operations: code that walks over names, frames, cursors or positions counts
//! the steps.
//!
//! An operation is one look at one of these (`limits::pacing` has its cost). The count is per thread, because the work for one
//! client spreads over many modules of its shard and no other thread: the caller that serves a client takes the difference.

use std::cell::Cell;

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Adds operations.
pub(crate) fn count(operations: usize) {
    DONE.set(DONE.get() + operations as u64);
}

/// All operations of this thread.
pub(crate) fn done() -> u64 {
    DONE.get()
}
