//! Relations between the limits, asserted at compile time.

use super::*;

const _: () = assert!(
    SLICE_DURATION.as_micros()
        + HARVEST_DURATION.as_micros()
        + DRAIN_DURATION.as_micros()
        + 2 * EXCHANGE_DURATION.as_micros()
        + 3 * ENDINGS_DURATION.as_micros()
        < TURN_DELAY_MAX.as_micros(),
    "the parts of a turn, of which what sessions have missed takes an eighth"
);
const _: () = assert!(
    SOCKETS_FOR_PROBES + 2 * ACCEPTS_PER_TURN <= SOCKETS_SHORT && 2 * ACCEPTS_PER_TURN <= SOCKETS_FOR_PROBES,
    "a slot is free a turn after its reset: until then accepts of two turns find one"
);
const _: () =
    assert!(STASHES_DURATION.as_micros() < HARVEST_DURATION.as_micros(), "events have the rest of it");
const _: () = assert!(
    ENDINGS_YOUNG as usize + 2 * ACCEPTS_PER_TURN <= SOCKETS_SPARE - SOCKETS_FOR_PROBES,
    "connections that were answered and not reset yet leave slots for others"
);
const _: () = assert!(SENDS_PER_BATCH <= RING_BATCH, "a batch of sends is one system call");
const _: () = assert!(
    TURN_DELAY_MAX.as_micros() < SLEEP_MAX.as_micros(),
    "a sleep is longer than the work that ends it"
);
const _: () = assert!(
    10 * SLEEP_MAX.as_millis() <= WATCHDOG_TICK.as_millis(),
    "a shard that sleeps and turns is not taken for one that does not turn"
);
const _: () = assert!(
    SHARD_SILENCE_MAX.as_secs() < WATCHDOG_TICKS_MAX as u64 * WATCHDOG_TICK.as_secs(),
    "health says so before the process ends"
);
const _: () =
    assert!(IDLE_TIMEOUT.as_secs() > 2 * PING_INTERVAL.as_secs(), "a client misses two pings before it goes");
const _: () =
    assert!(HANDSHAKE_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs(), "the handshake's own clock ends it");
const _: () =
    assert!(MESSAGE_TIMEOUT.as_secs() < PING_INTERVAL.as_secs(), "an unfinished message is no sign of life");
const _: () =
    assert!(CLOSE_LINGER.as_millis() < SHUTDOWN_TIMEOUT.as_millis(), "the last session has its linger");
const _: () = assert!(
    KAFKA_CALL_TIMEOUT.as_secs() < KAFKA_METADATA_INTERVAL.as_secs(),
    "a call ends before the next of its kind is due"
);
const _: () = assert!(
    REPLAY_CHUNK_DELAY.as_millis() < REPLAY_REJOIN.as_millis(),
    "an answer comes before its place goes"
);
const _: () =
    assert!(REPLAY_PAUSE.as_millis() < REPLAY_REJOIN.as_millis(), "a place outlasts the pause for it");
const _: () = assert!(
    REPLAY_TURN.as_secs() < REPLAY_WAIT_MAX.as_secs()
        && REPLAY_WAIT_MAX.as_secs() < REPLAY_PATIENCE.as_secs(),
    "a cursor has had its turn before it is given up"
);
const _: () = assert!(
    REPLAY_SILENCE_MAX.as_secs() + KAFKA_CALL_TIMEOUT.as_secs() < REPLAY_PATIENCE.as_secs(),
    "more than one try before records count as lost"
);
const _: () =
    assert!(LAG_LOOK_INTERVAL.as_secs() < LAG_MAX_LEAST.as_secs(), "a lag is seen before it is over");
const _: () = assert!(
    LAG_LOOK_INTERVAL.as_secs() < KAFKA_METADATA_INTERVAL.as_secs(),
    "a watched lag is looked at more often than the rest"
);
const _: () = assert!(
    4 * KAFKA_STATISTICS_INTERVAL.as_secs() < WARMUP_QUIET.as_secs(),
    "the end of a log is proven before it is waited for in vain"
);
const _: () = assert!(
    KAFKA_RATE_PAUSE_LEAST.as_millis() < KAFKA_RATE_BURST.as_millis(),
    "the tokens of a pause fit into the bucket"
);
const _: () = assert!(OUTBOX_BYTES_MAX < u32::MAX as usize, "an outbox counts its bytes in 32 bits");
const _: () = assert!(HANDSHAKES_PER_TURN < COMPLETIONS_PER_TURN, "handshakes arrive as completions");
const _: () =
    assert!(CONTROL_BYTES > 2 * 125 + 20, "a pong and a close (125 bytes of payload each) always fit");
const _: () = assert!(CHANNEL_NAME_BYTES < 2 * KIB, "an error that shows a name fits into the control part");
const _: () = assert!(
    ENVELOPE_BYTES >= protocol::envelope::ENVELOPE_BYTES_MAX + FRAME_HEADER_BYTES,
    "the longest envelope and its header fit"
);
const _: () =
    assert!(OUTBOX_BYTES_MIN >= RECORD_BYTES_MIN + ENVELOPE_BYTES, "some record fits into any outbox");
const _: () = assert!(OUTBOX_BYTES_MAX >= RECORD_BYTES_MAX + ENVELOPE_BYTES, "some outbox holds any record");
const _: () = assert!(
    MESSAGE_BYTES_MAX <= INBOUND_BYTES_PER_SHARD,
    "one message at its longest is not refused for memory"
);
const _: () = assert!(
    SHUTDOWN_TIMEOUT.as_secs() < 10,
    "with WS_DRAIN=0s, within the time that container runtimes grant"
);
