//! How much a shard's thread has done for its clients: whatever walks over names, frames, cursors or positions says over how many.
//!
//! An operation is one of them looked at (`limits::pacing` says what that takes). Counted by thread, because what one client asks is
//! done in many rooms of its shard and nowhere else: who serves a client takes the difference.

use std::cell::Cell;

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// So many were done.
pub fn count(operations: usize) {
    DONE.set(DONE.get() + operations as u64);
}

/// All that this thread has done.
pub fn done() -> u64 {
    DONE.get()
}
