//! The publisher's properties, from the outside: the simulator's output, records in a Kafka cluster (librdkafka's mock,
//! real protocol over loopback), the HTTP API and the program.

// Test code may give up on a broken premise.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "http")]
mod api;
mod audit;
mod cluster;
mod delivery;
mod placement;
#[cfg(feature = "http")]
mod program;
mod simulator;
