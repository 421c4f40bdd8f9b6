//! The measured window: figures of two instants, and their difference.
//!
//! Deliveries, both CPUs and the clock are read together, so that they cover the same time. The server's own
//! counts are read by another thread and are up to two seconds old, at both ends alike.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::health::HealthPoll;
use crate::latency::Latency;
use crate::machine::cpu_time;
use crate::series::Sample;
use crate::server::exposition::Exposition;
use crate::server::{Reading, Server, ServerPoll, process};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// One hour; a longer window keeps its first samples.
const SAMPLES_MAX: usize = 3_600;

/// How the server is monitored during the run.
#[derive(Debug)]
pub enum ServerMonitor {
    /// By its health page.
    Health(HealthPoll),
    /// By its process and its metrics.
    Server {
        /// Reads figures that take time to read.
        poll: ServerPoll,
        /// The process id, if the server runs on this machine.
        pid: Option<u32>,
        /// The kernel thread for the deferred work of the server's CPU.
        deferring: Option<u32>,
    },
    /// Another process monitors the server.
    Elsewhere,
}

impl ServerMonitor {
    /// Monitors a server that has a metrics page, or is a process of this machine.
    pub fn server(server: &Server) -> std::io::Result<Self> {
        let deferring = server.pid.and_then(process::deferring_thread);
        Ok(Self::Server { poll: ServerPoll::start(server)?, pid: server.pid, deferring })
    }

    /// The latest reading.
    pub fn reading(&self) -> Option<Reading> {
        match self {
            Self::Server { poll, .. } => poll.newest(),
            Self::Health(_) | Self::Elsewhere => None,
        }
    }

    /// The highest p99 from poll to socket of a second in this period, in ms, from the server's histogram.
    pub fn worst_p99_ms(&self, time: Range<Instant>) -> Option<f64> {
        match self {
            Self::Server { poll, .. } => poll.worst_p99_s(time).map(|p99_s| p99_s * 1_000.0),
            Self::Health(_) | Self::Elsewhere => None,
        }
    }

    fn cpu(&self) -> Option<Duration> {
        match self {
            Self::Server { pid, .. } => process::cpu_time((*pid)?).ok(),
            Self::Health(_) | Self::Elsewhere => None,
        }
    }

    fn deferred_cpu(&self) -> Option<Duration> {
        match self {
            Self::Server { deferring, .. } => process::cpu_time((*deferring)?).ok(),
            Self::Health(_) | Self::Elsewhere => None,
        }
    }

    /// The state of the server, as text.
    pub(super) fn describe(&self, sample: Option<&Sample>) -> Option<String> {
        if let Self::Health(poll) = self {
            return poll.newest().map(|health| health.describe());
        }
        let sample = sample?;
        let cores = sample.server_cpu_cores.map(|cores| format!("{cores:.2} cores"));
        let window = sample.flush_window_ms.map(|window| format!("window {window:.0} ms"));
        let frames = sample.frames_per_send.map(|frames| format!("{frames:.1} frames/send"));
        let parts: Vec<_> = [cores, window, frames].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("  "))
    }
}

/// Figures of one instant.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The instant.
    pub at: Instant,
    /// CPU of this process so far.
    pub generator_cpu: Duration,
    /// CPU of the server so far.
    pub server_cpu: Option<Duration>,
    /// CPU so far of the kernel thread for the deferred work of the server's CPU.
    pub deferred_cpu: Option<Duration>,
    /// Deliveries so far.
    pub delivered: u64,
    /// The server's own counts so far.
    pub exposition: Option<Exposition>,
}

impl Mark {
    /// Reads the current figures.
    pub fn take(monitor: &ServerMonitor, delivered: u64) -> Self {
        Self {
            at: Instant::now(),
            generator_cpu: cpu_time(),
            server_cpu: monitor.cpu(),
            deferred_cpu: monitor.deferred_cpu(),
            delivered,
            exposition: monitor.reading().and_then(|reading| reading.exposition),
        }
    }

    /// The difference to an earlier mark.
    pub fn since(&self, before: &Self) -> Difference {
        let grown = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        Difference {
            lasted: self.at.duration_since(before.at),
            generator_cpu: self.generator_cpu.saturating_sub(before.generator_cpu),
            server_cpu: grown(self.server_cpu, before.server_cpu),
            deferred_cpu: grown(self.deferred_cpu, before.deferred_cpu),
            delivered: self.delivered - before.delivered,
            exposition: self.exposition.as_ref().zip(before.exposition.as_ref()).map(|(now, then)| {
                Exposition {
                    flush_window_s: now.flush_window_s,
                    frames_per_send: now.frames_per_send.since(&then.frames_per_send),
                    latency_from_poll: now.latency_from_poll.since(&then.latency_from_poll),
                    latency_from_record: now.latency_from_record.since(&then.latency_from_record),
                    sessions_opened: now.sessions_opened - then.sessions_opened,
                    sessions_active: now.sessions_active,
                    is_overloaded: now.is_overloaded,
                    connections_rate_limited: now.connections_rate_limited - then.connections_rate_limited,
                    forwarded_headers_ignored: now.forwarded_headers_ignored - then.forwarded_headers_ignored,
                    counters: now.counters.since(&then.counters),
                }
            }),
        }
    }
}

