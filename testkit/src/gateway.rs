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

/// A gateway that is about to be started.
///
/// The test chooses how long to wait; there is no default. A gateway that listens but is not ready already
/// admits clients, and faults of that period appear only in tests that use [`Launch::start_listening`].
pub struct Launch {
    command: Command,
    /// Standard output and standard error were redirected by the test.
    has_output: bool,
}

impl Launch {
    /// Any command that executes the gateway; the gateway gets its own port. Cargo provides the program's
    /// path only to the integration tests of its package, so they pass it.
    pub fn of(mut command: Command) -> Self {
        command
            .env("WS_ADDR", "127.0.0.1:0")
            .env("WS_MAX_CONNECTIONS", "1000")
            .env("LOG_FORMAT", "json")
            // Several gateways, their clients and brokers share the few CPUs of the machine.
            .env("WS_PINNING", "off");
        Self { command, has_output: false }
    }

    /// Sets an environment variable.
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

    /// Redirects standard output and standard error, which are otherwise collected in [`Program::output`].
    #[must_use]
    pub fn output_to(mut self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout).stderr(stderr);
        self.has_output = true;
        self
    }

    /// Starts the gateway on a free port and waits until it is ready, without reading its log.
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

    /// Starts the gateway without waiting.
    pub fn start_early(self) -> Program {
        self.spawn()
    }

    fn spawn(self) -> Program {
        match self.has_output {
            true => Program::start_as_it_is(self.command),
            false => Program::start(self.command),
        }
    }

    /// Starts the gateway and waits only until its port is open: clients can connect, but partitions may not
    /// have an offset yet.
    pub fn start_listening(self) -> Gateway {
        let mut program = self.spawn();
        let address = program.address_when("serving");
        Gateway { program, address }
    }

    /// Starts the gateway and waits until `/health/ready` returns 200: every partition is read and its
    /// history is filled.
    pub fn start_ready(self) -> Gateway {
        let gateway = self.start_listening();
        gateway.await_ready();
        gateway
    }

    /// Starts the gateway and waits for its exit.
    pub fn end(self) -> Ended {
        self.spawn().end()
    }
}

/// A running gateway. It dereferences to [`Program`].
pub struct Gateway {
    program: Program,
    /// The address that the gateway listens on.
    pub address: SocketAddr,
}

impl Gateway {
    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path)
    }

    /// Sends a request without a body.
    pub fn request(&self, method: &str, path: &str) -> Response {
        http::request(self.address, method, path)
    }

    /// The body of `/health`.
    pub fn health(&self) -> Value {
        self.get("/health").json()
    }

    /// Waits until `/health/ready` returns 200.
    pub fn await_ready(&self) {
        eventually("the gateway is ready", || (self.get("/health/ready").status == 200).then_some(()));
    }

    /// Waits until `/health` reports this status.
    pub fn await_status(&self, status: &str) {
        eventually(&format!("the gateway is {status}"), || (self.health()["status"] == status).then_some(()));
    }

    /// The current metrics.
    pub fn metrics(&self) -> Metrics {
        // The gateway disconnects a client that does not read the page within two seconds, which can happen
        // on a busy machine.
        let response = eventually("a whole page", || {
            let response = self.get("/metrics");
            assert_eq!(response.status, 200);
            response.body.ends_with("# EOF\n").then_some(response)
        });
        Metrics::parse(&response.body)
    }

    /// Waits until the metrics, which are up to a second old, fulfil the condition.
    pub fn metrics_when(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        eventually(what, || {
            let metrics = self.metrics();
            holds(&metrics).then_some(metrics)
        })
    }

    /// Waits for the exit.
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
