//! The health of the gateway: `/health` for people and load balancers.
//!
//! Pure: inputs in, a report out. The fields and words are those that the Go server's tools read. One rule: a state that keeps
//! events from clients, or new clients out permanently, is an error (unhealthy, 503); a state that an operator should look at is
//! a warning (degraded, 200); a check without either is healthy.
//!
//! An overloaded gateway is degraded and not ready, and so is a full one. Its sessions are well, and a restart, which an
//! unhealthy gateway invites, would only harm them. But it refuses new sessions, and a load balancer that checks `/health/ready`
//! sends them elsewhere and keeps the existing ones. Overload by CPU begins and ends by two readings in a row, a second apart
//! while Kafka is read; a shortage of memory or connections begins at once, and ends when 5% are free. With a load that rises and
//! falls within seconds readiness changes as often: a balancer that should react more slowly needs several failed checks.

use std::time::Duration;

use serde::Serialize;

use super::readiness::{DRAINING, obstacle, silent};
use crate::admission::overload::Decision;
use crate::config::Config;
use crate::counters::Counters;
use crate::kafka::status::Status;
use crate::limits::{MIB, SHARD_SILENCE_MAX};
use crate::process::resource_usage::ResourceUsage;

/// Percent of a limit above which there is a warning.
const WARN_PERCENT: f64 = 90.0;

/// The inputs of a report.
pub(crate) struct HealthInputs<'a> {
    pub(crate) config: &'a Config,
    pub(crate) kafka: Status,
    /// Each shard's counters.
    pub(crate) shards: Vec<Counters>,
    /// The time since each shard's last turn; `None` before its first.
    pub(crate) silences: Vec<Option<Duration>>,
    pub(crate) usage: ResourceUsage,
    pub(crate) overload: Decision,
    pub(crate) uptime: Duration,
    pub(crate) dev_brokers: Option<&'a str>,
    pub(crate) is_draining: bool,
}

/// The body of `/health`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    status: &'static str,
    healthy: bool,
    /// Whether the gateway drains.
    draining: bool,
    checks: Checks,
    warnings: Vec<String>,
    errors: Vec<String>,
    /// Seconds.
    uptime: u64,
    version: &'static str,
    environment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<Dev<'a>>,
}

/// Additional fields with --dev.
#[derive(Debug, Serialize)]
struct Dev<'a> {
    /// The embedded broker's address, for programs that produce.
    brokers: &'a str,
}

#[derive(Debug, Serialize)]
struct Checks {
    kafka: KafkaCheck,
    capacity: CapacityCheck,
    memory: MemoryCheck,
    cpu: CpuCheck,
    shards: ShardsCheck,
}

