//! The servers that the gateway is compared with: finds or builds their programs, starts them as the gateway
//! is started, and knows the protocol of their sessions.
//!
//! They are pinned to a CPU, have no environment except the variables set here, and end with this program.
//! `bench/peers/README.md` describes the setup of each.

mod centrifugo;
mod program;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

pub use program::{PeerError, find_or_build};

use crate::client::dialect::Dialect;
use crate::client::target::Target;
use crate::host::HostError;
use crate::host::child::{Program, RunningProgram, free_port, log_path};
use crate::host::cluster::Cluster;
use crate::machine;
use crate::server::Server;

const READY_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The gateway's queue length per session.
const QUEUE_EVENTS: u32 = 4096;
/// More channels than this count as many: a storm has two, one for the sessions that stay and one for the
/// others.
const CHANNELS_FEW_MAX: usize = 2;
/// Queue length if there are many channels with few events each: the memory of a queue is allocated at once.
const QUEUE_EVENTS_OF_MANY: u32 = 64;
/// Queue length of the Go server that the gateway replaces: in Go, the memory of each session's queue is
/// allocated at once.
const QUEUE_EVENTS_GORILLA: u32 = 1024;
/// The minimum that the Kafka library of the Go peers accepts.
const FETCH_WAIT_MS_MIN_OF_GO: u32 = 10;
/// librdkafka's own default, in milliseconds.
const FETCH_WAIT_MS_DEFAULT: u32 = 500;

/// A server to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PeerName {
    /// A broadcaster on tokio-tungstenite.
    TokioTungstenite,
    /// A broadcaster on fastwebsockets.
    Fastwebsockets,
    /// A broadcaster on gorilla/websocket (Go): a lower bound of Centrifugo, which writes through a fork of
    /// that library.
    Gorilla,
    /// Centrifugo v6 with its JSON protocol.
    Centrifugo,
    /// The gateway's socket driver without any logic around it; fan-out only.
    Ceiling,
}

/// How to start a peer.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// The peer.
    pub name: PeerName,
    /// Path of its program.
    pub path: PathBuf,
    /// Number of sessions that the peer has to accept.
    pub connections: usize,
    /// Events per second, for the peer that generates its own events.
    pub rate: f64,
    /// Length of a message, for the peer that generates its own events.
    pub payload: usize,
    /// Number of subscribed channels.
    pub channels: usize,
    /// How long the peer's consumer waits for a record, if the cluster is the mock.
    pub mock_fetch_wait_ms: u32,
    /// The CPU of the peer.
    pub cpu: Option<usize>,
}

/// A peer that is ready; it is stopped when dropped.
#[derive(Debug)]
pub struct Peer {
    server: Server,
    configuration: String,
    program: RunningProgram,
    // Removed after the program has exited.
    _files: Vec<tempfile::TempPath>,
}

impl PeerName {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokioTungstenite => "tokio-tungstenite",
            Self::Fastwebsockets => "fastwebsockets",
            Self::Gorilla => "gorilla",
            Self::Centrifugo => "centrifugo",
            Self::Ceiling => "ceiling",
        }
    }

    /// The protocol of the peer's sessions.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Centrifugo => Dialect::Centrifugo,
            Self::TokioTungstenite | Self::Fastwebsockets | Self::Gorilla | Self::Ceiling => Dialect::Gateway,
        }
    }

    /// Whether the peer reads Kafka; otherwise it generates the events itself.
    pub fn reads_kafka(self) -> bool {
        self != Self::Ceiling
    }

    /// The minimum wait for a record that the peer's consumer accepts.
    pub fn fetch_wait_ms_min(self) -> u32 {
        match self {
            Self::Gorilla | Self::Centrifugo => FETCH_WAIT_MS_MIN_OF_GO,
            Self::TokioTungstenite | Self::Fastwebsockets | Self::Ceiling => 1,
        }
    }

    /// The record header that names the channel, for the peer that cannot derive it from topic and key.
    pub fn channel_header(self) -> Option<&'static str> {
        (self == Self::Centrifugo).then_some(centrifugo::CHANNEL_HEADER)
    }

    /// The value length for which the peer's envelope makes a message of `payload_bytes`.
    pub fn value_bytes(self, payload_bytes: usize, token: &str) -> usize {
        match self.dialect() {
            Dialect::Gateway => crate::host::producer::gateway_value_bytes(payload_bytes, token),
            Dialect::Centrifugo => centrifugo::value_bytes(payload_bytes, token),
        }
    }
}

