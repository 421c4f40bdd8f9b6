//! Whether the gateway takes new sessions, and whether it reads Kafka: decided once a second, read by every shard.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::metrics::Refusal;

const CPU: u8 = 1;
const MEMORY: u8 = 2;
const PAUSED: u8 = 4;

/// What was decided last, shared between threads.
#[derive(Debug, Default)]
pub struct SharedOverload(AtomicU8);

impl SharedOverload {
    /// Why no new session is taken, if none is.
    pub fn refusal(&self) -> Option<Refusal> {
        let state = self.0.load(Ordering::Relaxed);
        if state & CPU != 0 {
            Some(Refusal::CpuOverload)
        } else if state & MEMORY != 0 {
            Some(Refusal::MemoryLimit)
        } else {
            None
        }
    }

    /// Whether no records are to be taken from Kafka.
    pub fn is_paused(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PAUSED != 0
    }
}
