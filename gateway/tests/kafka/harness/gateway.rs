//! The real program as a child process, never left behind.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Brokers, eventually};

/// A program about to be started.
pub(crate) struct Launch {
    command: Command,
}

impl Launch {
    /// Reads from these brokers, on a port of its own.
    pub(crate) fn new(brokers: &Brokers) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_odin-gateway"));
        command
            .env_clear()
            .env("KAFKA_BROKERS", &brokers.addresses)
            .env("WS_ADDR", "127.0.0.1:0")
            .env("WS_MAX_CONNECTIONS", "1000")
            // The machine's CPUs are shared with the brokers and the clients.
            .env("WS_PINNING", "off");
        Self { command }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits until every partition has an offset.
    pub(crate) fn start(self) -> Gateway {
        let gateway = self.start_listening();
        eventually("the gateway is ready", || (gateway.get("/health/ready").0 == 200).then_some(()));
        gateway
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start_listening(mut self) -> Gateway {
        let mut child = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let output: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&output);
        let reader =
            thread::spawn(move || stdout.lines().for_each(|line| lines.lock().unwrap().push(line.unwrap())));
        let mut gateway = Gateway { child, address: ([0; 4], 0).into(), output, reader: Some(reader) };
        gateway.address = eventually("the gateway listens", || {
            let ended = gateway.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended at once: {ended:?}");
            gateway.serving_address()
        });
        gateway
    }
}

/// A running program; killed at the end of the test, whatever that is, and its output shown when the test has failed.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    output: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Gateway {
    fn serving_address(&self) -> Option<SocketAddr> {
        let output = self.output.lock().unwrap();
        let mut lines = output.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["message"] == "serving")?;
        Some(line["address"].as_str().unwrap().parse().unwrap())
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path)
    }

    /// The body of /health.
    pub(crate) fn health(&self) -> Value {
        serde_json::from_str(&self.get("/health").1).unwrap()
    }

    /// Waits until /health says so.
    pub(crate) fn await_status(&self, status: &str) {
        eventually(&format!("the gateway is {status}"), || (self.health()["status"] == status).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Gateway {
    /// SIGKILL; returns once it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            println!("--- the gateway's output ---\n{}\n---", self.output.lock().unwrap().join("\n"));
        }
    }
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let mut response = agent.get(format!("http://{address}{path}")).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// Asks /health all the time, and writes down what it says whenever that changes.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    pub(crate) fn start(gateway: &Gateway) -> Self {
        let is_over: Arc<AtomicBool> = Arc::default();
        let (address, over) = (gateway.address, Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut seen: Vec<String> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let health: Value = serde_json::from_str(&get(address, "/health").1).unwrap();
                let status = health["status"].as_str().unwrap();
                if seen.last().is_none_or(|last| last != status) {
                    seen.push(status.to_owned());
                }
                thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Self { is_over, thread }
    }

    /// What it said, one after another.
    pub(crate) fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
