//! The real program as a child process: started with an environment of its own, read line by line, never left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::http::{self, Response};
use super::metrics::Metrics;
use super::{Cluster, eventually};

/// The program, with nothing of the test's environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odin-gateway"));
    command.env_clear();
    command
}

/// A program about to be started.
pub(crate) struct Launch {
    command: Command,
}

impl Launch {
    /// Reads from this cluster, on a port of its own.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self::with_brokers(&cluster.brokers())
    }

    pub(crate) fn with_brokers(brokers: &str) -> Self {
        // The mock does not wake a waiting fetch.
        Self::of(program()).env("KAFKA_BROKERS", brokers).env("KAFKA_PROPERTIES", "fetch.wait.max.ms=5")
    }

    /// Any command that ends up as the program.
    pub(crate) fn of(mut command: Command) -> Self {
        command
            .env("WS_ADDR", "127.0.0.1:0")
            .env("WS_MAX_CONNECTIONS", "1000")
            .env("LOG_FORMAT", "json")
            // Several gateways share the machine's few CPUs.
            .env("WS_PINNING", "off")
            // Most partitions of a session are those of other shards.
            .env("WS_SHARDS", "3");
        Self { command }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Starts it and waits until it is ready: until every partition has an offset.
    pub(crate) fn start(self) -> Gateway {
        let gateway = self.start_listening();
        eventually("the gateway is ready", || (gateway.get("/health/ready").status == 200).then_some(()));
        gateway
    }

    /// Starts it and waits only until it listens.
    pub(crate) fn start_listening(self) -> Gateway {
        let mut gateway = self.spawn();
        gateway.address = eventually("the gateway listens", || {
            if let Some(status) = gateway.exited() {
                panic!("the gateway ended at once: {status}");
            }
            gateway.line("serving").map(|line| line["address"].as_str().unwrap().parse().unwrap())
        });
        gateway
    }

    /// Starts it and waits for its end.
    pub(crate) fn end(self) -> Ended {
        self.spawn().end()
    }

    fn spawn(mut self) -> Gateway {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        let readers = [stdout, stderr].map(|pipe| collect(pipe, Arc::clone(&output)));
        Gateway { child, address: SocketAddr::from(([0; 4], 0)), output, readers: readers.into() }
    }
}

fn collect(pipe: Box<dyn Read + Send>, output: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            output.lock().unwrap().push(line.unwrap());
        }
    })
}

/// A running program; killed at the end of the test, whatever that is, and its output shown when the test has failed.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    /// Standard output and standard error.
    pub(crate) output: String,
}

impl Gateway {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last log line with this message.
    pub(crate) fn line(&self, message: &str) -> Option<Value> {
        let output = self.output.lock().unwrap();
        let lines = output.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["message"] == message)
    }

    /// Waits for a log line with this message: what was written before an answer may be read after it.
    pub(crate) fn line_when(&self, message: &str) -> Value {
        eventually(message, || self.line(message))
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().join("\n")
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        http::request(self.address, "GET", path)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Response {
        http::request(self.address, method, path)
    }

    pub(crate) fn health(&self) -> Value {
        self.get("/health").json()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        // What a client that the machine holds up does not take in two seconds is cut off.
        let response = eventually("a whole page", || {
            let response = self.get("/metrics");
            assert_eq!(response.status, 200);
            response.body.ends_with("# EOF\n").then_some(response)
        });
        Metrics::parse(&response.body)
    }

    /// Waits until the metrics, which are up to a second old, are as asked.
    pub(crate) fn metrics_when(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        eventually(what, || {
            let metrics = self.metrics();
            holds(&metrics).then_some(metrics)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let status = eventually("the gateway ends", || self.exited());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended { code: status.code(), output: self.output() }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Long gone, when `end` was called.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap_or_default());
        if thread::panicking() {
            println!("--- the gateway's output ---\n{}\n---", self.output());
        }
    }
}
