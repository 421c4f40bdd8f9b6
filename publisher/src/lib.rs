//! Publishes a simulated trading platform's events to Kafka.
//!
//! The way of an event: [`pacer`] says that one is due, [`simulator`] makes it, [`producer`] hands it to Kafka; a worker
//! ties the three together on a thread of its own, and [`run`] is its handle. With the feature `http` the program
//! `odin-publisher` puts an HTTP control API in front of it.
//!
//! Invariants:
//! 1. `seq` goes up by exactly 1 per token and kind, from 1, whatever happens to the rate: a reader can prove that it
//!    missed nothing. Stopping and starting again goes on counting for the tokens that stay.
//! 2. An event's timestamp is the instant it was due, so a latency measured from it includes a late sender.
//! 3. Nothing is dropped silently: every event is delivered, failed, or queued, and events that were due but never made
//!    are counted as skipped.
//! 4. Nothing is unbounded: tokens, the rate, the backlog that is caught up with and Kafka's queue have named limits.
//!
//! It deliberately creates no topics (their partition count is an operator's decision) and keeps nothing on disk.

mod digits;
pub mod events;
mod fates;
#[cfg(feature = "http")]
pub mod http;
mod market;
pub mod pacer;
mod probe;
pub mod producer;
pub mod run;
pub mod simulator;
pub mod status;
mod throttle;
pub mod tokens;
mod value;
mod worker;

pub use events::{EventType, Kind, TOPICS};
pub use run::{CommandError, ConnectError, Publisher};
pub use simulator::{Event, Simulator};
pub use status::Status;
