//! Carries events from Kafka partitions to the WebSocket clients that subscribed to them; each shard is a thread pinned to a
//! core.
//!
//! # The way of an event
//! ```text
//! kafka::consumer -> event::frame -> shard::owner -> shard::fanout -> shard::egress -> wire
//!                                              \-> shard::mesh -> another shard's fanout
//! accept (wire) -> websocket::handshake -> shard::connections::admission (a session)
//! websocket::inbound -> shard::commands -> event::channel_index
//!                                      \-> shard::mesh -> owners
//! ```
//! A session that resumes pulls what it missed: `shard::resume` -> the partition's owner (`shard::owner::history`), or
//! `kafka::replay` for older events -> `shard::outbox`.
//!
//! # Invariants
//! 1. **Encode once.** A record becomes one frame, and every session sends the same bytes.
//! 2. **One owner per partition.** Partition p of every topic belongs to shard `p % shards`, assigned by hand: no consumer group,
//!    no rebalance. Each gateway process sees all partitions.
//! 3. **Order.** Per channel and partition a session sees strictly increasing offsets: no duplicate, no reordering, and a hole
//!    only with a `gap` message.
//! 4. **Local first.** An owner delivers a frame to its own sessions before it tells the other shards. What it tells them stays
//!    in order, answers included, so whatever follows an answer happened after it.
//! 5. **The acknowledgement carries the cut.** It waits until every owner has said where a subscription begins; from there on
//!    nothing is missed. Where a subscription has a cursor, its events are delivered through the cursor only: once, and in order.
//! 6. **Nothing unbounded.** Every queue, buffer, table and loop has a named limit and a counter.
//! 7. **Fan-out marks, egress sends.** A broadcast only appends to outboxes; egress sends everything in an outbox with one send.
//! 8. **The hot path** never logs, formats, locks, reads configuration, or reads the clock per delivery.
//! 9. Shards share only numbers: sessions and sockets of the process, those of each address, drained shards, and the rates of
//!    handshakes. Otherwise threads exchange messages and, once a second, a copy of the counters.
//!
//! # Borders
//! `kafka` and `dev` import rdkafka; `shard::{executor, mesh}` and `preflight` import glommio; `config` reads the environment;
//! the crate `wire` makes the system calls on sockets and holds the unsafe code. Everything else is plain state, tested without a
//! socket, an executor or a clock. A test (`tests/gateway/tidy.rs`) enforces these borders.
#![forbid(unsafe_code)]

pub mod admission;
pub mod args;
pub mod check;
pub mod config;
pub mod counters;
pub(crate) mod dev;
pub mod event;
pub(crate) mod http;
pub mod kafka;
pub mod limits;
pub mod log;
pub(crate) mod monitor;
pub mod preflight;
pub mod process;
pub mod run;
pub mod shard;
pub(crate) mod shared;
pub mod websocket;
