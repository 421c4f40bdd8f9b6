//! Channel names, the event envelope and the messages between clients and the gateway.
//!
//! The one place that knows how the client protocol is spelled; the gateway, the publisher and the load generator share it,
//! so that none of them can drift from `docs/PROTOCOL.md` (whose examples a test of this crate parses).
//!
//! Deliberately absent: sockets, WebSocket framing, clocks, and any state of a session. Everything here is a plain function
//! from bytes to values or from values to bytes, may be called on any thread, and is bounded by the length of its input:
//! no JSON, however deeply nested, makes it recurse without end.

pub mod channel;
pub mod channel_error;
pub mod client;
pub mod code;
pub mod envelope;
pub mod framing;
pub mod position;
pub mod server;
mod since;
pub(crate) mod text;
pub mod token;

pub use channel::{
    Channel, ChannelError, Pattern, PatternName, kind_is_valid, kind_of_topic, token_is_valid,
};
pub use client::{ClientError, ClientMessage};
pub use envelope::{EnvelopeError, write_event, write_gap};
pub use position::{Position, PositionError};
pub use server::{
    ErrorMessage, EventHead, Gap, GapReason, Pong, Positions, Rejected, Resumed, ServerMessage,
    ServerMessageError, SubscriptionAck, UnsubscriptionAck,
};
