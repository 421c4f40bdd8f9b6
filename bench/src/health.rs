//! The server's health: `/health`, polled every 5 s on a separate thread, because a slow answer must not
//! delay the sessions' thread. The page is optional; without it no health is shown.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const POLL_INTERVAL: Duration = Duration::from_secs(5);
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// The newest health, and the highest CPU usage of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerHealth {
    /// `healthy`, `degraded`, `unhealthy`, or another status that the server reports.
    pub status: String,
    /// CPU in percent of its limit.
    pub cpu_percent: Option<f64>,
    /// The highest CPU percentage of all polls.
    pub cpu_percent_max: Option<f64>,
    /// Memory in percent of its limit.
    pub memory_percent: Option<f64>,
    /// Number of sessions that the server reports.
    pub connections: Option<u64>,
}

impl ServerHealth {
    /// A one-line description.
    pub fn describe(&self) -> String {
        match self.cpu_percent {
            Some(cpu) => format!("{} {cpu:.0}% CPU", self.status),
            None => self.status.clone(),
        }
    }
}

/// The parsed fields of the document; all of them may be missing.
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
    /// Dropping it ends the thread.
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

    /// `None` until the server has answered.
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
        // Waits on the channel instead of sleeping, so that the end of the run ends the wait.
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