#[derive(Debug, Serialize)]
struct KafkaCheck {
    status: &'static str,
    healthy: bool,
    topics: usize,
    topics_missing: Vec<String>,
    partitions: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    topics_forbidden: Vec<String>,
    /// Partitions that are not fetched although their logs grow.
    partitions_stuck: usize,
    /// How long the oldest undelivered record has waited.
    lag_seconds: f64,
    /// No records are taken, because of overload.
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct CapacityCheck {
    /// Sessions.
    current: u64,
    max: usize,
    percentage: f64,
    healthy: bool,
}

#[derive(Debug, Serialize)]
struct MemoryCheck {
    used_mb: f64,
    /// `None`, like the percentage, if the limit is unknown.
    limit_mb: Option<f64>,
    percentage: Option<f64>,
    healthy: bool,
}

#[derive(Debug, Serialize)]
struct CpuCheck {
    /// Percent of the limit; `None` if it is unknown.
    percentage: Option<f64>,
    /// The percentage above which an overloaded gateway refuses sessions.
    threshold: f64,
    healthy: bool,
}

#[derive(Debug, Serialize)]
struct ShardsCheck {
    count: usize,
    healthy: bool,
    /// The shards, by number.
    each: Vec<ShardCheck>,
}

#[derive(Debug, Serialize)]
struct ShardCheck {
    id: usize,
    /// Sessions, as in the capacity.
    connections: u64,
    channels: u64,
    healthy: bool,
}

/// Errors and warnings so far.
#[derive(Default)]
struct Findings {
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Findings {
    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn err(&mut self, text: String) {
        self.errors.push(text);
    }

    fn len(&self) -> usize {
        self.warnings.len() + self.errors.len()
    }

    /// Runs a check, and returns whether it found nothing.
    fn check<T>(&mut self, check: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = self.len();
        let checked = check(self);
        (checked, self.len() == before)
    }
}

impl Report<'_> {
    /// The HTTP status.
    pub(crate) fn status_code(&self) -> u16 {
        if self.healthy { 200 } else { 503 }
    }
}

/// Makes the report.
pub(crate) fn report<'a>(picture: &HealthInputs<'a>) -> Report<'a> {
    let mut findings = Findings::default();
    if picture.is_draining {
        findings.err(DRAINING.to_owned());
    }
    let checks = Checks {
        kafka: kafka(picture, &mut findings),
        capacity: capacity(picture, &mut findings),
        memory: memory(picture, &mut findings),
        cpu: cpu(picture, &mut findings),
        shards: shards(picture, &mut findings),
    };
    let Findings { warnings, errors } = findings;
    let status = match (errors.is_empty(), warnings.is_empty()) {
        (false, _) => "unhealthy",
        (true, false) => "degraded",
        (true, true) => "healthy",
    };
    Report {
        status,
        healthy: errors.is_empty(),
        draining: picture.is_draining,
        checks,
        warnings,
        errors,
        uptime: picture.uptime.as_secs(),
        version: env!("CARGO_PKG_VERSION"),
        environment: &picture.config.environment,
        dev: picture.dev_brokers.map(|brokers| Dev { brokers }),
    }
}

fn kafka(picture: &HealthInputs<'_>, findings: &mut Findings) -> KafkaCheck {
    let status = &picture.kafka;
    let ((), healthy) = findings.check(|findings| {
        if let Some(obstacle) = obstacle(status) {
            return findings.err(obstacle);
        }
        if !status.topics_missing.is_empty() {
            let names = status.topics_missing.join(", ");
            findings.warn(format!(
                "Kafka does not have the topics {names}: create them or correct KAFKA_TOPICS; they are read as soon as they exist"
            ));
        }
        if !status.topics_forbidden.is_empty() {
            let names = status.topics_forbidden.join(", ");
            findings.warn(format!(
                "the gateway may not read the topics {names}: the ACL READ is missing for its user; they are read as soon as it is there"
            ));
        }
        if let Some(stuck) = &status.stuck {
            findings.warn(match status.partitions_stuck.saturating_sub(1) {
                0 => stuck.clone(),
                others => format!("{stuck} ({others} others stand still too)"),
            });
        }
        if let Some(error) = &status.error {
            findings.warn(format!("Kafka answers, but not without errors: {error}"));
        }
        if status.paused {
            findings.warn(format!(
                "Kafka is not read while the CPU is above {}% of WS_CPU_LIMIT (WS_CPU_PAUSE_THRESHOLD) and the flush window at its \
                 maximum: records wait there and come later",
                picture.config.overload.pause_percent
            ));
        }
        if let Some(lag_max) = picture.config.kafka.lag_max.map(|lag_max| lag_max.as_secs_f64())
            && percent(status.lag_s, lag_max) > WARN_PERCENT
        {
            findings.warn(format!(
                "records wait {:.1} s to be delivered; beyond {lag_max} s (WS_MAX_LAG) they are skipped with a gap",
                status.lag_s
            ));
        }
    });
    KafkaCheck {
        status: status.word(),
        healthy,
        topics: picture.config.kafka.topics.len(),
        topics_missing: status.topics_missing.clone(),
        partitions: status.partitions,
        topics_forbidden: status.topics_forbidden.clone(),
        partitions_stuck: status.partitions_stuck,
        lag_seconds: rounded(status.lag_s),
        paused: status.paused,
        error: status.error.clone(),
    }
}

