//! The gateway under test: the program beside this one, pinned to a CPU, with default settings except those
//! requested.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::HostError;
use super::child::{Program, RunningProgram, free_port, log_path};
use super::cluster::{Cluster, FETCH_WAIT_MS};
use super::producer::TOPIC;
use crate::client::dialect::Dialect;
use crate::client::target::Target;
use crate::server::Server;

const PROGRAM: &str = "odin-gateway";
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// WS_DRAIN is 10 s by default.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// The gateway's own default: a run with fewer connections does not lower the limit.
const CONNECTIONS_DEFAULT: usize = 12_000;

/// How to start the gateway.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// Path of the program; `None` is the program beside this one.
    pub path: Option<PathBuf>,
    /// Number of shards; several share the CPU.
    pub shards: u16,
    /// Number of sessions that the gateway has to accept.
    pub connections: usize,
    /// Variables that override all others.
    pub environment: Vec<(String, String)>,
    /// The CPU of the gateway.
    pub cpu: Option<usize>,
}

/// A gateway that is ready; it is stopped when dropped.
pub struct Gateway {
    program: RunningProgram,
    port: u16,
    configuration: String,
}

impl Gateway {
    /// Starts the gateway with the cluster and waits until it is ready. The calling thread has to outlive the
    /// gateway.
    pub fn start(plan: &GatewayPlan, cluster: &Cluster) -> Result<Self, HostError> {
        let path = find(plan.path.as_deref())?;
        let port = free_port()?;
        let environment = environment(plan, cluster, port);
        let configuration = configuration(&path, &environment)?;
        let program = Program {
            path,
            arguments: Vec::new(),
            environment,
            cpu: plan.cpu,
            log: log_path(&format!("gateway-{port}")),
        };
        let mut program = program.start()?;
        program.wait_ready(&format!("http://127.0.0.1:{port}/health/ready"), READY_PATIENCE)?;
        Ok(Self { program, port, configuration })
    }

    /// The server to measure.
    pub fn server(&self) -> Server {
        let authority = format!("127.0.0.1:{}", self.port);
        Server {
            name: "gateway".to_owned(),
            target: Target::parse(&format!("ws://{authority}/ws")).expect("an address is a URL's authority"),
            dialect: Dialect::Gateway,
            pid: Some(self.program.pid()),
            metrics_url: Some(format!("http://{authority}/metrics")),
        }
    }

    /// The complete configuration, one `NAME=VALUE` per line.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Sends SIGTERM without waiting for the exit.
    pub fn terminate(&self) -> std::io::Result<()> {
        self.program.terminate()
    }

    /// The exit status, if the gateway has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.program.exited()
    }

    /// Returns an error if the gateway exited during the run.
    pub fn check(&mut self) -> Result<(), HostError> {
        match self.program.exited() {
            Some(status) => Err(self.program.not_ready(format!("ended during the run ({status})"))),
            None => Ok(()),
        }
    }

    /// Path of the log.
    pub fn log(&self) -> &Path {
        self.program.log()
    }

    /// The last lines of the log.
    pub fn end_of_log(&self) -> String {
        self.program.end_of_log()
    }

    /// Stops the gateway gracefully, or by force if that fails; `false` if its exit code was not 0. In that
    /// case the log is kept.
    pub fn stop(self) -> bool {
        self.program.stop(STOP_PATIENCE).is_some_and(|status| status.success())
    }
}

fn find(asked: Option<&Path>) -> Result<PathBuf, HostError> {
    let path = match asked {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name(PROGRAM),
    };
    if path.is_file() {
        return Ok(path);
    }
    let remedy = "build it with `cargo build --release -p gateway`, or give --gateway PATH";
    Err(HostError::Missing { program: PROGRAM, path, remedy })
}

fn environment(plan: &GatewayPlan, cluster: &Cluster, port: u16) -> Vec<(String, String)> {
    let mut variables = vec![
        ("KAFKA_BROKERS", cluster.bootstrap().to_owned()),
        ("WS_ADDR", format!("127.0.0.1:{port}")),
        ("WS_CPU_LIMIT", "1".to_owned()),
        // The gateway's default is one shard per CPU; a measurement uses one.
        ("WS_SHARDS", plan.shards.to_string()),
    ];
    if plan.shards > 1 {
        variables.push(("WS_PINNING", "off".to_owned()));
    }
    if plan.connections > CONNECTIONS_DEFAULT {
        variables.push(("WS_MAX_CONNECTIONS", plan.connections.to_string()));
    }
    if cluster.is_mock() {
        // The scenarios publish to one topic, and the peers read only that topic, too.
        variables.push(("KAFKA_TOPICS", TOPIC.to_owned()));
        variables.push(("KAFKA_PROPERTIES", format!("fetch.wait.max.ms={FETCH_WAIT_MS}")));
    }
    let asked = |name: &str| plan.environment.iter().any(|(asked, _)| asked == name);
    variables.retain(|(name, _)| !asked(name));
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
    variables.chain(plan.environment.iter().cloned()).collect()
}

fn configuration(path: &Path, environment: &[(String, String)]) -> Result<String, HostError> {
    let mut command = Command::new(path);
    command.arg("--check-config").env_clear();
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let program = path.display().to_string();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Err(HostError::Spawn { program, error }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(HostError::Configuration {
        program,
        said: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: usize, environment: &[(&str, &str)]) -> GatewayPlan {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        GatewayPlan {
            path: None,
            shards: 1,
            connections,
            environment: environment.iter().map(own).collect(),
            cpu: None,
        }
    }

    #[test]
    fn what_was_asked_for_wins_and_nothing_else_is_set() {
        let cluster = Cluster::host(1).expect("a mock cluster");
        let names = |plan: &GatewayPlan| -> Vec<String> {
            environment(plan, &cluster, 7)
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let brokers = format!("KAFKA_BROKERS={}", cluster.bootstrap());
        let fixed = ["WS_ADDR=127.0.0.1:7", "WS_CPU_LIMIT=1", "WS_SHARDS=1", "KAFKA_TOPICS=odin.trades"];
        let wait = "KAFKA_PROPERTIES=fetch.wait.max.ms=20";
        assert_eq!(names(&plan(100, &[])), [&[brokers.as_str()], &fixed[..], &[wait]].concat());
        let asked = plan(19_000, &[("WS_CPU_LIMIT", "2"), ("LOG_LEVEL", "debug")]);
        let variables = names(&asked);
        assert!(variables.contains(&"WS_MAX_CONNECTIONS=19000".to_owned()), "{variables:?}");
        assert!(variables.contains(&"WS_CPU_LIMIT=2".to_owned()), "{variables:?}");
        assert!(!variables.contains(&"WS_CPU_LIMIT=1".to_owned()), "{variables:?}");
        assert!(variables.contains(&"LOG_LEVEL=debug".to_owned()), "{variables:?}");
        let variables = names(&GatewayPlan { shards: 4, ..plan(100, &[]) });
        assert!(variables.contains(&"WS_SHARDS=4".to_owned()), "{variables:?}");
        assert!(variables.contains(&"WS_PINNING=off".to_owned()), "{variables:?}");
    }

    #[test]
    fn a_missing_gateway_is_an_error_with_the_command_that_builds_it() {
        let error = find(Some(Path::new("/nowhere/odin-gateway"))).expect_err("nothing is there");
        assert!(error.to_string().contains("cargo build --release -p gateway"), "{error}");
    }
}
