//! Every hard bound of the gateway that is not configurable: its value, and why that value.
//!
//! What an operator may choose stands in [`crate::config`]; the ranges that those choices have to stay within stand here.
//! The relations between bounds are asserted at compile time in `relations`. Plain constants, for any thread.

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

// A turn of the shard loop: a slice, completions, control bytes, records, news and requests of the peers, what sessions have missed, timers, and the ends of
// sessions that were too slow. Each has a bound of its own, and together they stay below TURN_DELAY_MAX. What exceeds it by its nature is one
// step: a broadcast to every session of the shard (12,000 sessions: 0.12 ms if they lie in the cache, 0.4 ms if not), and a layout or a gap that concerns
// every session, which come when partitions begin or lose records.

/// Completions taken from the ring in a turn: about a millisecond of reading clients that say little.
pub const COMPLETIONS_PER_TURN: usize = 512;
/// The longest that they are taken in a turn, whatever the clients ask: a subscribe that begins in the past takes some 20 us.
pub const HARVEST_DURATION: Duration = Duration::from_millis(1);
/// The part of it that is kept for sessions that wait for their slice (three slices): a thousand clients that ask for little, and always
/// have something in the ring, leave them this much.
pub const STASHES_DURATION: Duration = Duration::from_micros(250);
/// Completions between two looks at the clock for it.
pub const COMPLETIONS_PER_LOOK: usize = 16;
/// Sends of one egress slice. At 2 us a send this is the slice's millisecond.
pub const SENDS_PER_SLICE: usize = 512;
/// The longest an egress slice lasts, whatever the sends cost. The last batch is finished.
pub const SLICE_DURATION: Duration = Duration::from_millis(1);
/// Connections that are reset in a slice: each is cancelled in the kernel, which takes 2 us or more.
pub const RESETS_PER_SLICE: usize = 64;
/// Operations (a session or a frame that is looked at: 10 ns in the cache, 40 ns beside it) between two looks at the clock, in everything
/// of a turn that is bounded by a duration: 40 to 160 us, below 200 us. A step is finished: one broadcast is as many operations as its
/// channel has subscribers.
pub const OPERATIONS_PER_LOOK: u64 = 4096;
/// Operations of such a part of a turn, whatever the clock says: it may stand, or jump.
pub const OPERATIONS_PER_TIME_SLICE: u64 = 16 * OPERATIONS_PER_LOOK;
/// Operations that a step counts besides what it looks at: a record is polled and framed in a microsecond, a timer or a piece of news costs about as
/// much.
pub const OPERATIONS_PER_STEP: usize = 32;
/// Operations of a session's end besides its subscriptions and its frames.
pub const OPERATIONS_PER_END: usize = 256;
/// The longest that records are taken from Kafka in a turn. The rest stays in librdkafka's queue.
pub const DRAIN_DURATION: Duration = Duration::from_micros(400);
/// The longest that news of the peers are taken in a turn, and the longest that their requests are answered. The rest stays in the queues
/// of the mesh.
pub const EXCHANGE_DURATION: Duration = Duration::from_micros(400);
/// The longest that timers fire in a turn, the longest that sessions are ended that were too slow or broke, and the longest that they are told
/// that the gateway drains.
pub const ENDINGS_DURATION: Duration = Duration::from_micros(200);
/// Handshakes answered in a turn. One costs about 35 us, so a storm of them takes a millisecond of each turn, not all of it.
pub const HANDSHAKES_PER_TURN: usize = 32;
/// Records taken from Kafka in a turn, at most. Few, so that the first of a burst are in their sockets before the last are framed.
pub const RECORDS_PER_TURN: usize = 32;
/// Timers that fire in a turn, at most: after a pause of the machine everyone's ping is due at once.
pub const TIMERS_PER_TURN: usize = 512;
/// Sessions told in a turn that the gateway drains, at most. With WS_DRAIN=0s everyone's turn comes at once, and each is removed from
/// its channels.
pub const DRAINED_PER_TURN: usize = 128;
/// The longest sleep of an idle shard: what a missed wake-up costs at most.
pub const SLEEP_MAX: Duration = Duration::from_millis(50);
/// A port that is taken is waited for: longer than the kernel takes to close what a killed gateway had open.
pub const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
pub const PORT_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks of the main thread whether each shard turns.
pub const WATCHDOG_TICK: Duration = Duration::from_secs(1);
/// Such looks in a row that find no turn of a shard that was not waiting for a CPU, after which the process ends. Long enough for a
/// disk that a page of the program is read from; shorter than its clients would wait for events.
pub const WATCHDOG_TICKS_MAX: u32 = 10;
/// Without a turn of some shard for this long the gateway is neither healthy nor ready. A shard has far more turns on a machine that
/// has some CPU left.
pub const SHARD_SILENCE_MAX: Duration = Duration::from_secs(5);
/// What a turn may delay a ping, an accept or another session's frame by, when every part of it takes what it may.
pub const TURN_DELAY_MAX: Duration = Duration::from_millis(4);

