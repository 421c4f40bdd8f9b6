//! The client side of the protocol: from a URL to subscribed sessions that hand on the texts they receive.
//!
//! `target` (the URL) -> `handshake` -> `frames` -> `session` (the life of one) -> `sessions` (all of them on one socket driver);
//! `refusal` is what a server says instead of letting one in; `knocks` are clients that only ask for a session; `dialect` knows what is said, by the gateway or by a peer; `heads` reads each distinct event once. All but `sessions` and `knocks` is free of I/O.

pub mod attempts;
pub mod dialect;
pub mod end;
pub mod frames;
pub mod handshake;
pub mod parse_cache;
pub mod refusal;
pub mod session;
pub mod sessions;
pub mod target;
