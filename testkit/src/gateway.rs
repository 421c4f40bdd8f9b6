//! The gateway as a child process.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::eventually;
use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::program::{Ended, Program};

/// A gateway about to be started.
///
/// How long to wait is the test's choice, and there is no default. Between "it listens" and "it is ready" clients are let in already,
/// and faults of that time show only in tests that use [`Launch::start_listening`].
pub struct Launch {
    command: Command,
    /// Standard output and standard error are the test's.
    has_output: bool,
}

impl Launch {
    /// Any command that ends up as the gateway, on a port of its own. Cargo tells the program's path only to the integration tests
    /// of its package, so they give it.
    pub fn of(mut command: Command) -> Self {
        command
            .env("WS_ADDR", "127.0.0.1:0")
            .env("WS_MAX_CONNECTIONS", "1000")
            .env("LOG_FORMAT", "json")
            // Several gateways, their clients and brokers share the machine's few CPUs.
            .env("WS_PINNING", "off");
        Self { command, has_output: false }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// With standard output and standard error to somewhere else than into [`Program::output`].
    #[must_use]
    pub fn output_to(mut self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout).stderr(stderr);
        self.has_output = true;
        self
    }

    /// Starts it at a port that was free and waits until it is ready: its log is not needed.
    pub fn start_unheard(self) -> Gateway {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let program = self.env("WS_ADDR", address.to_string()).spawn();
        let mut gateway = Gateway { program, address };
        eventually("the gateway listens", || {
            assert_eq!(gateway.exited(), None, "it ended at once");
            TcpStream::connect(address).ok()
        });
        gateway.await_ready();
        gateway
    }

    /// Starts it and waits for nothing.
    pub fn start_early(self) -> Program {
        self.spawn()
    }

    fn spawn(self) -> Program {
        match self.has_output {
            true => Program::start_as_it_is(self.command),
            false => Program::start(self.command),
        }
    }

    /// Starts it and waits only until its port is open: clients may come, but no partition need have an offset yet.
    pub fn start_listening(self) -> Gateway {
        let mut program = self.spawn();
        let address = program.address_when("serving");
        Gateway { program, address }
    }

    /// Starts it and waits until `/health/ready` says 200: until every partition is read and its history is filled.
    pub fn start_ready(self) -> Gateway {
        let gateway = self.start_listening();
        gateway.await_ready();
        gateway
    }

    /// Starts it and waits for its end.
    pub fn end(self) -> Ended {
        self.spawn().end()
    }
}

/// A running gateway. What every program can do it can do too, see [`Program`].
pub struct Gateway {
    program: Program,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Gateway {
    /// Answers a GET.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path)
    }

    /// Answers a request without a body.
    pub fn request(&self, method: &str, path: &str) -> Response {
        http::request(self.address, method, path)
    }

    /// The body of `/health`.
    pub fn health(&self) -> Value {
        self.get("/health").json()
    }

    /// Waits until `/health/ready` says 200.
    pub fn await_ready(&self) {
        eventually("the gateway is ready", || (self.get("/health/ready").status == 200).then_some(()));
    }

    /// Waits until `/health` says so.
    pub fn await_status(&self, status: &str) {
        eventually(&format!("the gateway is {status}"), || (self.health()["status"] == status).then_some(()));
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> Metrics {
        // What a client that the machine holds up does not take in two seconds is cut off.
        let response = eventually("a whole page", || {
            let response = self.get("/metrics");
            assert_eq!(response.status, 200);
            response.body.ends_with("# EOF\n").then_some(response)
        });
        Metrics::parse(&response.body)
    }

    /// Waits until the metrics, which are up to a second old, are as asked.
    pub fn metrics_when(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        eventually(what, || {
            let metrics = self.metrics();
            holds(&metrics).then_some(metrics)
        })
    }

    /// Waits for the end.
    pub fn end(self) -> Ended {
        self.program.end()
    }
}

impl Deref for Gateway {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}
