//! Decides whether the gateway accepts new sessions and whether it reads Kafka: once for each reading, for all shards.
//!
//! Pure: readings in, a decision out; [`crate::monitor::overload`] takes the readings and logs the changes.
//!
//! **Overload** is CPU above a threshold AND the flush window at its maximum, because batching is elastic: while a longer window
//! can still combine more events in one send, a busy CPU refuses nobody. The decision is the process's, and the window of ANY
//! shard counts: the kernel spreads new sessions over the shards by a hash, so no shard can be avoided; and most of a shard's
//! work comes from what the others read, so pausing only its own reading would not help. One busy shard among idle ones refuses
//! nobody either, because the CPU is the process's.
//!
//! Over its **memory** limit the gateway refuses new sessions, and each shard closes its largest sessions (`shard::shedding`).
//!
//! A **full** gateway (WS_MAX_CONNECTIONS) refuses connections where they are counted. This module only decides for how long it
//! is not ready, so that new clients are sent elsewhere.
//!
//! Invariants: a beginning and an end each take two readings in a row, with a range between their thresholds in which nothing
//! changes. A paused gateway refuses new sessions: the pause causes its idle CPU, which therefore does not show that there is
//! room. A pause ends after [`limits::KAFKA_PAUSE_READINGS_MAX`] whatever the CPU: late events are better than none.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::config;
use crate::counters::Refusal;
use crate::limits;

/// Readings in a row that begin or end a state.
const READINGS: u32 = 2;
/// Share of a threshold or a limit below which a state ends.
const ENDS_BELOW: f64 = 0.95;
/// One in this many connections must be free before a full gateway is ready again.
const FREE_PARTS: usize = 20;
/// Share of the longest flush window that counts as the longest: the window is calculated again ten times a second.
const WINDOW_AT_MAXIMUM: f64 = 0.95;
/// A threshold of 100 is never exceeded, although a cgroup may briefly use more than its quota.
const NEVER_PERCENT: f64 = 100.0;

/// One measurement of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// Percent of the CPU limit; `None` if unknown.
    pub cpu_percent: Option<f64>,
    /// The longest of the shards' flush windows, as a share of its maximum. 1 if the maximum is 0, because such a window cannot
    /// grow.
    pub window_share: f64,
    /// Memory of the process, and of the kernel for its sockets.
    pub memory_bytes: u64,
    /// Sessions of all shards.
    pub sessions: usize,
}

/// What the gateway accepts and reads from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// No new sessions, because of CPU.
    pub is_cpu_overloaded: bool,
    /// No new sessions, because of memory.
    pub is_memory_full: bool,
    /// All connections are taken, or were and fewer than one in twenty is free again.
    pub is_full: bool,
    /// No records from Kafka.
    pub is_paused: bool,
    /// Memory used beyond the limit; at the limit 1. Above 0 the largest sessions are closed.
    pub memory_over_bytes: u64,
}

impl Decision {
    /// The reason why no new session is accepted, if the reason is CPU or memory.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.is_cpu_overloaded {
            Some(Refusal::CpuOverload)
        } else if self.is_memory_full {
            Some(Refusal::MemoryLimit)
        } else {
            None
        }
    }
}

/// The state of the decision: what has begun and not ended.
#[derive(Debug)]
pub(crate) struct Overload {
    thresholds: config::Overload,
    memory_bytes_max: Option<u64>,
    sessions_max: usize,
    cpu: Latch,
    pause: Latch,
    /// Readings since the pause began.
    paused_readings: u32,
    is_memory_full: bool,
    is_full: bool,
}

impl Overload {
    /// With these thresholds, this memory limit (`None`: no limit) and this maximum of sessions.
    pub(crate) fn new(
        thresholds: config::Overload,
        memory_bytes_max: Option<u64>,
        sessions_max: usize,
    ) -> Self {
        Self {
            thresholds,
            memory_bytes_max,
            sessions_max,
            cpu: Latch::default(),
            pause: Latch::default(),
            paused_readings: 0,
            is_memory_full: false,
            is_full: false,
        }
    }

