//! The server under test, as it is measured from outside: its CPU and memory in /proc, and what it counts itself.
//!
//! Any program that takes sessions will do; what it does not offer (a process here, `/metrics`) is just not reported. Readings that
//! may wait are taken on a thread of their own; only [`process::cpu_time`] is cheap enough for the thread of the sessions.

pub mod exposition;
pub mod process;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::dialect::Dialect;
use crate::client::target::Target;
use exposition::Exposition;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_millis(900);
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a scenario measures.
#[derive(Clone, Debug)]
pub struct Server {
    /// For tables.
    pub name: String,
    /// Where sessions connect to.
    pub target: Target,
    /// What sessions speak.
    pub dialect: Dialect,
    /// Its process, when it runs on this machine.
    pub pid: Option<u32>,
    /// Where it shows its metrics.
    pub metrics_url: Option<String>,
}

/// One look at the server.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// CPU of all its threads so far.
    pub cpu: Option<Duration>,
    /// Its resident memory.
    pub rss_bytes: Option<u64>,
    /// What it counted so far; its own picture may be a second old.
    pub exposition: Option<Exposition>,
}

/// Looks once a second, until it is dropped.
#[derive(Debug)]
pub struct ServerPoll {
    newest: Arc<Mutex<Option<Reading>>>,
    /// Dropped with the rest, which ends the thread.
    _stop: Sender<()>,
}

impl ServerPoll {
    /// Begins with a look at once.
    pub fn start(server: &Server) -> std::io::Result<Self> {
        let newest = Arc::new(Mutex::new(None));
        let (stop, stopped) = channel();
        let (shared, server) = (Arc::clone(&newest), server.clone());
        thread::Builder::new().name("server".to_owned()).spawn(move || poll(&server, &shared, &stopped))?;
        Ok(Self { newest, _stop: stop })
    }

    /// The last look; `None` before the first.
    pub fn newest(&self) -> Option<Reading> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn poll(server: &Server, newest: &Mutex<Option<Reading>>, stopped: &Receiver<()>) {
    let config = ureq::Agent::config_builder().timeout_global(Some(POLL_TIMEOUT));
    let agent = config.build().new_agent();
    let mut due = Instant::now();
    loop {
        let reading = read(server, &agent);
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
        due = (due + POLL_INTERVAL).max(Instant::now());
        // Not a sleep: the run's end ends it.
        if stopped.recv_timeout(due.saturating_duration_since(Instant::now()))
            != Err(RecvTimeoutError::Timeout)
        {
            return;
        }
    }
}

fn read(server: &Server, agent: &ureq::Agent) -> Reading {
    let exposition = server.metrics_url.as_deref().and_then(|url| scrape(agent, url));
    Reading {
        at: Instant::now(),
        cpu: server.pid.and_then(|pid| process::cpu_time(pid).ok()),
        rss_bytes: server.pid.and_then(|pid| process::rss_bytes(pid).ok()),
        exposition,
    }
}

fn scrape(agent: &ureq::Agent, url: &str) -> Option<Exposition> {
    let mut response = agent.get(url).call().ok()?;
    let text = response.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_string().ok()?;
    Some(Exposition::parse(&text))
}
