//! Channel names, the event envelope and the messages between clients and the gateway.
//!
//! Only this crate knows the syntax of the client protocol. The gateway, the publisher and the load generator share it, so that
//! none of them can differ from `docs/PROTOCOL.md` (a test of this crate parses its examples).
//!
//! Deliberately absent: sockets, WebSocket connections, clocks, and any state of a session. Everything here is a plain function
//! from bytes to values or from values to bytes, may be called on any thread, and is bounded by the length of its input: no JSON,
//! however deeply nested, makes it recurse without end.

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
