//! What a client's messages may cost, and how fast it is read.
//!
//! The unit is the **operation**: one name parsed or looked up, one frame or cursor looked at; about 40 ns on the machines that this
//! was measured on, so that 25,000 are a millisecond of a core.

use std::time::Duration;

use super::{GIB, KIB, MESSAGE_BYTES_MAX};

/// What happens at most so often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second, in the long run.
    pub per_s: f64,
}

/// Operations of one receive, whatever it brought: the completion, the look-up of its session.
pub const OPERATIONS_PER_RECEIVE: u64 = 10;
/// Operations of a ping, a pong or a close.
pub const OPERATIONS_PER_CONTROL_FRAME: u64 = 10;
/// Operations of a fragment of a message, its bytes aside.
pub const OPERATIONS_PER_FRAGMENT: u64 = 5;
/// Operations of a message that does nothing: its parser, its answer, its share of a send.
pub const OPERATIONS_PER_MESSAGE: u64 = 50;
/// Bytes of one operation: they are unmasked, checked to be UTF-8, and parsed.
pub const BYTES_PER_OPERATION: u64 = 16;

/// Operations of one session. In the long run 250,000 a second are a hundredth of a core: 20 sessions that do their worst take
/// a fifth of it. Nobody honest comes near: 10 messages a second that name 256 channels each are some 100,000. At once it may have
/// two seconds of that, 20 ms of a core, because the largest legal message (WS_MAX_MESSAGE_BYTES, 256 names, each with its
/// positions) is some 50,000, and a client that reconnects sends several.
pub const SESSION_OPERATIONS: Rate = Rate { burst: 500_000, per_s: 250_000.0 };
/// Operations between two looks at the clock, and what one session may have in a turn before the others have had theirs: 80 us.
/// A message is never cut, so one message may lie above.
pub const OPERATIONS_PER_SLICE: u64 = 2_000;
/// A session that has used so many operations lately (a fifth of a millisecond) and not been given them back yet waits in a queue
/// with its like, behind those that ask for little.
pub const OPERATIONS_LIGHT: f64 = 5_000.0;
/// Control frames that a session may send for each message of WS_MESSAGE_BURST and WS_MESSAGE_RATE, besides these: with the
/// defaults 10,000 at once and 1,000 a second. A browser cannot send any, and whoever measures with pings sends hundreds a second.
pub const CONTROL_FRAMES_PER_MESSAGE: f64 = 100.0;
/// Frames of one message of a client. Browsers send a message whole; libraries that fragment begin to at some KiB.
pub const FRAGMENTS_PER_MESSAGE: u32 = 128;
/// WS_INBOUND_BURST when it is unset, in messages of WS_MAX_MESSAGE_BYTES.
pub const INBOUND_BURST_MESSAGES: usize = 4;
/// WS_INBOUND_BURST and WS_INBOUND_RATE: more than a socket brings.
pub const INBOUND_BURST_MAX: u64 = GIB as u64;
/// How long a session that has overdrawn is not read, at least: to pause a receive and to arm it again costs some 30 us.
pub const RECEIVE_PAUSE_LEAST: Duration = Duration::from_millis(100);
/// Sessions that are read again in a turn: each arms a receive.
pub const RECEIVES_RESUMED_PER_TURN: usize = 128;
/// Bytes that have come and wait for their session's turn, beyond which it is not read. What the ring has by then comes on top. While
/// half of `INBOUND_BYTES_PER_SHARD` waits on a shard, no session of which anything waits is read.
pub const STASH_BYTES: usize = 16 * KIB;
/// Bytes of a client that are read after a close was queued for it: half of them until the close is in the socket, half until the
/// peer's FIN. With more of the first half it is not read until the close is in the socket (for `CLOSE_LINGER` at most), with more of the second
/// the connection is reset.
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
