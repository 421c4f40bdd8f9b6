//! One measurement: sessions against a server, a producer behind it, both sides read at the same instants.
//!
//! Memory is read before the first connection and at the end of the window. The producer begins when all sessions are live and goes on until
//! they have what the window owes them, so that no session waits for an event that nobody follows up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::args::TOKEN;
use crate::host::producer::{Producer, ProducerPlan};
use crate::machine::{self, MachineReport};
use crate::peers::PeerName;
use crate::report::measurement::{Findings, Measurement};
use crate::run::{Plan, RunError, ServerMonitor, SessionPool};
use crate::server::Server;
use crate::server::process::{self, Memory};
use crate::testbed::Testbed;

const WARM_UP: Duration = Duration::from_secs(2);
/// A server that is behind by more has lost what is missing.
const GRACE_MAX: Duration = Duration::from_secs(15);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For the result.
    pub scenario: String,
    /// The sessions. Their target is that of the server.
    pub plan: Plan,
    /// Processes that share the sessions. More than one only where sessions take the channels in turn.
    pub processes: usize,
    /// What is produced meanwhile, as the gateway needs it.
    pub producer: Option<ProducerPlan>,
    /// Length of a message as a client gets it.
    pub payload_bytes: usize,
    /// How long.
    pub duration: Duration,
    /// Deliveries per second that all this asks for; `None` when it is not known, or none are due.
    pub asked_per_s: Option<f64>,
}

/// Where it is measured.
#[derive(Clone, Copy, Debug)]
pub struct MeasureContext<'s> {
    /// The server.
    pub server: &'s Server,
    /// Which, when it is not the gateway.
    pub peer: Option<PeerName>,
    /// Where to produce to; `None` when somebody else does.
    pub bootstrap: Option<&'s str>,
    /// For the result: all that is in force in the server.
    pub configuration: &'s str,
    /// For the result.
    pub machine: &'s MachineReport,
}

impl<'s> MeasureContext<'s> {
    /// Of a testbed.
    pub fn of(testbed: &'s Testbed) -> Self {
        Self {
            server: &testbed.server,
            peer: None,
            bootstrap: testbed.bootstrap(),
            configuration: &testbed.configuration,
            machine: &testbed.machine,
        }
    }

    /// Begins to produce what the gateway would need for messages of such a length, in the shape that this server needs for them: the same
    /// messages, whatever it puts around a value. `None` when somebody else publishes, or the server makes its events itself.
    pub fn produce(&self, plan: &ProducerPlan, payload_bytes: usize) -> Result<Option<Producer>, RunError> {
        let Some(bootstrap) = self.bootstrap else { return Ok(None) };
        let mut plan = plan.clone();
        if let Some(peer) = self.peer {
            if !peer.reads_kafka() {
                return Ok(None);
            }
            let token = plan.tokens.last().map_or(TOKEN, String::as_str);
            plan.value_bytes = peer.value_bytes(payload_bytes, token);
            plan.channel_header = peer.channel_header();
        }
        Ok(Some(Producer::start(bootstrap, plan)?))
    }
}

/// Measures. The result is judged already.
pub fn measure(
    workload: &Workload,
    context: MeasureContext<'_>,
    stop: &AtomicBool,
) -> Result<Measurement, RunError> {
    let MeasureContext { server, configuration, machine, .. } = context;
    let here = if workload.processes > 1 { 0 } else { workload.plan.connections };
    machine::allow_descriptors(here, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let memory_before = memory(server)?;
    let monitor = ServerMonitor::server(server)?;
    let plan = Plan { target: server.target.clone(), ..workload.plan.clone() };
    let mut pool =
        SessionPool::new(plan, server.dialect, workload.processes, &machine.generator_cpus, monitor, stop)?;
    let ramp = pool.ramp()?;
    let producer = match &workload.producer {
        Some(plan) => context.produce(plan, workload.payload_bytes)?,
        None => None,
    };
    pool.warm_up(WARM_UP)?;
    pool.hold(workload.duration)?;
    let memory_now = memory(server)?;
    pool.grace(GRACE_MAX)?;
    let produced = producer.map(Producer::stop);
    let measurement = Measurement::of(Findings {
        scenario: workload.scenario.clone(),
        server_name: server.name.clone(),
        asked_per_s: workload.asked_per_s,
        results: pool.results()?,
        ramp,
        window: pool.window().difference(),
        memory: memory_before.zip(memory_now),
        produced,
        configuration: configuration.to_owned(),
        machine: machine.clone(),
        interrupted: stop.load(Ordering::Relaxed),
    });
    pool.close()?;
    Ok(measurement)
}

/// `None` for a server whose process is not known.
pub fn memory(server: &Server) -> Result<Option<Memory>, RunError> {
    let Some(pid) = server.pid else { return Ok(None) };
    process::memory(pid).map(Some).map_err(|error| RunError::Process { pid, error })
}
