//! What the tests stand on: a Kafka cluster inside the test, the real program as a child, clients over real sockets.
//!
//! Each test has a cluster and a gateway of its own, so tests run side by side and none sees another's records or counters.
//! Nothing here measures time: [`PATIENCE`] only ends what would never come.

mod bystander;
mod client;
mod cluster;
mod gateway;
mod http;
mod metrics;
mod raw;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use bystander::Bystander;
pub(crate) use client::Client;
pub(crate) use cluster::{Cluster, PARTITIONS, Record, TOPICS, kind_of, record};
pub(crate) use gateway::{Ended, Gateway, Launch, program};
pub(crate) use http::Response;
pub(crate) use metrics::Metrics;
pub(crate) use raw::{KEY, Raw, close_code, frame, handshake_request};

/// Long enough for a machine that is busy with other things; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A random generator whose seed is in the test's output.
pub(crate) fn random() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}
