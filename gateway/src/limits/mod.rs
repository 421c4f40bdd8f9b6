//! Every hard limit of the gateway that is not configurable, with the reason for its value.
//!
//! Operators choose the values in [`crate::config`]; `configured` has their ranges. `relations` asserts the relations between
//! limits at compile time. Plain constants, for any thread.

pub(crate) mod configured;
pub(crate) mod kafka;
pub(crate) mod pacing;
pub(crate) mod relations;
pub(crate) mod replay;

use std::time::Duration;

pub use configured::*;
pub use kafka::*;
pub use pacing::*;
pub use replay::*;

/// Bytes in a KiB.
pub const KIB: usize = 1024;
/// Bytes in a MiB.
pub const MIB: usize = 1024 * KIB;
/// Bytes in a GiB.
pub const GIB: usize = 1024 * MIB;

// A turn of the shard loop: a slice, completions, control bytes, records, owner events and requests of the peers, resumes,
// timers, and the ends of sessions that were too slow. Each has a limit of its own, and together they stay below TURN_DELAY_MAX.
// Only a single step can exceed it: a broadcast to every session of the shard (12,000 sessions: 0.12 ms if they are in the cache,
// 0.4 ms if not), or a layout or a gap that concerns every session, when partitions start or lose records.

/// Completions taken from the ring in a turn: about a millisecond for clients that send little.
pub const COMPLETIONS_PER_TURN: usize = 512;
/// Maximum time for completions in a turn, whatever the clients send: a subscribe that begins in the past takes some 20 us.
pub const HARVEST_DURATION: Duration = Duration::from_millis(1);
/// The part of it reserved for sessions that wait for their slice (three slices): a thousand clients that ask for little, and
/// always have something in the ring, leave them this much.
pub const STASHES_DURATION: Duration = Duration::from_micros(250);
/// Completions between two looks at the clock.
pub const COMPLETIONS_PER_LOOK: usize = 16;
/// Sends of one egress slice: the slice's millisecond at 2 us a send.
pub const SENDS_PER_SLICE: usize = 512;
/// Maximum duration of an egress slice, whatever the sends cost. The last batch is finished.
pub const SLICE_DURATION: Duration = Duration::from_millis(1);
/// Connections that are reset in a slice: each is cancelled in the kernel, which takes at least 2 us.
pub const RESETS_PER_SLICE: usize = 64;
/// Operations (a look at a session or a frame: 10 ns in the cache, 40 ns outside) between two looks at the clock, in every part
/// of a turn that has a time limit: 40 to 160 us, below 200 us. A step is always finished: one broadcast is as many operations as
/// its channel has subscribers.
pub const OPERATIONS_PER_LOOK: u64 = 4096;
/// Maximum operations of such a part of a turn, whatever the clock shows: it may stand still, or jump.
pub const OPERATIONS_PER_TIME_SLICE: u64 = 16 * OPERATIONS_PER_LOOK;
/// Operations that a step counts besides its looks: polling and framing a record takes a microsecond, and a timer or an owner
/// event costs about as much.
pub const OPERATIONS_PER_STEP: usize = 32;
/// Operations of a session's end besides its subscriptions and its frames.
pub const OPERATIONS_PER_END: usize = 256;
/// Maximum time for taking records from Kafka in a turn. The rest stays in librdkafka's queue.
pub const DRAIN_DURATION: Duration = Duration::from_micros(400);
/// Maximum time for owner events of the peers in a turn, and for their requests. The rest stays in the queues of the mesh.
pub const EXCHANGE_DURATION: Duration = Duration::from_micros(400);
/// Maximum time in a turn for timers, for ending sessions that were too slow or broke, and for closing sessions of a drain; each
/// has as much.
pub const ENDINGS_DURATION: Duration = Duration::from_micros(200);
/// Handshakes answered in a turn. One costs about 35 us, so a storm of them takes a millisecond of each turn, not all of it.
pub const HANDSHAKES_PER_TURN: usize = 32;
/// Records taken from Kafka in a turn. Few, so that the first of a burst are in their sockets before the last are framed.
pub const RECORDS_PER_TURN: usize = 32;
/// Timers that fire in a turn: after a pause of the machine every session's ping is due at once.
pub const TIMERS_PER_TURN: usize = 512;
/// Sessions closed by a drain in a turn. With WS_DRAIN=0s all are due at once, and each is removed from its channels.
pub const DRAINED_PER_TURN: usize = 128;
/// Maximum sleep of an idle shard: the most that a missed wake-up costs.
pub const SLEEP_MAX: Duration = Duration::from_millis(50);
/// How long the gateway waits for a taken port: longer than the kernel takes to close the sockets of a killed gateway.
pub const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Interval of those attempts.
pub const PORT_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Interval of the main thread's checks whether each shard turns.
pub const WATCHDOG_TICK: Duration = Duration::from_secs(1);
/// Checks in a row without a turn of a shard that was not waiting for a CPU, after which the process ends. Long enough for a disk
/// from which a page of the program is read; shorter than clients would wait for events.
pub const WATCHDOG_TICKS_MAX: u32 = 10;
/// After this long without a turn of some shard, the gateway is neither healthy nor ready. A shard turns far more often on a
/// machine with some CPU left.
pub const SHARD_SILENCE_MAX: Duration = Duration::from_secs(5);
/// Maximum delay of a ping, an accept or another session's frame by one turn, when every part of it takes its maximum.
pub const TURN_DELAY_MAX: Duration = Duration::from_millis(4);

