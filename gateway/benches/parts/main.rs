//! What the pure parts of an event's way cost: no socket is written to, no executor runs, nothing is sent.
//!
//! `cargo bench -p gateway`; see `baseline.md` for what it came to, and how to compare.

mod broadcast;
mod channels;
mod frame;
mod outbox;

use std::time::Instant;

use criterion::Criterion;
use gateway::event::frame::{Frame, Framer, Record};
use gateway::event::partition::Partition;
use gateway::shard::outbox::OutboxLimits;

/// Longest record, as configured by default.
const RECORD_BYTES_MAX: usize = 256 * 1024;

/// Wide enough that no part is refused.
const LIMITS: OutboxLimits = OutboxLimits { frames: 1024, bytes: 1024 * 1024, control_bytes: 4096 };

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frame::measure(&mut criterion);
    channels::measure(&mut criterion);
    broadcast::measure(&mut criterion);
    outbox::measure(&mut criterion);
    criterion.final_summary();
}

/// A value with which a message has about 256 bytes.
fn value() -> Vec<u8> {
    padded_value(180)
}

/// A JSON object of so many bytes, as a producer would send it.
fn padded_value(bytes: usize) -> Vec<u8> {
    let unpadded = r#"{"timestamp":1700000000000,"seq":123456,"pad":""}"#;
    let pad = "x".repeat(bytes.saturating_sub(unpadded.len()));
    format!(r#"{{"timestamp":1700000000000,"seq":123456,"pad":"{pad}"}}"#).into_bytes()
}

/// The frame of an event of `BTC.trade`.
fn trade(value: &[u8]) -> Frame {
    Framer::default().event(&record(value), RECORD_BYTES_MAX, Instant::now()).expect("a valid record")
}

fn record(value: &[u8]) -> Record<'_> {
    let partition = Partition { topic: 0, number: 7 };
    Record {
        token: "BTC",
        kind: "trade",
        partition,
        offset: 123_456,
        timestamp_ms: 1_700_000_000_000,
        value: Some(value),
    }
}
