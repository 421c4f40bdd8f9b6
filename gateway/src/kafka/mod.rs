//! From Kafka to the shards.
//!
//! Three kinds of threads meet here. A shard owns a `consumer::Consumer` and only polls it with a timeout of zero. The control
//! thread (`control`) makes every call of librdkafka that blocks: it creates consumers, reads metadata, resolves offsets,
//! assigns and seeks, and tells the shard by `control::ControlReply`s. The replay threads (`replay`) read partitions again,
//! with consumers of their own. Besides these modules, only `record`, which reads messages, and `dev.rs`, which embeds a
//! broker, import rdkafka.
//!
//! Offsets are numbers before a partition is assigned: "the end", resolved later by librdkafka, would lose what arrives in
//! between. Partitions are assigned by hand, never by a consumer group: each gateway process sees all partitions.

pub(crate) mod consumer;
pub mod control;
pub(crate) mod polled;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod status;
pub(crate) mod trouble;