// A connection.

/// The request line and headers of a handshake together. Browsers send all cookies of a site, and heads with 8.7 KB of cookies
/// have been seen. A handshake holds only what its client has sent so far.
pub const HANDSHAKE_BYTES: usize = 16 * KIB;
/// From the accept to the end of the handshake's headers. A client that sends byte by byte holds a slot no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum duration of a handshake, however much lies unread meanwhile.
pub const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(2 * HANDSHAKE_TIMEOUT.as_secs());
/// From the first byte of a client's message to its last. tungstenite reserves what a header announces, so an unfinished
/// message holds memory.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of pings. Below the 30 s after which common proxies drop silent connections.
pub const PING_INTERVAL: Duration = Duration::from_secs(27);
/// A session without any frame from its client for this long is closed: two pings were not answered.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// From the gateway's close frame to the peer's FIN; then the socket is closed regardless.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// The control part of an outbox: the newest pong, acknowledgements and errors. A client that asks faster than it reads is
/// closed.
pub const CONTROL_BYTES: usize = 4 * KIB;
/// A channel or pattern: a token, the dot, a kind.
pub const CHANNEL_NAME_BYTES: usize = protocol::channel::NAME_BYTES_MAX;
/// Maximum length of a server's WebSocket frame header (RFC 6455, 5.2: unmasked, 64-bit length).
pub const FRAME_HEADER_BYTES: usize = 10;
/// Bytes of an event frame besides the record's value. Rounded up, so that the envelope can gain a field without a change of
/// WS_MAX_RECORD_BYTES' default.
pub const ENVELOPE_BYTES: usize = 512;

/// Retry-After of a draining gateway: others take its place, and by then a proxy has noticed that it is not ready.
pub const RETRY_AFTER_DRAINING: Duration = Duration::from_secs(1);
/// Retry-After at WS_MAX_CONNECTIONS: sessions end from time to time.
pub const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);
/// Retry-After of an overloaded gateway: the decision takes several readings of a second each, and the other gateways of a fleet
/// need some time to help.
pub const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(10);
/// Addresses whose rates are counted, in all shards together: 6 MiB. An address is forgotten when its burst is full again, so
/// with the defaults (10 s to fill, 50 accepted a second) there are 1,000.
pub const RATE_LIMIT_ADDRESSES: usize = 65_536;

// A shard.

