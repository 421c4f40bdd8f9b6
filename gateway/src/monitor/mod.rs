//! What the main thread looks after while the shards serve: whether each of them turns, and what the process uses.

pub mod overload;
pub mod shards;
