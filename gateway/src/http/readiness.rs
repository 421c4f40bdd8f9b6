//! Whether new clients may be sent to the gateway (`/health/ready`), and why not. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::admission::overload::Decision;
use crate::counters::Refusal;
use crate::kafka::status::Status;

/// The finding of a draining gateway.
pub(crate) const DRAINING: &str =
    "the gateway is draining: it takes no new sessions, and tells those that it has to connect again";

/// The body of `/health/ready`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Readiness {
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Readiness {
    /// The HTTP status.
    pub(crate) fn status_code(&self) -> u16 {
        if self.reason.is_none() { 200 } else { 503 }
    }

    /// A gateway with a shard that does not turn is not ready either: some of its new clients would wait for ever.
    pub(crate) fn unless_silent(self, shard: Option<(usize, Duration)>) -> Self {
        match shard {
            Some((shard, silence)) if self.reason.is_none() => {
                Self { status: "not_ready", reason: Some(silent(shard, silence)) }
            }
            _ => self,
        }
    }
}

/// Decides whether new clients may be sent here. Once every partition has an offset and the history is filled, the gateway stays
/// ready until it ends: with a missing topic, or with brokers that are away for a while, clients are no better off elsewhere, and
/// its sessions would lose their place. While it is overloaded or full it refuses new sessions, so it is not ready.
pub(crate) fn readiness(status: &Status, overload: Decision, is_draining: bool) -> Readiness {
    let reason = if is_draining {
        Some(DRAINING.to_owned())
    } else if !status.assigned {
        obstacle(status)
    } else if !status.warm {
        Some("the history is being read from Kafka (WS_HISTORY_WARMUP)".to_owned())
    } else {
        no_room(overload)
    };
    let status = match &reason {
        None => "ready",
        Some(_) if is_draining => "draining",
        Some(_) => "not_ready",
    };
    Readiness { status, reason }
}

/// The reason why a new client finds no room, if there is one.
fn no_room(overload: Decision) -> Option<String> {
    let reason = match overload.refusal() {
        Some(Refusal::MemoryLimit) => "overloaded: new sessions are refused (WS_MEMORY_LIMIT)",
        Some(_) => "overloaded: new sessions are refused (WS_CPU_REJECT_THRESHOLD)",
        None if overload.is_full => {
            "full: all connections are taken, or were and fewer than 5% are free again (WS_MAX_CONNECTIONS)"
        }
        None => return None,
    };
    Some(reason.to_owned())
}

/// The reason why no events arrive, if there is one.
pub(crate) fn obstacle(status: &Status) -> Option<String> {
    let because = status.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    match (status.connected, status.assigned) {
        (true, true) => None,
        (true, false) if status.partitions == 0 && !status.topics_missing.is_empty() => Some(format!(
            "Kafka has none of the topics {}: create them or correct KAFKA_TOPICS{because}",
            status.topics_missing.join(", ")
        )),
        (true, false) => {
            Some(format!("Kafka's partitions do not all have an offset to start from yet{because}"))
        }
        (false, false) => Some(format!(
            "no Kafka broker has answered yet{because}; the gateway keeps trying: check KAFKA_BROKERS and the way there"
        )),
        (false, true) => Some(format!(
            "no Kafka broker answers{because}; the gateway keeps trying, sessions stay, and delivery goes on where it stopped"
        )),
    }
}

pub(crate) fn silent(shard: usize, silence: Duration) -> String {
    format!(
        "shard {shard} has not turned for {} s: its sessions get nothing; if the machine has CPU to spare, the process ends and wants \
         to be restarted",
        silence.as_secs()
    )
}
