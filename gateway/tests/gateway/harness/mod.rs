//! What the tests stand on: a Kafka cluster inside the test, the real program as a child, clients over real sockets.
//!
//! Each test has a cluster and a gateway of its own, so tests run side by side and none sees another's records or counters.

mod bystander;
mod gateway;
mod knock;

pub(crate) use testkit::frames::{close_code, frame};
pub(crate) use testkit::{
    Client, Cluster, Ended, Gateway, KEY, Metrics, PARTITIONS, Raw, Record, Response, TOPICS, eventually,
    handshake_request, kind_of, random, record,
};

pub(crate) use bystander::Bystander;
pub(crate) use gateway::{Launch, program};
pub(crate) use knock::knock;
