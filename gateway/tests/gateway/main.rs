//! The gateway's properties from the outside: the real program as a child process, real sockets, and a Kafka cluster
//! (librdkafka's mock: the real protocol over loopback) inside the test.

// Test code may give up on a broken premise.
#![allow(clippy::unwrap_used)]

mod addresses;
mod admission;
mod bad_environment;
mod bad_handshakes;
mod bad_messages;
mod bad_records;
mod check;
mod dashboards;
mod delivery;
mod drain;
mod floods;
mod harness;
mod http;
mod leaks;
mod lifecycle;
mod limits;
mod logs;
mod metrics_list;
mod observers;
mod operating;
mod overload;
mod partitions;
mod promql;
mod resume;
mod shards;
mod sleeps;
mod slow;
mod stalls;
mod tidy;
mod window;