fn capacity(picture: &HealthInputs<'_>, findings: &mut Findings) -> CapacityCheck {
    let max = picture.config.listen.connections_max;
    let current: u64 = picture.shards.iter().map(|shard| shard.sessions).sum();
    let percentage = percent(current as f64, max as f64);
    let ((), healthy) = findings.check(|findings| {
        if current >= max as u64 {
            findings
                .warn(format!("all {max} connections are taken (WS_MAX_CONNECTIONS): new ones are refused"));
        } else if picture.overload.is_full {
            findings.warn(format!(
                "{current} of {max} connections are taken (WS_MAX_CONNECTIONS): not ready for new ones until 5% are free"
            ));
        } else if percentage > WARN_PERCENT {
            findings.warn(format!("{current} of {max} connections are taken (WS_MAX_CONNECTIONS)"));
        }
    });
    CapacityCheck { current, max, percentage, healthy }
}

fn memory(picture: &HealthInputs<'_>, findings: &mut Findings) -> MemoryCheck {
    let used = picture.usage.memory_bytes() as f64;
    let limit = picture.config.resource_limits.memory_bytes.map(|bytes| bytes as f64);
    let percentage = limit.map(|limit| percent(used, limit));
    let ((), healthy) = findings.check(|findings| {
        let Some((limit, percentage)) = limit.zip(percentage) else { return };
        let text =
            format!("{} of {} MB of memory are used (WS_MEMORY_LIMIT)", megabytes(used), megabytes(limit));
        if percentage >= 100.0 {
            findings.warn(format!("{text}: new sessions are refused"));
        } else if picture.overload.is_memory_full {
            findings.warn(format!("{text}: new sessions are refused until it is 5% below the limit"));
        } else if percentage > WARN_PERCENT {
            findings.warn(text);
        }
    });
    MemoryCheck { used_mb: megabytes(used), limit_mb: limit.map(megabytes), percentage, healthy }
}

fn cpu(picture: &HealthInputs<'_>, findings: &mut Findings) -> CpuCheck {
    let percentage = picture.usage.cpu_percent(&picture.config.resource_limits).map(rounded);
    let threshold = picture.config.overload.reject_percent;
    let ((), healthy) = findings.check(|findings| {
        if picture.overload.is_cpu_overloaded {
            let now = percentage.map(|percent| format!(", now {percent}%")).unwrap_or_default();
            findings.warn(format!(
                "new sessions are refused: the CPU was above {threshold}% of WS_CPU_LIMIT (WS_CPU_REJECT_THRESHOLD){now}, and the \
                 flush window at its maximum (WS_FLUSH_WINDOW_MAX)"
            ));
        }
    });
    CpuCheck { percentage, threshold, healthy }
}

/// By the age of the last turn, because a shard that has turned may have stopped since. A failed shard ends the process.
fn shards(picture: &HealthInputs<'_>, findings: &mut Findings) -> ShardsCheck {
    let (each, healthy) = findings.check(|findings| {
        let shards = picture.shards.iter().zip(&picture.silences).enumerate();
        let check = |(id, (shard, silence)): (usize, (&Counters, &Option<Duration>))| {
            let (_, healthy) = findings.check(|findings| match silence {
                None => findings.err(format!("shard {id} has not started yet")),
                Some(silence) if *silence >= SHARD_SILENCE_MAX => {
                    findings.err(silent(id, *silence));
                }
                Some(_) => {}
            });
            ShardCheck { id, connections: shard.sessions, channels: shard.channels, healthy }
        };
        shards.map(check).collect::<Vec<_>>()
    });
    ShardsCheck { count: each.len(), healthy, each }
}

fn percent(part: f64, whole: f64) -> f64 {
    rounded(100.0 * part / whole)
}

/// In units of 1,048,576 bytes, as the Go server counted.
fn megabytes(bytes: f64) -> f64 {
    rounded(bytes / MIB as f64)
}

/// Rounded to two decimals.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
#[path = "tests/health.rs"]
mod tests;
