//! Shared test support of several crates: programs as child processes, clients over real sockets, a Kafka
//! cluster in the test process, a frame codec, and an audit of the events that clients received.
//!
//! For tests only: every crate lists it under `[dev-dependencies]`, and it depends on none of the crates
//! under test, except `protocol`. All functions panic if a precondition does not hold, which fails the test.
//!
//! Nothing here depends on timing: [`PATIENCE`] only ends a wait for an event that will never happen.

// Tests may panic if a precondition does not hold.
#![allow(clippy::unwrap_used)]

pub mod answer;
pub mod audit;
#[cfg(test)]
mod audit_tests;
mod client;
mod cluster;
pub mod frames;
mod gateway;
pub mod history;
mod http;
pub mod lane;
mod metrics;
mod pace;
mod program;
mod raw;
pub mod response;

use std::thread;
use std::time::{Duration, Instant};

pub use client::Client;
pub use cluster::{Cluster, PARTITIONS, Record, TOPICS, kind_of, record};
pub use gateway::{Gateway, Launch};
pub use http::{Response, request};
pub use metrics::Metrics;
pub use pace::pace;
pub use program::{Ended, Program};
pub use raw::{KEY, Raw, handshake_request};
pub use rustix::process::Signal;

/// Long enough for a broker to start on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Calls `ask` repeatedly until it returns a value.
///
/// # Panics
/// Panics after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A random generator whose seed is printed in the test's output; `ODIN_SEED` repeats a run.
pub fn random() -> fastrand::Rng {
    random_of("ODIN_SEED")
}

/// Like [`random`], with another environment variable.
pub fn random_of(variable: &str) -> fastrand::Rng {
    let seed = std::env::var(variable).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{variable}={seed}");
    fastrand::Rng::with_seed(seed)
}
