//! The gateway of this package as a child process, and a watch over what it says of its health.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Brokers, Gateway};

/// Begins a [`testkit::Launch`].
pub(crate) struct Launch;

#[allow(clippy::new_ret_no_self, reason = "only what cargo tells to integration tests alone is here")]
impl Launch {
    /// Reads from these brokers, on a port of its own.
    pub(crate) fn new(brokers: &Brokers) -> testkit::Launch {
        let mut command = Command::new(env!("CARGO_BIN_EXE_odin-gateway"));
        command.env_clear();
        testkit::Launch::of(command).env("KAFKA_BROKERS", &brokers.addresses)
    }
}

/// Asks /health all the time, and writes down what it says whenever that changes.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    pub(crate) fn start(gateway: &Gateway) -> Self {
        let is_over: Arc<AtomicBool> = Arc::default();
        let (address, over) = (gateway.address, Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let status = status(address);
                if seen.last() != Some(&status) {
                    seen.push(status);
                }
                thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Self { is_over, thread }
    }

    /// What it said, one after another.
    pub(crate) fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn status(address: SocketAddr) -> String {
    let health = testkit::request(address, "GET", "/health").json();
    health["status"].as_str().unwrap().to_owned()
}
