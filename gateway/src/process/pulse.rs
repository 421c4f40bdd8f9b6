//! A shard's sign of life: when it last began a turn, and what it is doing.
//!
//! Written by the shard with plain stores of its own cache line; read by the main thread ([`crate::monitor::shards`]) and by whoever
//! renders health.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its thread, executor, ring and consumer are being made.
    Starting,
    /// Egress.
    Sending,
    /// What the ring has completed.
    Sockets,
    /// librdkafka's queue.
    Kafka,
    /// The other shards' news and requests.
    Mesh,
    /// What sessions missed.
    Resumes,
    /// Timers, counters, and the end.
    Timers,
    /// In the kernel, until something comes.
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

    /// For logs.
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

/// See the module. A cache line (two, as some processors fetch them) of its own: it is written in every turn.
#[derive(Debug)]
#[repr(align(128))]
pub struct Pulse {
    started_at: Instant,
    /// Nanoseconds after `started_at`; zero before the first turn.
    turned_at_ns: AtomicU64,
    phase: AtomicU8,
    /// As gettid(2) tells it; zero before the thread runs.
    thread: AtomicI32,
    /// How often it was found not to turn.
    stalls: AtomicU64,
}

impl Pulse {
    /// Of a shard that is about to be started.
    pub fn new(started_at: Instant) -> Self {
        Self {
            started_at,
            turned_at_ns: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Starting as u8),
            thread: AtomicI32::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    /// The calling thread is the shard's.
    pub fn begin(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }

    /// A turn begins.
    pub fn turn(&self, now: Instant) {
        let turned_at_ns = now.saturating_duration_since(self.started_at).as_nanos() as u64;
        self.turned_at_ns.store(turned_at_ns.max(1), Ordering::Release);
    }

    /// The shard begins something else.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// The shard's thread, once it runs.
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Acquire)).filter(|thread| *thread != 0)
    }

    /// When the last turn began, after the start of the process; `None` before the first.
    pub fn turned_at(&self) -> Option<Duration> {
        let turned_at_ns = self.turned_at_ns.load(Ordering::Acquire);
        (turned_at_ns > 0).then(|| Duration::from_nanos(turned_at_ns))
    }

    /// How long ago the last turn began; before the first, how long ago the process did.
    pub fn silence(&self, now: Instant) -> Duration {
        let uptime = now.saturating_duration_since(self.started_at);
        uptime.saturating_sub(self.turned_at().unwrap_or_default())
    }

    /// It was found not to turn.
    pub fn count_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was.
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