// A connection.

/// The request line and headers of a handshake together. Browsers send all cookies of a site, and heads with 8.7 KB of cookies have
/// been seen. A handshake holds only what its client has sent so far.
pub const HANDSHAKE_BYTES: usize = 16 * KIB;
/// From the accept to the end of the handshake's headers. A client that trickles bytes holds a slot no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A handshake never takes longer, however much lies unread meanwhile.
pub const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(2 * HANDSHAKE_TIMEOUT.as_secs());
/// From the first byte of a client's message to its last. tungstenite reserves what a header announces, so an unfinished
/// message holds memory.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pings. Below the 30 s after which common proxies drop silent connections.
pub const PING_INTERVAL: Duration = Duration::from_secs(27);
/// Without any frame from the client for this long the session is closed: two pings went unanswered.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// From our close frame to the peer's FIN; then the socket is closed regardless.
pub const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// The control part of an outbox: the newest pong, acks and errors. A client that asks faster than it reads is closed.
pub const CONTROL_BYTES: usize = 4 * KIB;
/// A channel or pattern: a token, the dot, a kind.
pub const CHANNEL_NAME_BYTES: usize = protocol::channel::NAME_BYTES_MAX;
/// A server's WebSocket frame header at its longest (RFC 6455, 5.2: unmasked, 64-bit length).
pub const FRAME_HEADER_BYTES: usize = 10;
/// What an event frame has besides the record's value. Rounded up, so that the envelope can grow a field without moving the
/// default of WS_MAX_RECORD_BYTES.
pub const ENVELOPE_BYTES: usize = 512;

/// Retry-After of a gateway that drains: others take its place, and a proxy has seen by then that it is not ready.
pub const RETRY_AFTER_DRAINING: Duration = Duration::from_secs(1);
/// Retry-After at WS_MAX_CONNECTIONS: sessions end now and then.
pub const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);
/// Retry-After of an overloaded gateway: it is judged by several readings of a second each, and the others of a fleet, or more of
/// them, need some time to help.
pub const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(10);
/// Addresses whose connections are counted, in all shards together: 6 MiB. One is forgotten when its burst is whole again, so with
/// the defaults (10 s to fill, 50 a second let in) there are 1,000.
pub const RATE_LIMIT_ADDRESSES: usize = 65_536;

// A shard.

