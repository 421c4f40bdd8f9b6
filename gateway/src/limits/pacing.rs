//! Limits of what a client's messages may cost, and how fast a client is read.
//!
//! The unit is the **operation**: one name parsed or looked up, one frame or cursor looked at. It took about 40 ns on the
//! measured machines, so 25,000 operations are a millisecond of a core.

use std::time::Duration;

use super::{GIB, KIB, MESSAGE_BYTES_MAX};

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Number at once.
    pub burst: u32,
    /// Number per second, in the long run.
    pub per_s: f64,
}

/// Operations of one receive, whatever its bytes: the completion, the look-up of its session.
pub const OPERATIONS_PER_RECEIVE: u64 = 10;
/// Operations of a ping, a pong or a close.
pub const OPERATIONS_PER_CONTROL_FRAME: u64 = 10;
/// Operations of a fragment of a message, its bytes aside.
pub const OPERATIONS_PER_FRAGMENT: u64 = 5;
/// Operations of a message without effect: its parser, its answer, its share of a send.
pub const OPERATIONS_PER_MESSAGE: u64 = 50;
/// Bytes that count as one operation: they are unmasked, checked to be UTF-8, and parsed.
pub const BYTES_PER_OPERATION: u64 = 16;

/// Operations of one session. In the long run 250,000 a second are a hundredth of a core, so 20 sessions at this limit take a
/// fifth of it. No honest client comes near: 10 messages a second that name 256 channels each are some 100,000. The burst is two
/// seconds of that, 20 ms of a core, because the largest legal message (WS_MAX_MESSAGE_BYTES, 256 names, each with its positions)
/// is some 50,000, and a client that reconnects sends several.
pub const SESSION_OPERATIONS: Rate = Rate { burst: 500_000, per_s: 250_000.0 };
/// Operations between two looks at the clock, and the slice of one session before the others have theirs: 80 us. A message is
/// never cut, so one message may exceed it.
pub const OPERATIONS_PER_SLICE: u64 = 2_000;
/// Recent operations (a fifth of a millisecond) above which a session waits in a queue with similar ones, behind the sessions
/// that ask for little.
pub const OPERATIONS_LIGHT: f64 = 5_000.0;
/// Control frames that a session may send for each message of WS_MESSAGE_BURST and WS_MESSAGE_RATE: with the defaults 10,000 at
/// once and 1,000 a second. Browsers cannot send any, and benchmarks that ping send hundreds a second.
pub const CONTROL_FRAMES_PER_MESSAGE: f64 = 100.0;
/// Fragments of one message of a client. Browsers do not fragment; libraries that fragment do so from a few KiB on.
pub const FRAGMENTS_PER_MESSAGE: u32 = 128;
/// The default of WS_INBOUND_BURST, in messages of WS_MAX_MESSAGE_BYTES.
pub const INBOUND_BURST_MESSAGES: usize = 4;
/// Maximum of WS_INBOUND_BURST and WS_INBOUND_RATE: more than a socket delivers.
pub const INBOUND_BURST_MAX: u64 = GIB as u64;
/// Minimum time for which a session in debt is not read: pausing a receive and arming it again costs some 30 us.
pub const RECEIVE_PAUSE_LEAST: Duration = Duration::from_millis(100);
/// Sessions whose reading resumes in a turn: each arms a receive.
pub const RECEIVES_RESUMED_PER_TURN: usize = 128;
/// Unread bytes of a session that waits for its turn, beyond which it is not read; bytes that the ring already has are added.
/// While half of `INBOUND_BYTES_PER_SHARD` is unread on a shard, no session with unread bytes is read.
pub const STASH_BYTES: usize = 16 * KIB;
/// Bytes that are read from a client after a close was queued for it: half of them until the close is in the socket, half until
/// the peer's FIN. Beyond the first half, the client is not read until the close is in the socket (for `CLOSE_LINGER` at most);
/// beyond the second, the connection is reset.
pub const CLOSE_READ_BYTES: usize = 64 * KIB;

const _: () = assert!(OPERATIONS_PER_SLICE < OPERATIONS_LIGHT as u64, "one slice leaves a session light");
const _: () = assert!(
    OPERATIONS_LIGHT < SESSION_OPERATIONS.burst as f64,
    "a session waits for others before it waits for itself"
);
const _: () = assert!(
    (INBOUND_BURST_MESSAGES * MESSAGE_BYTES_MAX) as u64 <= INBOUND_BURST_MAX,
    "the default of WS_INBOUND_BURST is within its range"
);
