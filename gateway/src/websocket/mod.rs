//! The protocol of a connection: from its first byte to whole messages, and back to frames.
//!
//! ```text
//! bytes -> handshake -> inbound (frames to messages) -> a shard's commands
//!                       framing (messages to frames)  <- acknowledgements, errors, pings, closes
//! ```
//!
//! Everything here is plain state fed with bytes: no sockets, no clock, no executor. Whoever drives it owns the time limits
//! (a handshake or a message that never ends), the outbox that answers go to, and the subscriptions. A value belongs to one
//! connection and lives on its shard's thread.
//!
//! Invariants: memory is bounded by the limits that the constructors take; an idle session holds no buffer; no input panics;
//! whether bytes arrive one by one or all at once never changes what comes of them.

pub(crate) mod close;
pub mod handshake;
pub mod inbound;
pub mod message_boundary;
pub mod request;
pub mod request_head;
pub mod response;

pub use handshake::{Handshake, HandshakeProgress, HttpMethod, HttpRequest};
pub use inbound::{FeedResult, Flow, Inbound, Message, Outcome};
pub use response::{http_response, refusal_response};
