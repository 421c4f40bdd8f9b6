//! Carries events from Kafka partitions to the WebSocket clients that subscribed to them, one pinned core a shard.
//!
//! # The way of an event
//! ```text
//! kafka::consumer -> event::frame -> shard::owner -> shard::fanout -> shard::egress -> wire
//!                                                \-> shard::mesh -> another shard's fanout
//! accept (wire) -> websocket::handshake -> shard::connections::admission (a session)
//! websocket::inbound -> shard::commands -> event::channels
//!                                      \-> shard::mesh -> owners
//! ```
//! A session that comes back for what it missed pulls it: `shard::resume` -> the partition's owner (`shard::owner::history`), or
//! `kafka::replay` for what is older -> `shard::outbox`.
//!
//! # Invariants
//! 1. **Encode once.** A record becomes one frame; every session sends those same bytes.
//! 2. **One owner per partition.** Partition p of every topic belongs to shard `p % shards`, assigned by hand: no consumer
//!    group, no rebalance. Each gateway process sees all partitions.
//! 3. **Order.** Per channel and partition a session sees offsets strictly increasing: no duplicate, no reorder, and a hole
//!    only with a `gap` message.
//! 4. **Local first.** An owner delivers a frame to its own sessions before it tells the other shards, and what it tells them
//!    stays in order, answers included. So whatever it tells after an answer happened after it.
//! 5. **The acknowledgement carries the cut.** It waits until every owner has said where a subscription begins; from there on
//!    nothing is missed. Where a subscription has a cursor, its events come through the cursor only: once, and in order.
//! 6. **Nothing unbounded.** Every queue, buffer, table and loop has a named limit and a counter for what happens at it.
//! 7. **Publish marks, egress sends.** A broadcast only appends to outboxes; egress sends all that an outbox holds in one
//!    send.
//! 8. **The hot path** never logs, formats, locks, reads configuration, or reads the clock per delivery.
//! 9. A shard shares nothing mutable with another but numbers: of the process's sessions and sockets, of each address's, of the
//!    shards that have drained, and the rates of its handshakes. What passes between threads are messages and, once a second, a copy of the counters.
//!
//! # Who may touch what
//! `kafka::{consumer, control, record, replay::reader}` and `dev` import rdkafka; `shard::{executor, mesh}` and
//! `preflight` import glommio; `config` reads the environment; `wire`, a crate of its own, makes the system calls on sockets
//! and holds all the unsafe code. Everything else is plain state, tested without a socket, an executor or a clock. A test
//! (`tests/gateway/tidy.rs`) holds these lines.
#![forbid(unsafe_code)]

pub mod admission;
pub mod args;
pub mod check;
pub mod config;
pub mod counters;
pub mod dev;
pub mod event;
pub mod http;
pub mod kafka;
pub mod limits;
pub mod log;
pub mod monitor;
pub mod preflight;
pub mod process;
pub mod run;
pub mod shard;
pub mod shared;
pub mod websocket;
