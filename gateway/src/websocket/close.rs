//! The close frames that the gateway sends: their codes (RFC 6455 section 7.4.1) and their bytes.

use protocol::framing;

/// The gateway shuts down.
pub(crate) const GOING_AWAY: u16 = 1001;
/// The client violated a rule of the gateway.
pub(crate) const POLICY: u16 = 1008;
/// A message of the client exceeded WS_MAX_MESSAGE_BYTES.
pub(crate) const MESSAGE_TOO_BIG: u16 = 1009;
/// The gateway has no room for the session now.
pub(crate) const TRY_AGAIN_LATER: u16 = 1013;

/// A close frame with a reason, which is cut if it is too long (see [`framing::close`]).
pub(crate) fn frame(code: u16, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    framing::close(&mut frame, code, reason);
    frame
}
