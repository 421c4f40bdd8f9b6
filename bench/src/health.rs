//! What the server says about itself: `/health`, polled each 5 s on a thread of its own, because a slow answer must not
//! hold up a harvest. A server without it is as good; then there is just nothing to show.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const POLL_INTERVAL: Duration = Duration::from_secs(5);
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// The newest health, and the worst of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerHealth {
    /// `healthy`, `degraded`, `unhealthy`, or whatever else it said.
    pub status: String,
    /// CPU in percent of its allocation.
    pub cpu_percent: Option<f64>,
    /// The most that a poll saw.
    pub cpu_percent_max: Option<f64>,
    /// Memory in percent of its limit.
    pub memory_percent: Option<f64>,
    /// Sessions that it counts.
    pub connections: Option<u64>,
}

impl ServerHealth {
    /// In words.
    pub fn describe(&self) -> String {
        match self.cpu_percent {
            Some(cpu) => format!("{} {cpu:.0}% CPU", self.status),
            None => self.status.clone(),
        }
    }
}

/// What is read of the document; all of it may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    status: Option<String>,
    checks: Checks,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Checks {
    cpu: Share,
    memory: Share,
    capacity: Capacity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Share {
    percentage: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Capacity {
    current: Option<u64>,
}

/// Polls until it is dropped.
#[derive(Debug)]
pub struct HealthPoll {
    newest: Arc<Mutex<Option<ServerHealth>>>,
    /// Dropped with the rest, which ends the thread.
    _stop: Sender<()>,
}

impl HealthPoll {
    /// Starts polling.
    pub fn start(url: String) -> std::io::Result<Self> {
        let newest = Arc::new(Mutex::new(None));
        let (stop, stopped) = channel();
        let shared = Arc::clone(&newest);
        thread::Builder::new().name("health".to_owned()).spawn(move || poll(&url, &shared, &stopped))?;
        Ok(Self { newest, _stop: stop })
    }

    /// `None` while the server has not answered.
    pub fn newest(&self) -> Option<ServerHealth> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn poll(url: &str, newest: &Mutex<Option<ServerHealth>>, stopped: &Receiver<()>) {
    let config = ureq::Agent::config_builder().timeout_global(Some(POLL_TIMEOUT)).http_status_as_error(false);
    let agent = config.build().new_agent();
    loop {
        if let Some(document) = fetch(&agent, url) {
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = Some(update(newest.take(), document));
        }
        // Not a sleep: the run's end ends it.
        if stopped.recv_timeout(POLL_INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn fetch(agent: &ureq::Agent, url: &str) -> Option<Document> {
    let mut response = agent.get(url).call().ok()?;
    response.body_mut().with_config().limit(BODY_BYTES_MAX).read_json().ok()
}

fn update(before: Option<ServerHealth>, document: Document) -> ServerHealth {
    let cpu_percent = document.checks.cpu.percentage;
    let cpu_percent_before = before.and_then(|before| before.cpu_percent_max);
    let cpu_percent_max = [cpu_percent, cpu_percent_before].into_iter().flatten().reduce(f64::max);
    ServerHealth {
        status: document.status.unwrap_or_else(|| "unknown".to_owned()),
        cpu_percent,
        cpu_percent_max,
        memory_percent: document.checks.memory.percentage,
        connections: document.checks.capacity.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        serde_json::from_str(text).expect("a document")
    }

    #[test]
    fn the_gateways_document_is_read_and_the_worst_cpu_is_kept() {
        let busy = document(
            r#"{"status":"healthy","checks":{"kafka":{"status":"running"},"capacity":{"current":7,"max":9},
                "memory":{"percentage":3.5},"cpu":{"percentage":80.5,"threshold":75}},"uptime":3}"#,
        );
        let health = update(None, busy);
        assert_eq!((health.status.as_str(), health.connections), ("healthy", Some(7)));
        assert_eq!(health.memory_percent, Some(3.5));
        assert_eq!(health.describe(), "healthy 80% CPU");
        let health = update(Some(health), document(r#"{"checks":{"cpu":{"percentage":10}}}"#));
        assert_eq!((health.cpu_percent, health.cpu_percent_max), (Some(10.0), Some(80.5)));
        assert_eq!(health.status, "unknown");
    }
}
