//! One measurement: sessions against a server, with a producer behind it; both sides are read at the same
//! instants.
//!
//! Memory is read before the first connection and at the end of the window. The producer starts when all
//! sessions are live and continues until they have received the due events of the window, so that every event
//! is followed by another one and a loss is noticed.

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
/// A server that is further behind has lost the missing events.
const GRACE_MAX: Duration = Duration::from_secs(15);

/// The workload of a measurement.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the scenario, for the result.
    pub scenario: String,
    /// The sessions. Their target is that of the server.
    pub plan: Plan,
    /// Number of processes that share the sessions. More than one only if sessions take the channels in turn.
    pub processes: usize,
    /// The records to produce during the measurement, in the form that the gateway needs.
    pub producer: Option<ProducerPlan>,
    /// Length of a message as a client receives it.
    pub payload_bytes: usize,
    /// Length of the measured window.
    pub duration: Duration,
    /// Deliveries per second that the workload requests; `None` if unknown or if no events are due.
    pub asked_per_s: Option<f64>,
}

/// The server and the surroundings of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct MeasureContext<'s> {
    /// The server.
    pub server: &'s Server,
    /// The peer's name, if the server is not the gateway.
    pub peer: Option<PeerName>,
    /// Address of the cluster to produce to; `None` if another program publishes.
    pub bootstrap: Option<&'s str>,
    /// The complete configuration of the server, for the result.
    pub configuration: &'s str,
    /// The machine, for the result.
    pub machine: &'s MachineReport,
}

impl<'s> MeasureContext<'s> {
    /// The context of a testbed.
    pub fn of(testbed: &'s Testbed) -> Self {
        Self {
            server: &testbed.server,
            peer: None,
            bootstrap: testbed.bootstrap(),
            configuration: &testbed.configuration,
            machine: &testbed.machine,
        }
    }

    /// Starts a producer for messages of this length, in the form that this server needs: clients receive
    /// messages of the same length, whatever envelope the server adds to a value. `None` if another program
    /// publishes, or if the server generates its events itself.
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

/// Measures. The returned result contains the verdict.
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

/// The memory of the server; `None` if its process is unknown.
pub fn memory(server: &Server) -> Result<Option<Memory>, RunError> {
    let Some(pid) = server.pid else { return Ok(None) };
    process::memory(pid).map(Some).map_err(|error| RunError::Process { pid, error })
}
