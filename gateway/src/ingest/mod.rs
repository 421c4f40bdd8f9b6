//! From Kafka to frames.
//!
//! Two threads meet here. A shard owns a [`consumer::Consumer`] and only ever polls it with a timeout of zero. The
//! control thread ([`control`]) makes every call of librdkafka that blocks: it creates consumers, reads metadata,
//! resolves offsets, assigns and seeks, and tells the shard by [`control::Note`]s. These two modules are the only ones
//! that import rdkafka (and `dev.rs`, which embeds a broker).
//!
//! Offsets are numbers before a partition is assigned: "the end" resolved later, by librdkafka, would lose what arrives
//! in between. Partitions are assigned by hand, never by a consumer group: each gateway process sees all partitions.

pub mod consumer;
pub mod control;
pub mod frame;
pub mod history;
pub mod last_values;
pub mod partition;
pub mod pull;
pub mod status;