/// Memory of clients' unfinished messages, and as much again of bytes that are not read yet. Beyond it, a session that sends more
/// is closed if it has more than its equal share, so each memory is at most twice this.
pub const INBOUND_BYTES_PER_SHARD: usize = 64 * MIB;
/// Bytes of one system call's sends at which no further send is added: the kernel copies this many in about 200 us.
pub const BATCH_BYTES: usize = MIB;
/// Bytes gathered for one session's send: about as many as a socket's send buffer takes at once; more would be copied again
/// later.
pub const GATHER_BYTES_PER_SESSION: usize = 256 * KIB;
/// Bytes sent at once to a session with control bytes: its answers, and a few of the events behind them. Small, so that many such
/// sessions delay events little, and frequent questions do not bring events much earlier.
pub const CONTROL_SEND_BYTES: usize = 16 * KIB;
/// Sends of one system call; the slice looks at the clock after each. 256 sends take 500 to 800 us. With 64, a delivery of
/// `fanout` at 25/s costs 2% more CPU, and answers to other sessions are no faster.
pub const SENDS_PER_BATCH: usize = 256;
/// Sessions of a queue that are looked at for a batch: sessions that have nothing to send any more are skipped in 10 to 40 ns.
pub const LOOKS_PER_BATCH: usize = 4 * SENDS_PER_BATCH;
/// Requests that fit into the ring at a time, receives and accepts included.
pub const RING_BATCH: usize = 256;
/// Sends of one system call for sessions that resume, which get up to `GATHER_BYTES_PER_SESSION` each: a live event may wait for
/// one batch.
pub const BULK_SENDS_PER_BATCH: usize = 2;
/// Bytes of answers that may wait while the socket still takes bytes, because egress has merely not had its turn.
pub const CONTROL_BURST_BYTES: usize = 64 * KIB;
/// Sockets beyond WS_MAX_CONNECTIONS, so that refused clients learn why and /health answers at the limit.
pub const SOCKETS_SPARE: usize = 512;
/// When fewer of a shard's sockets are free, the address with the most connections without a session loses its oldest one. Part
/// of the spare sockets: a gateway with WS_MAX_CONNECTIONS sessions has no shortage.
pub const SOCKETS_SHORT: usize = SOCKETS_SPARE / 2;
/// When fewer sockets are free, the oldest connection without a session is reset, whatever its address: these sockets are
/// reserved for health checks and scrapes.
pub const SOCKETS_FOR_PROBES: usize = SOCKETS_SPARE / 4;
/// Connections without a session from which on an address may lose its oldest. A balancer that checks health, or a node whose
/// agent does and is scraped, has a few at a time; a shortage caused by addresses with fewer takes at least 30 of them.
pub const SESSIONLESS_MANY: u32 = 8;
/// How long an answered connection is not reset: its answer leaves the process with the next slice, and on most networks is
/// retransmitted at most once.
pub const ENDING_PATIENCE: Duration = Duration::from_millis(100);
/// Answered connections beyond which the oldest is reset even earlier: more than can be answered in three turns, so its answer
/// was sent. Otherwise a crowd that asks and does not close would take every socket.
pub const ENDINGS_YOUNG: u64 = 4 * HANDSHAKES_PER_TURN as u64;
/// Accepts of one turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections that are reset in a turn while sockets are short: as many as can be accepted. One costs about 20 us.
pub const EVICTIONS_PER_TURN: usize = ACCEPTS_PER_TURN;
/// A smaller session is never closed for memory. A client that reads uses a few hundred bytes, apart from an unfinished message,
/// and the maximum of sessions with this much use 375 MiB.
pub const SESSION_BYTES_LARGE: u64 = 32 * KIB as u64;
/// Sessions whose memory is estimated in a turn while the process exceeds WS_MEMORY_LIMIT: some 50 us.
pub const SESSIONS_WEIGHED_PER_TURN: usize = 256;
/// The largest sessions of a shard that are closed at once for memory.
pub const SESSIONS_SHED_PER_ROUND: usize = 128;
/// Minimum time until the next of those rounds: a reading of the memory in between takes account of the closed sessions.
pub const SHED_INTERVAL: Duration = Duration::from_secs(2);
/// Large sessions are closed if they hold at least this part (1 in n) of the shard's share of the excess. A part suffices: the
/// estimates include neither what the allocator keeps nor how unevenly the kernel spreads large sessions over shards.
pub const SHED_WORTH_PARTS: u64 = 4;
/// Sessions are closed until this part (1 in n) of WS_MEMORY_LIMIT would be free: new sessions are refused until then.
pub const MEMORY_MARGIN_PARTS: u64 = 20;
/// Descriptors of a shard that are not clients' sockets: librdkafka's connections, rings, logs.
pub const DESCRIPTORS_SPARE: usize = 256;
/// Receive buffers of a shard. While all are in use, bytes wait in the kernel.
pub const RECEIVE_BUFFERS: u16 = 2048;
/// Bytes of a receive buffer: most client messages fit.
pub const RECEIVE_BUFFER_BYTES: usize = 2 * KIB;
/// How long the process waits for librdkafka's consumers to close; they may be in a call to an unreachable broker.
pub const CONTROL_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a shard copies its counters for /metrics and /health.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum age of health pages: older ones show that the main thread, which renders them once a second, no longer works.
pub const PAGES_AGE_MAX: Duration = Duration::from_secs(30);

