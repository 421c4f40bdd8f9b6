//! Publishes the events of a simulated trading platform to Kafka.
//!
//! The path of an event: [`pacer`] determines when it is due, [`simulator`] creates it, and [`producer`]
//! passes it to Kafka. A worker combines the three on a separate thread, and [`run`] is its handle. With the
//! feature `http` the program `odin-publisher` adds an HTTP control API.
//!
//! Invariants:
//! 1. `seq` increases by exactly 1 per token and kind, from 1, whatever the changes of the rate: a reader can
//!    prove that it missed nothing. After a stop and a start, the tokens that stay continue their count.
//! 2. An event's timestamp is the instant at which it was due, so a latency measured from it includes the
//!    delay of a late sender.
//! 3. No event is dropped silently: every event is delivered, failed or queued, and events that were due but
//!    never created are counted as skipped.
//! 4. Everything is bounded: tokens, the rate, the backlog that is caught up with and Kafka's queue have
//!    named limits.
//!
//! The crate deliberately creates no topics (the operator chooses their partition count) and stores nothing
//! on disk.

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
