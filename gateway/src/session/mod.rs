//! A session's dialogue with its client: from the first byte of a connection to an action of the gateway.
//!
//! ```text
//! bytes -> handshake -> inbound (frames to messages) -> commands (message to action)
//!          forwarded (whose connection it is)
//!                       framing (messages to frames)  <- acknowledgements, errors, pings, closes
//! ```
//!
//! Everything here is plain state fed with bytes: no sockets, no clock, no executor. Whoever drives it owns the time limits
//! (a handshake or a message that never ends), the outbox that answers go to, and the subscriptions. A value belongs to one
//! connection and lives on its shard's thread.
//!
//! Invariants: memory is bounded by the limits that the constructors take; an idle session holds no buffer; no input panics;
//! whether bytes arrive one by one or all at once never changes what comes of them.

pub mod boundary;
pub mod commands;
pub mod forwarded;
pub mod framing;
pub mod handshake;
pub mod head;
pub mod inbound;
pub mod request;
pub mod response;

pub use commands::Action;
pub use forwarded::Origin;
pub use handshake::{Handshake, HttpMethod, HttpRequest, Progress};
pub use inbound::{Fed, Flow, Inbound, Message, Outcome};
pub use response::{http_response, refusal_response};