/// Shards of a process: a set of them is one word.
pub const SHARDS_MAX: usize = 64;
/// Owner events in a queue of the mesh. A peer takes a quarter of them in a turn.
pub const MESH_NEWS: usize = 1024;
/// Requests in a queue of the mesh.
pub const MESH_REQUESTS: usize = 1024;
/// Requests without room at which a shard stops reading clients: the messages already received from one client can cause as many
/// again.
pub const MESH_BACKLOG: usize = 4096;
/// Maximum sleep of a shard while a queue of the mesh is full, because nobody wakes it when there is room.
pub const MESH_FULL_NAP: Duration = Duration::from_millis(1);
/// Owner events of the peers taken in a turn.
pub const NEWS_PER_TURN: usize = 256;
/// Requests of the peers answered in a turn.
pub const REQUESTS_PER_TURN: usize = 256;
/// Interval of gaps about one partition's skipped records: a producer without keys must not cause a message for each record.
pub const SKIPPED_INTERVAL: Duration = Duration::from_secs(1);
/// Ranges of skipped records kept for a partition, or collected for a cursor: 1 KiB. Beyond it the oldest two are merged.
pub const SKIPPED_RANGES: usize = 64;
/// Pulls of a shard that its peers have not answered. Their answers share a queue with live events, which wait for at most this
/// many chunks.
pub const PULLS_OUT: usize = 8;
/// Sessions checked for room before one pull: thousands that do not read are checked every [`PULL_PAUSE`].
pub const PULLERS_PER_STEP: usize = 64;
/// How long a resuming session without room waits, and at first a cursor whose owner has no frame yet.
pub const PULL_PAUSE: Duration = Duration::from_millis(5);
/// Maximum wait of a cursor whose owner still has no frame: the wait doubles up to this.
pub const PULL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long an owner defers a question for the brokers, or for its history: then it answers with what it knows.
pub const BEGIN_PATIENCE: Duration = Duration::from_secs(4);
/// How long an acknowledgement waits for partitions to start: then it lists those that have not.
pub const ACK_PATIENCE: Duration = Duration::from_secs(5);
const _: () = assert!(BEGIN_PATIENCE.as_millis() < ACK_PATIENCE.as_millis());
/// Subscriptions of one session's resumes, including those that were unsubscribed meanwhile.
pub const RESUME_STARTS: usize = 2048;
/// Messages of one session's resumes. Each has a place in every partition, so this many use some 4 MiB.
pub const RESUME_MESSAGES: usize = 512;
/// Deferred questions at one owner: twice the default number of sessions, all of which may reconnect to a gateway that has just
/// started. Further questions are answered with what is known.
pub const QUESTIONS_DEFERRED: usize = 32_768;
/// Deferred questions of one session: more than a client needs that sends a message for each of its channels, and few enough that
/// only hundreds of sessions together reach the common limit.
pub const QUESTIONS_DEFERRED_PER_SESSION: usize = 64;
/// Bytes of deferred questions. A client that names a few channels uses about 1 KiB; one that resumes two wildcards in each of 96
/// partitions uses 9 KiB with a single shard (4 KiB of positions; the rest is per partition of the shard), 106 MiB for the
/// default 12,000 sessions.
pub const QUESTIONS_DEFERRED_BYTES: usize = 128 * MIB;
/// Starts, positions and partitions that an owner looks at in a turn to answer questions, some 20 ns each; one question may
/// exceed it.
pub const OWNER_OPERATIONS_PER_TURN: u64 = 8192;
/// Additional operations of a question: its session's acknowledgement and cursors are looked at.
pub const OWNER_OPERATIONS_PER_ANSWER: u64 = 64;
/// Starts and positions of a question that its owner answers at once. A larger one is answered in a step of its own, so that the
/// shard that read a client's message does not also answer it between two looks at the clock. Few clients name that many.
pub const QUESTION_OPERATIONS_AT_ONCE: usize = 128;
/// Interval of questions to brokers that could not tell the end of a log: it delays only the deferred question.
pub const END_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Cursors of one shard's sessions: as many as 10,000 sessions have that resume all of 96 partitions. About 150 bytes each.
pub const CURSORS_PER_SHARD: usize = 1 << 20;
/// Replays from Kafka that one session may have at once.
pub const REPLAYS_BURST: u32 = 2;
/// Time after which a session may have another replay: a client that reconnects needs one.
pub const REPLAYS_INTERVAL: Duration = Duration::from_secs(30);
/// A resume that begins within this time after a permitted one shares its bytes: a client may reconnect and subscribe channel by
/// channel, each after the previous answer.
pub const REPLAYS_SHARED: Duration = Duration::from_secs(2);
/// A shared resume counts for this part (1 in n) of the bytes beside what it reads: one that is cancelled before its first record
/// costs the replay threads a seek.
pub const REPLAYS_SHARED_PARTS: u64 = 32;
/// Unanswered requests of one client: a client that pipelines more does not read the answers.
pub const ANSWERS_PENDING: usize = 1024;
/// How often a starting shard checks whether its partitions have started.
pub const READY_INTERVAL: Duration = Duration::from_millis(20);
/// How long a partition without a record delays the warm-up: its broker is silent, or refuses. Then the partition counts as
/// filled, and later records are delivered.
pub const WARMUP_QUIET: Duration = Duration::from_secs(10);
/// Bytes of frames in one chunk of a resume; a larger frame is a chunk of its own.
pub const CHUNK_BYTES: usize = 64 * KIB;
/// How far inside the history, at most, a replay ends: a cursor must reach the edge of the history faster than the edge moves on.
pub const HISTORY_MARGIN_FRAMES: usize = 16_384;
/// Frames looked at for one chunk: a session that wants one channel of many must not block the shard.
pub const FRAMES_PER_PULL: usize = 4096;
/// Average memory per channel for the newest frames (WS_LAST_VALUES): an event of common size and its place in the table.
pub const LAST_VALUE_BYTES: usize = KIB;