/// Memory of clients' unfinished messages, and as much again of what they have sent and was not read yet. Over it a session that sends more is
/// closed if it has more than its equal share, so that each comes to twice as much at worst.
pub const INBOUND_BYTES_PER_SHARD: usize = 64 * MIB;
/// Bytes of one system call's sends, at which no other send is added: the kernel copies as many in about 200 us.
pub const BATCH_BYTES: usize = MIB;
/// Bytes gathered for one session's send: about what a socket's send buffer takes at once; more would be copied again for the rest.
pub const GATHER_BYTES_PER_SESSION: usize = 256 * KIB;
/// What a session with control bytes is sent at once: its answers, and a few of the events behind them. Small, so that many of them delay
/// the events little, and asking often brings nobody's events much earlier.
pub const CONTROL_SEND_BYTES: usize = 16 * KIB;
/// Sends of one system call; the slice looks at the clock after each. 256 take 500 to 800 us; with 64 a delivery of `fanout` at 25/s costs 2% more CPU,
/// and what another session asks waits no shorter.
pub const SENDS_PER_BATCH: usize = 256;
/// Sessions of a queue that are looked at for it: most that have nothing to send any more are passed over in 10 to 40 ns.
pub const LOOKS_PER_BATCH: usize = 4 * SENDS_PER_BATCH;
/// Requests that the ring has room for at a time, receives and accepts included.
pub const RING_BATCH: usize = 256;
/// The same for sessions that resume, which are sent up to `GATHER_BYTES_PER_SESSION` each: a live event may wait for one batch.
pub const BULK_SENDS_PER_BATCH: usize = 2;
/// Bytes of answers that may wait while the socket still takes bytes: egress has just not had its turn.
pub const CONTROL_BURST_BYTES: usize = 64 * KIB;
/// Sockets beyond WS_MAX_CONNECTIONS, so that those refused are told why and /health answers at the limit.
pub const SOCKETS_SPARE: usize = 512;
/// With fewer of a shard's sockets free, the address with most connections without a session loses its oldest. Of the spare ones:
/// all WS_MAX_CONNECTIONS sessions are no shortage.
pub const SOCKETS_SHORT: usize = SOCKETS_SPARE / 2;
/// With fewer, the oldest connection without a session goes whoever has it: these are kept for health checks and scrapes.
pub const SOCKETS_FOR_PROBES: usize = SOCKETS_SPARE / 4;
/// An address with so many connections without a session loses its oldest. A balancer that checks health, or a node
/// whose agent does and is scraped, has a few at a time; a shortage of addresses with fewer is one of 30 of them at least.
pub const SESSIONLESS_MANY: u32 = 8;
/// How long a connection that was answered is not reset: its answer leaves the process with the next slice, and then has to be sent again
/// once at most on most ways.
pub const ENDING_PATIENCE: Duration = Duration::from_millis(100);
/// Connections that were answered, beyond which the oldest goes even if it has not had that time: more than can be answered in three turns, so it
/// was sent its answer. Otherwise a crowd that asks and does not close would have every socket.
pub const ENDINGS_YOUNG: u64 = 4 * HANDSHAKES_PER_TURN as u64;
/// Accepts that one turn may bring.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections that are reset in a turn while sockets are short: as many as may come. One costs about 20 us.
pub const EVICTIONS_PER_TURN: usize = ACCEPTS_PER_TURN;
/// A session with less is never closed for memory: a client that reads, with the longest message that is unfinished for a moment aside,
/// has a few hundred bytes, and all that there may be with this much hold 375 MiB.
pub const SESSION_BYTES_LARGE: u64 = 32 * KIB as u64;
/// Sessions that a turn weighs while the process is over WS_MEMORY_LIMIT: some 50 us.
pub const SESSIONS_WEIGHED_PER_TURN: usize = 256;
/// The largest sessions of a shard that are closed at once for memory, ...
pub const SESSIONS_SHED_PER_ROUND: usize = 128;
/// ... and the least time to the next: there is a reading of the memory in between that knows of these.
pub const SHED_INTERVAL: Duration = Duration::from_secs(2);
/// Large sessions are closed where they hold at least this part of what the shard has to give back. A part is enough: the weights know
/// neither what the allocator keeps nor how unevenly the kernel spreads the large sessions over the shards.
pub const SHED_WORTH_PARTS: u64 = 4;
/// Sessions are closed until this part of WS_MEMORY_LIMIT would be free: below it sessions are refused.
pub const MEMORY_MARGIN_PARTS: u64 = 20;
/// Descriptors of a shard that are no client's socket: librdkafka's connections, the rings, logs.
pub const DESCRIPTORS_SPARE: usize = 256;
/// Receive buffers of a shard. Bytes wait in the kernel while all are taken.
pub const RECEIVE_BUFFERS: u16 = 2048;
/// Bytes of each: most client messages fit.
pub const RECEIVE_BUFFER_BYTES: usize = 2 * KIB;
/// How long the process waits for librdkafka's consumers to close; it may be in a call to a broker that is gone.
pub const CONTROL_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a shard copies its counters for /metrics and /health.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// Pages of health that are older are not shown: the main thread, which renders them once a second, is no longer at work.
pub const PAGES_AGE_MAX: Duration = Duration::from_secs(30);

