//! A shard's sign of life: when it last began a turn, and its present phase.
//!
//! The shard writes it with plain stores to a cache line of its own; the main thread ([`crate::monitor::shards`]) and the health
//! page read it.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A phase of a shard's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its thread, executor, ring and consumer are being made.
    Starting,
    /// Egress.
    Sending,
    /// Completions of the ring.
    Sockets,
    /// librdkafka's queue.
    Kafka,
    /// Owner events and requests of the other shards.
    Mesh,
    /// Resumes.
    Resumes,
    /// Timers, counters, and the shutdown.
    Timers,
    /// Asleep in the kernel.
    Sleeping,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Starting,
        Self::Sending,
        Self::Sockets,
        Self::Kafka,
        Self::Mesh,
        Self::Resumes,
        Self::Timers,
        Self::Sleeping,
    ];

    /// The phase's name, for logs.
    pub fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Sending => "sending",
            Self::Sockets => "sockets",
            Self::Kafka => "kafka",
            Self::Mesh => "mesh",
            Self::Resumes => "resumes",
            Self::Timers => "timers",
            Self::Sleeping => "sleeping",
        }
    }
}

/// Written in every turn, so it has a cache line of its own (two, because some processors fetch pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct Pulse {
    started_at: Instant,
    /// Nanoseconds after `started_at`; zero before the first turn.
    turned_at_ns: AtomicU64,
    phase: AtomicU8,
    /// The thread's id from gettid(2); zero before the thread runs.
    thread: AtomicI32,
    /// How often the shard was found stalled.
    stalls: AtomicU64,
}

impl Pulse {
    /// For a shard that is about to start.
    pub fn new(started_at: Instant) -> Self {
        Self {
            started_at,
            turned_at_ns: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Starting as u8),
            thread: AtomicI32::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    /// Notes that the calling thread is the shard's.
    pub fn begin(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }

    /// Notes the beginning of a turn.
    pub fn turn(&self, now: Instant) {
        let turned_at_ns = now.saturating_duration_since(self.started_at).as_nanos() as u64;
        self.turned_at_ns.store(turned_at_ns.max(1), Ordering::Release);
    }

    /// Notes the beginning of a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// The shard's thread, once it runs.
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Acquire)).filter(|thread| *thread != 0)
    }

    /// When the last turn began, counted from the start of the process; `None` before the first.
    pub fn turned_at(&self) -> Option<Duration> {
        let turned_at_ns = self.turned_at_ns.load(Ordering::Acquire);
        (turned_at_ns > 0).then(|| Duration::from_nanos(turned_at_ns))
    }

    /// The time since the last turn began; before the first, since the process started.
    pub fn silence(&self, now: Instant) -> Duration {
        let uptime = now.saturating_duration_since(self.started_at);
        uptime.saturating_sub(self.turned_at().unwrap_or_default())
    }

    /// Counts a stall.
    pub fn count_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of stalls.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_turn_and_before_the_first_from_the_start() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((pulse.turned_at(), pulse.silence(at(1500))), (None, Duration::from_millis(1500)));
        pulse.turn(at(2000));
        assert_eq!(pulse.silence(at(2300)), Duration::from_millis(300));
        assert_eq!(pulse.silence(at(1000)), Duration::ZERO, "read before it was written");
        pulse.turn(start);
        assert!(pulse.turned_at().is_some(), "a turn in the first instant is one");
    }

    #[test]
    fn each_phase_is_read_as_it_was_written() {
        let pulse = Pulse::new(Instant::now());
        assert_eq!(pulse.phase(), Phase::Starting);
        for phase in Phase::ALL {
            pulse.enter(phase);
            assert_eq!(pulse.phase(), phase);
        }
        assert_eq!(pulse.thread(), None);
        pulse.begin();
        assert!(pulse.thread().is_some());
    }
}
