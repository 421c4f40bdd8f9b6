//! Load generator for the gateway, with a loss audit.
//!
//! `args` -> a file of `scenarios` -> `report`. A scenario drives a `run` (its phases) on `client::sessions`
//! (one thread, one socket driver), which passes received texts to the `ledger`: `audit` (lost, duplicated,
//! reordered), `latency`, and how sessions ended. Measurements also need a `testbed` (`host`: cluster,
//! producer, gateway) and readings of the `server`; `measure` combines both.
//!
//! Invariants:
//! 1. Every delivery on every session is audited; nothing is sampled.
//! 2. Each distinct event is parsed once, however many sessions receive it (`client::parse_cache`).
//! 3. The sockets, the clock of the latencies and the ledger are on one thread; blocking work (HTTP, Kafka)
//!    is on other threads.
//! 4. A run ends by itself, and its verdict is its exit code.
//! 5. Nothing that the program started outlives it.

pub mod args;
pub mod audit;
pub mod client;
pub mod health;
pub mod host;
pub mod hostile;
pub mod html;
pub mod latency;
pub mod ledger;
pub mod machine;
pub mod measure;
pub mod pacing;
pub mod peers;
pub mod pinger;
pub mod progress;
pub mod report;
pub mod resumes;
pub mod run;
pub mod scenarios;
pub mod series;
pub mod server;
pub mod snapshot;
pub mod subscriptions;
pub mod testbed;
