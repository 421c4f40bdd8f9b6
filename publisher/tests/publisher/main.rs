//! Tests of the publisher from the outside: the simulator's output, records in a Kafka cluster (librdkafka's
//! mock, real protocol over loopback), the HTTP API and the program.

// Tests may panic if a precondition does not hold.
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
