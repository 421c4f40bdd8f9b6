//! The counters of a shard, in plain cells: no atomics, no locks, no library on the way of an event.
//!
//! A shard owns one [`Counters`] and copies it once a second into its [`Snapshot`]; `http::metrics` renders the snapshots. Names,
//! labels and buckets of metrics are in `http::metrics`; the values of labels are in `labels`.

pub(crate) mod labels;
pub(crate) mod operations;

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
    /// Values up to each bound and above the previous one; the last count is for values above all bounds.
    pub counts: [u64; 17],
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    /// Adds a value `times` times to the buckets of `bounds`.
    pub fn observe(&mut self, bounds: &[f64; 16], value: f64, times: u64) {
        let bucket = bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += times;
        self.sum += value * times as f64;
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The counters of one shard since its start. A number only grows, unless its doc says "now".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: u64,
    /// Failures of accept(2) for lack of descriptors or memory.
    pub accept_errors: u64,
    /// Handshakes completed.
    pub sessions_opened: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Connections now: sessions, handshakes and closing sockets.
    pub connections: u64,
    /// Sessions ended.
    pub disconnects: ByLabel<13>,
    /// Connections that did not become a session.
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
    /// Operations that clients' messages cost.
    pub operations: u64,
    /// Pauses of reading a session.
    pub receive_pauses: ByLabel<4>,
    /// Sessions that are not read now because they exceeded their budget.
    pub sessions_paused: u64,
    /// Error messages to clients.
    pub client_errors: u64,
    /// Messages from clients beyond WS_MESSAGE_*.
    pub messages_rate_limited: u64,
    /// X-Forwarded-For headers that were ignored.
    pub forwarded_headers_ignored: u64,
    /// Turns that answered the maximum number of handshakes.
    pub handshakes_paced: u64,
    /// Channels that a client asked for and did not get.
    pub channels_rejected: u64,
    /// Bytes of clients' unfinished messages, and of unread bytes, now.
    pub inbound_bytes: u64,
    /// Records polled.
    pub records: u64,
    /// Records that became an event.
    pub records_framed: u64,
    /// Records that did not become an event.
    pub records_skipped: ByLabel<5>,
    /// 1 while no records are taken, now.
    pub is_paused: u64,
    /// Pauses of taking records.
    pub kafka_pauses: ByLabel<2>,
    /// Duration of those pauses, seconds.
    pub paused_s: f64,
    /// Gaps announced, one for each session and channel.
    pub gaps: ByLabel<8>,
    /// Frames (of events and gaps) appended to outboxes.
    pub frames_queued: u64,
    /// Of these: frames that are whole in a socket.
    pub frames_sent: u64,
    /// Of these: frames dropped because the session ended or unsubscribed.
    pub frames_discarded: u64,
    /// Of these: frames dropped for newer ones of their channels, and named by a gap.
    pub frames_conflated: u64,
    /// Outboxes in which newer frames replaced older ones.
    pub conflations: u64,
    /// Of these: frames in an outbox now.
    pub frames_waiting: u64,
    /// Of those queued: frames from the history or from Kafka, for sessions that resume.
    pub frames_replayed: u64,
    /// Frames handed to other shards.
    pub mesh_frames: u64,
    /// Turns in which no record was taken because a peer's queue was full.
    pub mesh_full: u64,
    /// Requests to other shards that wait for room, now.
    pub mesh_backlog: u64,
    /// Turns in which no client was read because of that backlog.
    pub mesh_backed_up: u64,
    /// Subscriptions that began in the past.
    pub resumes: u64,
    /// Channels that could not begin in the past, and were subscribed live.
    pub resumes_refused: u64,
    /// Deferred questions where subscriptions begin, now.
    pub questions_deferred: u64,
    /// Memory of the deferred questions, bytes, now.
    pub questions_deferred_bytes: u64,
    /// Questions that were answered at once with what was known, because too many were deferred.
    pub questions_hurried: u64,
    /// Deferred questions whose session ended before their answer.
    pub questions_withdrawn: u64,
    /// Sessions that have missed events to pull, now.
    pub resuming: u64,
    /// Cursors of those sessions, now.
    pub resume_cursors: u64,
    /// Times that a session waited for a replay because it had had two within the minute.
    pub replays_paced: u64,
    /// Frames in the history, now.
    pub history_frames: u64,
    /// Bytes of the history, now.
    pub history_bytes: u64,
    /// Frames evicted from the history.
    pub history_evicted: u64,
    /// Channels whose last frame is kept, now.
    pub last_values: u64,
    /// Channels whose last frame was evicted.
    pub last_values_evicted: u64,
    /// Records in a partition that their key does not belong to.
    pub records_misplaced: u64,
    /// Tokens remembered because of such records, now.
    pub tokens_misplaced: u64,
    /// Of those records: records whose token found no room.
    pub tokens_misplaced_dropped: u64,
    /// Bytes that the kernel took, of all frames and responses.
    pub bytes_sent: u64,
    /// Sends of which the kernel took at least one byte.
    pub sends: u64,
    /// Sends that a full socket accepted only in part.
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

/// A copy of a shard's counters, at most a second old, for the metrics page.
#[derive(Debug, Default)]
pub struct Snapshot(Mutex<Counters>);

impl Snapshot {
    /// Replaces the copy.
    pub fn store(&self, counters: &Counters) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *counters;
    }

    /// Returns the copy.
    pub fn load(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "tests/counters.rs"]
mod tests;
