//! The overload monitor: on the main thread, once a second, and every 25 ms while Kafka is paused for overload.
//!
//! It reads [`crate::process::resource_usage`], has [`crate::admission::overload`] decide, and tells the shards. Each change is
//! one log line with the numbers that caused it and the variable that controls it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::admission::overload::{Decision, Overload, Reading};
use crate::config::{Config, Flush};
use crate::counters::Snapshot;
use crate::limits;
use crate::log::throttle::LogThrottle;
use crate::process::resource_usage::{Meter, ResourceUsage};
use crate::shared::Shared;

/// The readings, the decision in force, and the log throttle of pauses.
#[derive(Debug)]
pub(crate) struct OverloadMonitor {
    meter: Meter,
    overload: Overload,
    decision: Decision,
    /// For the log line about a pause.
    pauses: LogThrottle,
}

impl OverloadMonitor {
    /// For these thresholds and limits.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            meter: Meter::new(&config.resource_limits),
            overload: Overload::new(
                config.overload,
                config.resource_limits.memory_bytes,
                config.listen.connections_max,
            ),
            decision: Decision::default(),
            pauses: LogThrottle::every(limits::PAUSE_LINE_INTERVAL),
        }
    }

    /// Takes a reading and tells the shards the decision. Returns the time until the next one is due, because readings are
    /// counted.
    pub(crate) fn sample(&mut self, config: &Config, shared: &Shared) -> Duration {
        let usage = self.meter.read();
        shared.usage.store(usage);
        let window_s = longest_window_s(&shared.snapshots);
        let reading = Reading {
            cpu_percent: usage.cpu_percent(&config.resource_limits),
            window_share: window_share(window_s, &config.flush),
            memory_bytes: usage.memory_bytes(),
            sessions: shared.sessions.load(Ordering::Relaxed),
        };
        let decision = self.overload.decide(&reading);
        let before = std::mem::replace(&mut self.decision, decision);
        if decision != before {
            shared.overload.store(decision);
            if decision.is_paused != before.is_paused {
                shared.kafka.update(|status| status.paused = decision.is_paused);
                shared.wake_shards();
            }
            self.log_change(config, before, reading.cpu_percent, window_s);
            log_memory(config, before, decision, &usage);
            log_full(config, before, decision, reading.sessions);
        }
        if decision.is_paused { limits::PAUSED_READING_INTERVAL } else { limits::SNAPSHOT_INTERVAL }
    }

    fn log_change(&self, config: &Config, before: Decision, cpu_percent: Option<f64>, window_s: f64) {
        let cpu_percent = cpu_percent.unwrap_or_default().round();
        let window_ms = (window_s * 1000.0).round();
        let threshold_percent = config.overload.reject_percent;
        match (before.is_cpu_overloaded, self.decision.is_cpu_overloaded) {
            (false, true) => warn!(
                cpu_percent,
                threshold_percent,
                window_ms,
                "overloaded: new sessions are refused (WS_CPU_REJECT_THRESHOLD), existing ones stay"
            ),
            (true, false) => {
                info!(
                    cpu_percent,
                    threshold_percent, window_ms, "no longer overloaded: new sessions are accepted"
                );
            }
            _ => {}
        }
        // A permanent overload pauses every few seconds, so its line is throttled.
        let threshold_percent = config.overload.pause_percent;
        if !before.is_paused
            && self.decision.is_paused
            && let Some(suppressed) = self.pauses.allow(Instant::now())
        {
            warn!(
                cpu_percent,
                threshold_percent,
                window_ms,
                suppressed,
                "Kafka is paused (WS_CPU_PAUSE_THRESHOLD): records wait there, nothing is lost"
            );
        }
    }
}

/// The longest flush window of all shards.
fn longest_window_s(snapshots: &[Snapshot]) -> f64 {
    snapshots.iter().map(|snapshot| snapshot.load().flush_window_s).fold(0.0, f64::max)
}

fn window_share(window_s: f64, flush: &Flush) -> f64 {
    // A window whose maximum is its minimum, or zero, cannot grow, so it is at its maximum.
    let room = flush.window_max.saturating_sub(flush.window_min);
    if room == Duration::ZERO { 1.0 } else { window_s / flush.window_max.as_secs_f64() }
}

fn log_memory(config: &Config, before: Decision, after: Decision, usage: &ResourceUsage) {
    let (rss_bytes, socket_bytes) = (usage.rss_bytes, usage.socket_bytes);
    let limit_bytes = config.resource_limits.memory_bytes.unwrap_or_default();
    match (before.is_memory_full, after.is_memory_full) {
        (false, true) => warn!(
            rss_bytes,
            socket_bytes, limit_bytes, "out of memory (WS_MEMORY_LIMIT): new sessions are refused"
        ),
        (true, false) => {
            info!(
                rss_bytes,
                socket_bytes, limit_bytes, "memory is available again: new sessions are accepted"
            );
        }
        _ => {}
    }
}

fn log_full(config: &Config, before: Decision, after: Decision, sessions: usize) {
    let sessions_max = config.listen.connections_max;
    match (before.is_full, after.is_full) {
        (false, true) => {
            warn!(sessions, sessions_max, "full (WS_MAX_CONNECTIONS): not ready for new sessions");
        }
        (true, false) => info!(sessions, sessions_max, "no longer full: ready for new sessions"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;

    #[test]
    fn the_window_of_the_shard_that_has_the_longest_counts() {
        let snapshots = [Snapshot::default(), Snapshot::default(), Snapshot::default()];
        snapshots[1].store(&Counters { flush_window_s: 0.2, ..Counters::default() });
        snapshots[2].store(&Counters { flush_window_s: 0.05, ..Counters::default() });
        assert_eq!(longest_window_s(&snapshots), 0.2);
    }

    #[test]
    fn a_window_that_has_no_room_is_at_its_maximum() {
        let ms = Duration::from_millis;
        let share =
            |window_s, min, max| window_share(window_s, &Flush { window_min: ms(min), window_max: ms(max) });
        assert_eq!(share(0.1, 0, 200), 0.5);
        assert_eq!(share(0.2, 40, 200), 1.0);
        assert_eq!(share(0.0, 0, 0), 1.0, "WS_FLUSH_WINDOW_MAX=0ms");
        assert_eq!(share(0.1, 100, 40), 1.0, "WS_MAX_BROADCAST_RATE asks for more");
    }
}