    /// Decides from a reading: one a second, and more often during a pause.
    pub(crate) fn decide(&mut self, reading: &Reading) -> Decision {
        let config::Overload { reject_percent, pause_percent } = self.thresholds;
        let is_window_at_maximum = reading.window_share >= WINDOW_AT_MAXIMUM;
        let is_over = |percent: f64| {
            let is_above = percent < NEVER_PERCENT && reading.cpu_percent.is_some_and(|cpu| cpu > percent);
            is_above && is_window_at_maximum
        };
        let is_cpu_calm = reading.cpu_percent.is_none_or(|cpu| cpu < reject_percent * ENDS_BELOW);
        let is_calm = is_cpu_calm || !is_window_at_maximum;
        if !self.pause.is_on {
            self.cpu.update(is_over(reject_percent), is_calm);
        }
        self.pause.update(is_over(pause_percent), is_calm);
        self.paused_readings = if self.pause.is_on { self.paused_readings + 1 } else { 0 };
        if self.paused_readings > limits::KAFKA_PAUSE_READINGS_MAX {
            self.pause = Latch::default();
            self.paused_readings = 0;
        }
        self.decide_memory(reading.memory_bytes);
        self.decide_sessions(reading.sessions);
        Decision {
            is_cpu_overloaded: self.cpu.is_on,
            is_memory_full: self.is_memory_full,
            is_full: self.is_full,
            is_paused: self.pause.is_on,
            memory_over_bytes: self.memory_over_bytes(reading.memory_bytes),
        }
    }

    fn memory_over_bytes(&self, bytes: u64) -> u64 {
        let over = self.memory_bytes_max.and_then(|max| bytes.checked_sub(max));
        over.map_or(0, |over| over.max(1))
    }

    /// At once, because the kernel may kill a process over the limit.
    fn decide_memory(&mut self, bytes: u64) {
        let Some(max) = self.memory_bytes_max else { return };
        let share = if self.is_memory_full { ENDS_BELOW } else { 1.0 };
        self.is_memory_full = bytes as f64 >= max as f64 * share;
    }

    /// At once too, because connections are already refused. It ends when one of twenty is free, so that the clients that a
    /// balancer then sends find room.
    fn decide_sessions(&mut self, sessions: usize) {
        let free_least = if self.is_full { self.sessions_max.div_ceil(FREE_PARTS) } else { 1 };
        self.is_full = self.sessions_max.saturating_sub(sessions) < free_least;
    }
}

/// A state that begins and ends only after several readings.
#[derive(Debug, Default)]
struct Latch {
    is_on: bool,
    /// Readings in a row that indicate a change.
    readings: u32,
}

impl Latch {
    fn update(&mut self, begins: bool, ends: bool) {
        let speaks_for_change = if self.is_on { ends } else { begins };
        self.readings = if speaks_for_change { self.readings + 1 } else { 0 };
        if self.readings == READINGS {
            *self = Self { is_on: !self.is_on, readings: 0 };
        }
    }
}

const CPU: u8 = 1;
const MEMORY: u8 = 2;
const PAUSED: u8 = 4;
const FULL: u8 = 8;

/// The decision in force, shared between threads.
#[derive(Debug, Default)]
pub struct SharedOverload {
    bits: AtomicU8,
    memory_over_bytes: AtomicU64,
}

impl SharedOverload {
    /// Replaces the decision in force.
    pub fn store(&self, decision: Decision) {
        let Decision { is_cpu_overloaded, is_memory_full, is_full, is_paused, memory_over_bytes } = decision;
        let bits = [(is_cpu_overloaded, CPU), (is_memory_full, MEMORY), (is_paused, PAUSED), (is_full, FULL)];
        let state = bits.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
        self.bits.store(state, Ordering::Relaxed);
        self.memory_over_bytes.store(memory_over_bytes, Ordering::Relaxed);
    }

    /// The decision in force.
    pub fn read(&self) -> Decision {
        let state = self.bits.load(Ordering::Relaxed);
        Decision {
            is_cpu_overloaded: state & CPU != 0,
            is_memory_full: state & MEMORY != 0,
            is_full: state & FULL != 0,
            is_paused: state & PAUSED != 0,
            memory_over_bytes: self.memory_over_bytes(),
        }
    }

    /// Bytes above the memory limit; see [`Decision::memory_over_bytes`].
    pub fn memory_over_bytes(&self) -> u64 {
        self.memory_over_bytes.load(Ordering::Relaxed)
    }

    /// The reason why no new session is accepted, if the reason is CPU or memory.
    pub fn refusal(&self) -> Option<Refusal> {
        self.read().refusal()
    }

    /// Whether records must not be taken from Kafka.
    pub fn is_paused(&self) -> bool {
        self.read().is_paused
    }
}

#[cfg(test)]
#[path = "tests/overload.rs"]
mod tests;