/// Tokens remembered because a record of them was in a partition that they do not belong to: 16 MiB at common lengths.
pub const STRAY_TOKENS_MAX: usize = 1 << 17;
/// Former numbers of partitions that are remembered per topic: a topic that changes more often is not followed.
pub const PARTITION_COUNTS_KEPT: usize = 8;

// The process.

/// From the end of WS_DRAIN to the end of the process, if the last sessions take longer to close.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Characters of a value that are shown in a configuration error.
pub const SHOWN_VALUE_CHARACTERS: usize = 120;

// The log.

/// Interval of log lines of one kind that an outside cause can repeat, so that a poisoned topic cannot fill a disk.
pub const LOG_LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of log lines about pauses of Kafka: a permanent overload pauses every few seconds, and the metrics count each pause.
pub const PAUSE_LINE_INTERVAL: Duration = Duration::from_secs(60);
/// Interval of librdkafka's log lines: it repeats itself with every reconnect of every broker.
pub const KAFKA_LOG_LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Memory of unwritten log lines: some 4,000 of them. Further lines are dropped.
pub const LOG_QUEUE_BYTES: usize = MIB;
/// Interval of attempts to write to a non-blocking standard output that is full.
pub const LOG_WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long the end of the process waits for the last log lines.
pub const LOG_FLUSH_PATIENCE: Duration = Duration::from_secs(1);
