//! The gateway's properties against a real Apache Kafka: what librdkafka's mock does not have (compression, restarts of the
//! log, leader changes, retention, times of records).
//!
//! They need `scripts/kafka.sh` (a JDK and, once, Maven), so `cargo test` leaves them out; `scripts/kafka-tests.sh` brings
//! the brokers up, runs them one after another, and tears down. Each test starts a gateway of its own, the real program.

// Test code may give up on a broken premise.
#![allow(clippy::unwrap_used)]

mod churn;
mod delivery;
mod harness;
mod loss;
mod partitions;
mod recovery;
mod resume;
mod rights;
mod start;
mod transactions;
