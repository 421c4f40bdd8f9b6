//! How a session ends.

use super::refusal::Refusal;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed the session and the server answered the close.
    Complete,
    /// The server refused the handshake or a channel.
    Refused(Refusal),
    /// The session never became live, went silent, or ended because the server violated the protocol.
    Failed(String),
    /// The server or the network ended a live session.
    ClosedByServer(String),
}