/// Shards of a process: a set of them is one word.
pub const SHARDS_MAX: usize = 64;
/// News that wait in a queue of the mesh. A peer takes a quarter of it in a turn.
pub const MESH_NEWS: usize = 1024;
/// Requests that wait in a queue of the mesh.
pub const MESH_REQUESTS: usize = 1024;
/// Requests without room at which a shard stops to read clients: as many again can come of what one of them has sent.
pub const MESH_BACKLOG: usize = 4096;
/// How long a shard sleeps at most while a queue of the mesh is full: nobody tells it when there is room.
pub const MESH_FULL_NAP: Duration = Duration::from_millis(1);
/// News of the peers taken in a turn, at most.
pub const NEWS_PER_TURN: usize = 256;
/// Requests of the peers answered in a turn, at most.
pub const REQUESTS_PER_TURN: usize = 256;
/// Between two gaps that tell sessions which hear every token of one partition's skipped records: a producer without keys must not
/// make a message of each record.
pub const SKIPPED_INTERVAL: Duration = Duration::from_secs(1);
/// Ranges of skipped records that are kept of a partition, or gathered for a cursor: 1 KiB. With more, the oldest two become one.
pub const SKIPPED_RANGES: usize = 64;
/// Pulls of a shard that its peers have not answered. Their answers come in one queue with live events, which wait for no more
/// chunks than this.
pub const PULLS_OUT: usize = 8;
/// Sessions that are asked for one pull whether they have room: thousands that do not read look for it every [`PULL_PAUSE`].
pub const PULLERS_PER_STEP: usize = 64;
/// How long a session that resumes waits when it has no room, and a cursor at first when its owner has nothing yet.
pub const PULL_PAUSE: Duration = Duration::from_millis(5);
/// How long a cursor waits at last, when its owner still has nothing: as long as it has waited by then, up to this.
pub const PULL_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long an owner of partitions keeps a question waiting for the brokers, or for its history: then it answers with what it has.
pub const BEGIN_PATIENCE: Duration = Duration::from_secs(4);
/// How long an acknowledgement waits for partitions to begin: then it names those that have not.
pub const ACK_PATIENCE: Duration = Duration::from_secs(5);
const _: () = assert!(BEGIN_PATIENCE.as_millis() < ACK_PATIENCE.as_millis());
/// Subscriptions of one session that a resume keeps account of, those that were given back meanwhile included.
pub const RESUME_STARTS: usize = 2048;
/// The same of messages. Each keeps a place in every partition, so that this many come to some 4 MiB.
pub const RESUME_MESSAGES: usize = 512;
/// Questions where subscriptions begin that wait at one owner: twice as many as the process has sessions by default, which all come
/// back to a gateway that has just started. What comes beyond it is answered with what is known.
pub const QUESTIONS_DEFERRED: usize = 32_768;
/// The same of one session: a client that sends a message for each of its channels stays below, and it takes hundreds of sessions to
/// fill what all have.
pub const QUESTIONS_DEFERRED_PER_SESSION: usize = 64;
/// The same in bytes. A client that names a few channels has about 1 KiB; one that resumes two wildcards in each of 96 partitions has 9 KiB
/// with a single shard (4 KiB of positions, the rest by partitions of the shard): with 12,000 of them, as many as there are by default, 106 MiB.
pub const QUESTIONS_DEFERRED_BYTES: usize = 128 * MIB;
/// Starts, positions and partitions that an owner looks at in a turn to answer questions, some 20 ns each; one question may exceed it.
pub const OWNER_OPERATIONS_PER_TURN: u64 = 8192;
/// What a question counts for beside: its session's acknowledgement and cursors are looked at.
pub const OWNER_OPERATIONS_PER_ANSWER: u64 = 64;
/// Starts and positions of a question that its owner answers at once; one with more is answered in a step of its own, so that a client's
/// message is not read, and answered by the shard that read it, between two looks at the clock. Few clients name so many.
pub const QUESTION_OPERATIONS_AT_ONCE: usize = 128;
/// How soon brokers are asked again for the end of a log that they could not tell: nothing but such a question is delayed by it.
pub const END_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Cursors of one shard's sessions: what 10,000 sessions have that resume all of 96 partitions together. About 150 bytes each.
pub const CURSORS_PER_SHARD: usize = 1 << 20;
/// How often Kafka is read again for one session at once, ...
pub const REPLAYS_BURST: u32 = 2;
/// ... and after which time once more: a client that comes back needs it once.
pub const REPLAYS_INTERVAL: Duration = Duration::from_secs(30);
/// A resume that begins within this time after one that was allowed shares the bytes of that one: a client that reconnects
/// and subscribes channel by channel, each after the answer to the one before.
pub const REPLAYS_SHARED: Duration = Duration::from_secs(2);
/// Each of them counts for this part of it beside what is read: a resume that is given back before its first record costs the replay threads a seek.
pub const REPLAYS_SHARED_PARTS: u64 = 32;
/// Answers that one client may wait for: a client that pipelines more than that does not read them.
pub const ANSWERS_PENDING: usize = 1024;
/// How often a shard that starts looks whether its partitions have begun.
pub const READY_INTERVAL: Duration = Duration::from_millis(20);
/// How long a partition is waited for whose history is being filled and which gets no record: its broker is silent, or refuses.
/// Beyond it the partition counts as filled, and what comes of it then is delivered.
pub const WARMUP_QUIET: Duration = Duration::from_secs(10);
/// Bytes of frames in one chunk of a resume; a larger frame is a chunk of its own.
pub const CHUNK_BYTES: usize = 64 * KIB;
/// How far inside history, at most, a replay ends: a cursor that comes to its edge has to come faster than the edge goes on.
pub const HISTORY_MARGIN_FRAMES: usize = 16_384;
/// Frames that are looked at for one chunk: a session that wants one channel of many must not hold the shard.
pub const FRAMES_PER_PULL: usize = 4096;
/// Memory for the newest frames of channels, a channel of WS_LAST_VALUES on average: an event of common size and its place.
pub const LAST_VALUE_BYTES: usize = KIB;

