//! What a client's messages may cost, and how fast it is read.
//!
//! The unit is the **operation**: one name parsed or looked up, one frame or cursor looked at; about 40 ns on the machines that this
//! was measured on, so that 25,000 are a millisecond of a core.

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
