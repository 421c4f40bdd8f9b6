//! The data that passes through the gateway: an event as a frame, its place in Kafka, and the sessions that want it. Below
//! everything that uses it.

pub mod channel_index;
pub(crate) mod coverage;
pub mod frame;
pub mod partition;
pub(crate) mod partitioner;
pub(crate) mod pull;
pub(crate) mod selection;
pub(crate) mod shard_set;
pub(crate) mod skipped;
pub(crate) mod topic_set;
pub(crate) mod wants;