impl Peer {
    /// Starts the peer with the cluster and waits until it is ready. The calling thread has to outlive the
    /// peer.
    pub fn start(plan: &PeerPlan, cluster: &Cluster) -> Result<Self, HostError> {
        // The child process inherits the limit.
        machine::allow_descriptors(plan.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let fetch_wait_ms = if cluster.is_mock() { plan.mock_fetch_wait_ms } else { FETCH_WAIT_MS_DEFAULT };
        let mut environment = Vec::new();
        let mut files = Vec::new();
        let arguments = match plan.name {
            PeerName::TokioTungstenite | PeerName::Fastwebsockets => {
                broadcaster_arguments(plan, &listen, cluster, fetch_wait_ms)
            }
            PeerName::Gorilla => {
                environment.push(one_thread_of_go());
                broadcaster_arguments(plan, &listen, cluster, fetch_wait_ms)
            }
            PeerName::Ceiling => ceiling_arguments(plan, &listen),
            PeerName::Centrifugo => {
                let file = centrifugo::write_configuration(port, cluster.bootstrap(), fetch_wait_ms)?;
                let arguments = vec![OsString::from("--config"), file.as_os_str().to_owned()];
                files.push(file);
                environment.push(one_thread_of_go());
                arguments
            }
        };
        let configuration = configuration(plan, &arguments, &environment, &files)?;
        let log = log_path(&format!("{}-{port}", plan.name.as_str()));
        let program = Program { path: plan.path.clone(), arguments, environment, cpu: plan.cpu, log };
        let mut program = program.start()?;
        program.wait_ready(&format!("http://{listen}/health"), READY_PATIENCE)?;
        let path = if plan.name == PeerName::Centrifugo { centrifugo::PATH } else { "/ws" };
        let server = Server {
            name: plan.name.as_str().to_owned(),
            target: Target::parse(&format!("ws://{listen}{path}")).expect("an address is a URL's authority"),
            dialect: plan.name.dialect(),
            pid: Some(program.pid()),
            metrics_url: None,
        };
        Ok(Self { server, configuration, program, _files: files })
    }

    /// The server to measure.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// How the peer was started.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Returns an error if the peer exited during the run.
    pub fn check(&mut self) -> Result<(), HostError> {
        match self.program.exited() {
            Some(status) => Err(self.program.not_ready(format!("ended during the run ({status})"))),
            None => Ok(()),
        }
    }

    /// Stops the peer.
    pub fn stop(self) {
        let name = self.server.name;
        let log = self.program.log().to_owned();
        if !self.program.stop(STOP_PATIENCE).is_some_and(|status| status.success()) {
            eprintln!("odin-bench: {name} did not shut down cleanly; its log is {}", log.display());
        }
    }
}

/// Limits Go's scheduler to one core, because the program is pinned to one.
fn one_thread_of_go() -> (String, String) {
    ("GOMAXPROCS".to_owned(), "1".to_owned())
}

/// Arguments of the peers whose sources are in this repository; they share a command line.
fn broadcaster_arguments(
    plan: &PeerPlan,
    listen: &str,
    cluster: &Cluster,
    fetch_wait_ms: u32,
) -> Vec<OsString> {
    let queue_events = match (plan.channels, plan.name) {
        (1..=CHANNELS_FEW_MAX, PeerName::Gorilla) => QUEUE_EVENTS_GORILLA,
        (1..=CHANNELS_FEW_MAX, _) => QUEUE_EVENTS,
        _ => QUEUE_EVENTS_OF_MANY,
    };
    let (queue_events, wait) = (queue_events.to_string(), format!("fetch.wait.max.ms={fetch_wait_ms}"));
    let words = ["--listen", listen, "--brokers", cluster.bootstrap()];
    words
        .into_iter()
        .chain(["--kafka-property", &wait, "--queue-events", &queue_events])
        .map(Into::into)
        .collect()
}

fn ceiling_arguments(plan: &PeerPlan, listen: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--listen", listen].map(Into::into).into();
    let numbers = [
        ("--connections", Some(plan.connections)),
        // The command line accepts whole numbers only.
        ("--rate", Some(plan.rate as usize)),
        ("--payload", Some(plan.payload)),
        ("--cpu", plan.cpu),
    ];
    for (name, number) in numbers {
        arguments.extend(number.into_iter().flat_map(|number| [name.into(), number.to_string().into()]));
    }
    arguments
}

fn configuration(
    plan: &PeerPlan,
    arguments: &[OsString],
    environment: &[(String, String)],
    files: &[tempfile::TempPath],
) -> std::io::Result<String> {
    let words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
    let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
    // Only the file name: the directory is specific to this machine, and results are published.
    let program = plan.path.file_name().unwrap_or(plan.path.as_os_str()).to_string_lossy().into_owned();
    let mut text = variables.chain([program]).chain(words).collect::<Vec<_>>().join(" ");
    for file in files {
        text.push('\n');
        text.push_str(&std::fs::read_to_string(file)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_one_name_on_the_command_line_and_in_results() {
        for peer in PeerName::value_variants() {
            let value = peer.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), peer.as_str());
        }
    }
}
