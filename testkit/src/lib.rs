//! What the tests of several crates stand on: programs as children, clients over real sockets, a Kafka cluster inside the
//! test, a frame codec, and an audit of what clients got.
//!
//! For tests only: every crate names it under `[dev-dependencies]`, and it depends on none of the crates that it tests, except for
//! `protocol`. Everything here panics on a broken premise, so that a test ends there.
//!
//! Nothing here measures time: [`PATIENCE`] only ends a wait for what will never come.

// Test code may give up on a broken premise.
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

/// Asks again until there is an answer.
///
/// # Panics
/// After [`PATIENCE`].
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

/// A random generator whose seed is in the test's output; `ODIN_SEED` repeats a run.
pub fn random() -> fastrand::Rng {
    random_of("ODIN_SEED")
}

/// The same, with another variable.
pub fn random_of(variable: &str) -> fastrand::Rng {
    let seed = std::env::var(variable).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{variable}={seed}");
    fastrand::Rng::with_seed(seed)
}
