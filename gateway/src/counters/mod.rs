//! What a shard counts, in plain cells: no atomics, no locks, no library on the way of an event.
//!
//! A shard owns one [`Counters`] and copies it once a second into its [`Snapshot`]; `http::metrics` renders the snapshots.
//! Every metric's name, label and bucket stands in `http::metrics`, every label's values stand here, as enums: never a label
//! per channel or client.

pub(crate) mod labels;
pub mod operations;

use std::sync::{Mutex, PoisonError};

pub use self::labels::*;

/// Upper bounds of the buckets of durations, seconds.
pub const DURATION_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds of the buckets of frames per send.
pub const FRAMES_BUCKETS: [f64; 16] =
    [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// A histogram of fixed buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Values up to each bound and above the one before; the last is for those above all bounds.
    pub counts: [u64; 17],
    /// Of all values.
    pub sum: f64,
}

impl Histogram {
    /// Counts a value, that many times, into the buckets of `bounds`.
    pub fn observe(&mut self, bounds: &[f64; 16], value: f64, times: u64) {
        let bucket = bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += times;
        self.sum += value * times as f64;
    }

    /// How many values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What one shard has counted since it started. Unless it says otherwise, a number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: u64,
    /// accept(2) failed for want of descriptors or memory.
    pub accept_errors: u64,
    /// Handshakes completed.
    pub sessions_opened: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Connections now: sessions, handshakes and closing sockets.
    pub connections: u64,
    /// Sessions ended.
    pub disconnects: ByLabel<13>,
    /// Connections that became no session.
    pub refusals: ByLabel<11>,
    /// Connections without a session that were reset because sockets ran short.
    pub sockets_evicted: u64,
    /// Plain HTTP requests.
    pub http_requests: ByLabel<5>,
    /// Channels and wildcards with a subscriber, now.
    pub channels: u64,
    /// Messages from clients.
    pub messages_received: u64,
    /// Bytes from clients, with headers.
    pub bytes_received: u64,
    /// Operations that their messages cost.
    pub operations: u64,
    /// Pauses of reading a session.
    pub receive_pauses: ByLabel<4>,
    /// Sessions that are not read because they have overdrawn their budget, now.
    pub sessions_paused: u64,
    /// Error messages to clients.
    pub client_errors: u64,
    /// Messages from clients beyond WS_MESSAGE_*.
    pub messages_rate_limited: u64,
    /// X-Forwarded-For that was not believed.
    pub forwarded_headers_ignored: u64,
    /// Turns that answered as many handshakes as a turn may.
    pub handshakes_paced: u64,
    /// Channels that a client asked for and did not get.
    pub channels_rejected: u64,
    /// Bytes of clients' unfinished messages, and of what waits to be read, now.
    pub inbound_bytes: u64,
    /// Records polled.
    pub records: u64,
    /// Records that became an event.
    pub records_framed: u64,
    /// Records that became no event.
    pub records_skipped: ByLabel<5>,
    /// 1 while no records are taken, now.
    pub is_paused: u64,
    /// Pauses of taking records.
    pub kafka_pauses: ByLabel<2>,
    /// How long they lasted, seconds.
    pub paused_s: f64,
    /// Gaps announced, one for each session and channel.
    pub gaps: ByLabel<8>,
    /// Frames (of events and gaps) appended to outboxes.
    pub frames_queued: u64,
    /// Of these: whole in a socket.
    pub frames_sent: u64,
    /// Of these: dropped, because the session ended or unsubscribed.
    pub frames_discarded: u64,
    /// Of these: dropped for newer ones of their channels, and named by a gap.
    pub frames_conflated: u64,
    /// Outboxes in which newer frames took the place of older ones.
    pub conflations: u64,
    /// Of these: in an outbox, now.
    pub frames_waiting: u64,
    /// Of those queued: from history or from Kafka again, for sessions that resume.
    pub frames_replayed: u64,
    /// Frames handed to other shards.
    pub mesh_frames: u64,
    /// Turns in which no record was taken because a peer's queue was full.
    pub mesh_full: u64,
    /// Requests to other shards for which there is no room, now.
    pub mesh_backlog: u64,
    /// Turns in which no client was read because of them.
    pub mesh_backed_up: u64,
    /// Subscriptions that began in the past.
    pub resumes: u64,
    /// Channels that could not begin in the past, and were subscribed without it.
    pub resumes_refused: u64,
    /// Questions where subscriptions begin that wait for their answer, now.
    pub questions_deferred: u64,
    /// Their memory, bytes, now.
    pub questions_deferred_bytes: u64,
    /// Such questions that were answered at once with what was known, because too many waited.
    pub questions_hurried: u64,
    /// Such questions whose session was gone before they were answered.
    pub questions_withdrawn: u64,
    /// Sessions that have something to pull of the past, now.
    pub resuming: u64,
    /// Cursors of those sessions, now.
    pub resume_cursors: u64,
    /// Times that a session waited to be read for again, because it had been twice within the minute.
    pub replays_paced: u64,
    /// Frames in the history, now.
    pub history_frames: u64,
    /// Bytes of the history, now.
    pub history_bytes: u64,
    /// Frames that the history had no more room for.
    pub history_evicted: u64,
    /// Channels whose last frame is kept, now.
    pub last_values: u64,
    /// Channels whose last frame had to go.
    pub last_values_evicted: u64,
    /// Records in another partition than their key's.
    pub records_misplaced: u64,
    /// Tokens that are remembered for it, now.
    pub tokens_misplaced: u64,
    /// Of the records, those whose token found no room.
    pub tokens_misplaced_dropped: u64,
    /// Bytes that the kernel took, of everything.
    pub bytes_sent: u64,
    /// Sends that the kernel took something of.
    pub sends: u64,
    /// Sends that a full socket cut short.
    pub sends_full: u64,
    /// From the poll of a record to its frame in a socket, seconds.
    pub latency_from_poll: Histogram,
    /// From the record's timestamp to its frame in a socket, seconds.
    pub latency_from_record: Histogram,
    /// Event frames of one send.
    pub frames_per_send: Histogram,
    /// One egress slice, seconds.
    pub slices: Histogram,
    /// The flush window in force, seconds.
    pub flush_window_s: f64,
    /// Turns of the loop.
    pub turns: u64,
    /// Sleeps of the loop.
    pub sleeps: u64,
    /// Receives that found no free buffer.
    pub buffers_exhausted: u64,
    /// Cancels that did not find their request, as the driver counts them.
    pub cancels_missed: u64,
    /// Receive buffers that are free, now.
    pub buffers_free: u64,
    /// Frames that some outbox holds, now.
    pub frames_held: u64,
}

/// A shard's counters as they were at most a second ago, for whoever renders them.
#[derive(Debug, Default)]
pub struct Snapshot(Mutex<Counters>);

impl Snapshot {
    /// Replaces the picture.
    pub fn store(&self, counters: &Counters) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *counters;
    }

    /// A copy of the picture.
    pub fn load(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "tests/counters.rs"]
mod tests;
