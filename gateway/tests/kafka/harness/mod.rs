//! What the tests stand on: the brokers of `scripts/kafka.sh`, the real program as a child, an acknowledged producer, and
//! sessions that write down all they get.
//!
//! Nothing here measures time: [`PATIENCE`] only ends what would never come.

pub(crate) mod answer;
pub(crate) mod audit;
mod audit_tests;
mod brokers;
mod gateway;
pub(crate) mod history;
pub(crate) mod lane;
mod producer;
mod reader;
mod session;
pub(crate) mod socket;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use answer::Positions;
pub(crate) use brokers::{Brokers, Topics};
pub(crate) use gateway::{Gateway, Launch, Watch};
pub(crate) use producer::{Producer, Record};
pub(crate) use reader::{Offsets, Reader};
pub(crate) use session::{Event, FENCES, Log, Session};

/// Long enough for a broker to start on a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Partitions of each of the eight topics.
pub(crate) const PARTITIONS: i32 = 12;

/// The eight topics that `kafka.sh` makes.
pub(crate) use protocol::channel::TOPICS;

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

/// A random generator whose seed is in the test's output; ODIN_SEED repeats a run.
pub(crate) fn random() -> fastrand::Rng {
    random_of("ODIN_SEED")
}

/// The same, by another variable.
pub(crate) fn random_of(variable: &str) -> fastrand::Rng {
    let seed = std::env::var(variable).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{variable}={seed}");
    fastrand::Rng::with_seed(seed)
}
