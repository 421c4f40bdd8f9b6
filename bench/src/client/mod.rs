//! The client side of the protocol: from a URL to subscribed sessions that pass on the texts they receive.
//!
//! `target` (the URL) -> `handshake` -> `frames` -> `session` (the lifecycle of one session) -> `sessions`
//! (all sessions on one socket driver). `refusal` describes a refused session, `attempts` makes session
//! attempts without subscribing, `dialect` implements the protocols of the gateway and of the peers, and
//! `parse_cache` parses each distinct event once. All modules except `sessions` and `attempts` are free of
//! I/O.

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