/// Tokens of a shard's partitions that are remembered because they were seen where they do not belong: 16 MiB at common lengths.
pub const STRAY_TOKENS_MAX: usize = 1 << 17;
/// How many numbers of partitions that a topic had are remembered: one that changes more often is not followed.
pub const PARTITION_COUNTS_KEPT: usize = 8;

// The process.

/// From the end of WS_DRAIN to the end of the process, when the last sessions take longer to close.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Of one value shown in a configuration error.
pub const SHOWN_VALUE_CHARACTERS: usize = 120;

// The log.

/// Between two log lines of one kind that something outside can repeat, so that a poisoned topic cannot fill a disk.
pub const LOG_LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The same for pauses of Kafka: a load that is too much for good pauses every few seconds, and the metrics tell each.
pub const PAUSE_LINE_INTERVAL: Duration = Duration::from_secs(60);
/// The same for what librdkafka says of itself: it repeats itself with every reconnect of every broker.
pub const KAFKA_LOG_LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Memory of lines that are not written yet: some 4,000 of them. What comes while standard output takes none is dropped beyond it.
pub const LOG_QUEUE_BYTES: usize = MIB;
/// Between two tries to write to a standard output that is non-blocking and full.
pub const LOG_WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long the end of the process waits for the last lines.
pub const LOG_FLUSH_PATIENCE: Duration = Duration::from_secs(1);
