//! What the main thread monitors while the shards serve: whether each shard turns, and the process's resources.

pub(crate) mod overload;
pub(crate) mod shards;
