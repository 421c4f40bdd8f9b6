//! How a session ends.

use super::refusal::Refusal;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// We closed it, and the server answered.
    Complete,
    /// The server said no: to the handshake or to a channel.
    Refused(Refusal),
    /// It never became live, went silent, or the server broke the protocol.
    Failed(String),
    /// The server or the network ended a live session.
    ClosedByServer(String),
}
