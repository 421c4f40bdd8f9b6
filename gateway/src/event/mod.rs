//! The data that passes through the gateway: an event as a frame, its place in Kafka, and the sessions that want it. Below
//! everything that uses it.

pub mod channel_index;
pub mod coverage;
pub mod frame;
pub mod partition;
pub mod partitioner;
pub mod pull;
pub(crate) mod selection;
pub mod shard_set;
pub mod skipped;
pub mod topic_set;
pub mod wants;