/// The difference between two marks.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The duration.
    pub lasted: Duration,
    /// CPU that this process used.
    pub generator_cpu: Duration,
    /// CPU that the server used.
    pub server_cpu: Option<Duration>,
    /// CPU that the kernel used for deferred work of the server's CPU.
    pub deferred_cpu: Option<Duration>,
    /// Deliveries.
    pub delivered: u64,
    /// The server's own counts.
    pub exposition: Option<Exposition>,
}

impl Difference {
    /// Converts an amount to a rate per second; 0 for a duration of zero.
    pub fn per_second(&self, amount: f64) -> f64 {
        let seconds = self.lasted.as_secs_f64();
        if seconds > 0.0 { amount / seconds } else { 0.0 }
    }

    fn sample(&self, at: Duration, latency: &mut Latency) -> Sample {
        let exposition = self.exposition.as_ref();
        Sample {
            at_s: at.as_secs_f64(),
            deliveries_per_s: self.per_second(self.delivered as f64),
            latency_ms: latency.settle(),
            server_cpu_cores: self.server_cpu.map(|cpu| self.per_second(cpu.as_secs_f64())),
            generator_cpu_cores: self.per_second(self.generator_cpu.as_secs_f64()),
            flush_window_ms: exposition
                .and_then(|found| found.flush_window_s)
                .map(|seconds| seconds * 1_000.0),
            frames_per_send: exposition.and_then(|found| found.frames_per_send.mean()),
        }
    }
}

/// A section of the run: its two ends, and a sample per second.
#[derive(Clone, Debug)]
pub struct Window {
    began: Mark,
    ended: Option<Mark>,
    sampled: Mark,
    newest: Option<Sample>,
    samples: Vec<Sample>,
}

impl Window {
    /// Begins at this mark.
    pub fn begin(mark: Mark) -> Self {
        Self { sampled: mark.clone(), began: mark, ended: None, newest: None, samples: Vec::new() }
    }

    /// Ends at this mark.
    pub fn end(&mut self, mark: Mark, latency: &mut Latency) {
        // The rest of the last second is a sample if it is long enough to be meaningful.
        if mark.at.duration_since(self.sampled.at) >= SAMPLE_INTERVAL / 2 {
            self.sample(mark.clone(), latency);
        }
        self.ended = Some(mark);
    }

    /// The mark at the beginning.
    pub fn began(&self) -> &Mark {
        &self.began
    }

    /// From the beginning to the end, or to the latest sample if the window is still open.
    pub fn difference(&self) -> Difference {
        self.ended.as_ref().unwrap_or(&self.sampled).since(&self.began)
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    pub(super) fn newest_sample(&self) -> Option<&Sample> {
        self.newest.as_ref()
    }

    pub(super) fn sample_due_at(&self) -> Instant {
        self.sampled.at + SAMPLE_INTERVAL
    }

    /// Takes a sample up to this mark. After the end of the window the sample is shown but not kept.
    pub(super) fn sample(&mut self, mark: Mark, latency: &mut Latency) {
        let at = mark.at.duration_since(self.began.at);
        let sample = mark.since(&self.sampled).sample(at, latency);
        if self.ended.is_none() && self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
        self.newest = Some(sample);
        self.sampled = mark;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: Instant, seconds: u64) -> Mark {
        Mark {
            at: at + Duration::from_secs(seconds),
            generator_cpu: Duration::from_millis(250 * seconds),
            server_cpu: Some(Duration::from_millis(500 * seconds)),
            deferred_cpu: None,
            delivered: 100 * seconds,
            exposition: None,
        }
    }

    #[test]
    fn figures_are_of_the_time_between_two_marks() {
        let now = Instant::now();
        let mut latency = Latency::default();
        let mut window = Window::begin(mark(now, 10));
        latency.record(0, 7);
        window.sample(mark(now, 11), &mut latency);
        window.end(mark(now, 14), &mut latency);
        let difference = window.difference();
        assert_eq!((difference.lasted, difference.delivered), (Duration::from_secs(4), 400));
        assert_eq!(difference.server_cpu, Some(Duration::from_secs(2)));
        let [first, last] = window.samples() else { panic!("{:?}", window.samples()) };
        assert_eq!((first.at_s, first.deliveries_per_s, first.server_cpu_cores), (1.0, 100.0, Some(0.5)));
        assert_eq!((first.latency_ms.map(|second| second.max), last.latency_ms), (Some(7), None));
        assert_eq!((last.at_s, last.generator_cpu_cores), (4.0, 0.25));
    }

    #[test]
    fn what_comes_after_the_end_is_shown_but_not_kept() {
        let now = Instant::now();
        let mut latency = Latency::default();
        let mut window = Window::begin(mark(now, 0));
        window.end(mark(now, 2), &mut latency);
        window.sample(mark(now, 3), &mut latency);
        assert_eq!((window.samples().len(), window.difference().delivered), (1, 200));
        assert_eq!(window.newest_sample().map(|sample| sample.at_s), Some(3.0));
    }
}
