//! The server under test, measured from outside: its CPU and memory in /proc, and its own metrics.
//!
//! Any program that accepts sessions can be measured; figures that it does not offer (a process on this
//! machine, `/metrics`) are not reported. Readings that may block are taken on a separate thread; only
//! [`process::cpu_time`] is cheap enough for the thread of the sessions.

pub mod exposition;
pub mod process;

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::dialect::Dialect;
use crate::client::target::Target;
use exposition::{Buckets, Exposition};

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_millis(900);
/// One hour of readings.
const SECONDS_MAX: usize = 3_600;
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The server that a scenario measures.
#[derive(Clone, Debug)]
pub struct Server {
    /// The name in tables.
    pub name: String,
    /// The address that sessions connect to.
    pub target: Target,
    /// The protocol of the sessions.
    pub dialect: Dialect,
    /// The process id, if the server runs on this machine.
    pub pid: Option<u32>,
    /// The URL of the metrics page.
    pub metrics_url: Option<String>,
}

/// One reading of the server.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When the reading was taken.
    pub at: Instant,
    /// CPU of all threads so far.
    pub cpu: Option<Duration>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// The counts so far; the server updates them once a second.
    pub exposition: Option<Exposition>,
}

/// Latency between two readings of the server's histogram that differ.
#[derive(Clone, Copy, Debug)]
struct SecondLatency {
    ended: Instant,
    /// 99th percentile of deliveries from poll to socket, in seconds.
    p99_s: f64,
}

#[derive(Debug, Default)]
struct Readings {
    newest: Option<Reading>,
    seconds: Vec<SecondLatency>,
}

/// Takes a reading once a second, until it is dropped.
#[derive(Debug)]
pub struct ServerPoll {
    readings: Arc<Mutex<Readings>>,
    /// Dropping it ends the thread.
    _stop: Sender<()>,
}

impl ServerPoll {
    /// Starts with an immediate reading.
    pub fn start(server: &Server) -> std::io::Result<Self> {
        let readings = Arc::new(Mutex::new(Readings::default()));
        let (stop, stopped) = channel();
        let (shared, server) = (Arc::clone(&readings), server.clone());
        thread::Builder::new().name("server".to_owned()).spawn(move || poll(&server, &shared, &stopped))?;
        Ok(Self { readings, _stop: stop })
    }

    /// The last reading; `None` before the first.
    pub fn newest(&self) -> Option<Reading> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).newest.clone()
    }

    /// The highest p99 from poll to socket, in seconds, of all seconds that ended in this period.
    pub fn worst_p99_s(&self, time: Range<Instant>) -> Option<f64> {
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let within = readings.seconds.iter().filter(|second| time.contains(&second.ended));
        within.map(|second| second.p99_s).reduce(f64::max)
    }
}

fn poll(server: &Server, readings: &Mutex<Readings>, stopped: &Receiver<()>) {
    let config = ureq::Agent::config_builder().timeout_global(Some(POLL_TIMEOUT));
    let agent = config.build().new_agent();
    let mut due = Instant::now();
    let mut counted: Option<Buckets> = None;
    loop {
        let reading = read(server, &agent);
        let counts = reading.exposition.as_ref().map(|exposition| exposition.latency_from_poll.clone());
        let second = counts.as_ref().zip(counted.as_ref()).and_then(|(now, before)| {
            Some(SecondLatency { ended: reading.at, p99_s: now.since(before).quantile(0.99)? })
        });
        counted = counts.or(counted);
        let mut known = readings.lock().unwrap_or_else(PoisonError::into_inner);
        if known.seconds.len() < SECONDS_MAX {
            known.seconds.extend(second);
        }
        known.newest = Some(reading);
        drop(known);
        due = (due + POLL_INTERVAL).max(Instant::now());
        // Waits on the channel instead of sleeping, so that the end of the run ends the wait.
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
