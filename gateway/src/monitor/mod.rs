//! What the main thread monitors while the shards serve: whether each shard turns, and the process's resources.

pub mod overload;
pub mod shards;
