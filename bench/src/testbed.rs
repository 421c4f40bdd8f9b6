//! The environment of a measured scenario: the cluster, the server, and the CPUs of both sides.

use std::time::Duration;

use crate::args::HostFlags;
use crate::client::dialect::Dialect;
use crate::host::cluster::Cluster;
use crate::host::gateway::{Gateway, GatewayPlan};
use crate::machine::{self, MachineReport};
use crate::run::RunError;
use crate::server::Server;

/// Number of brokers of the hosted cluster: more would only cost CPU of the generator.
const BROKERS: i32 = 1;
/// Measurements on a busy CPU are meaningless: the gateway gets this long to become idle after its start.
const SETTLE: Duration = Duration::from_millis(500);

/// The environment of a measurement, without the sessions.
pub struct Testbed {
    /// The server under test.
    pub server: Server,
    /// The machine.
    pub machine: MachineReport,
    /// The complete configuration of the server, as far as it is known.
    pub configuration: String,
    /// How the gateway was started.
    plan: Option<GatewayPlan>,
    // Declared before the cluster, so that it is stopped first.
    gateway: Option<Gateway>,
    cluster: Option<Cluster>,
}

impl Testbed {
    /// Pins this thread, then starts the servers that are not given. Prints the configuration of a gateway
    /// that it starts.
    pub fn set_up(flags: &HostFlags, connections: usize) -> Result<Self, RunError> {
        let allowed = machine::allowed_cpus();
        let server_cpu = flags.server_cpu.or(allowed.last().copied());
        if let Some(cpu) = server_cpu {
            machine::allow(cpu, &allowed)?;
        }
        let generator_cpus = generator_cpus(&allowed, flags, server_cpu);
        if let Some(cpu) = generator_cpus.first() {
            machine::pin(*cpu)?;
        }
        let cluster = match (&flags.brokers, &flags.url) {
            (Some(brokers), _) => Some(Cluster::at(brokers)?),
            (None, None) => Some(Cluster::host(BROKERS)?),
            // The operator of the server also runs its publisher.
            (None, Some(_)) => None,
        };
        if let Some(target) = &flags.url {
            let server = Server {
                name: "server".to_owned(),
                target: target.clone(),
                dialect: Dialect::Gateway,
                pid: flags.pid,
                metrics_url: Some(format!("http://{}/metrics", target.authority)),
            };
            let machine = MachineReport::read(allowed.len(), generator_cpus, None);
            let configuration = format!("a running server: ws://{}{}", target.authority, target.path);
            return Ok(Self { server, machine, configuration, plan: None, gateway: None, cluster });
        }
        let cluster = cluster.expect("there is one unless a URL was given");
        let plan = GatewayPlan {
            path: flags.gateway.clone(),
            shards: flags.shards,
            connections,
            environment: flags.environment.clone(),
            cpu: server_cpu,
        };
        let gateway = Gateway::start(&plan, &cluster)?;
        eprintln!("The gateway's configuration:\n{}", gateway.configuration());
        std::thread::sleep(SETTLE);
        Ok(Self {
            server: gateway.server(),
            machine: MachineReport::read(allowed.len(), generator_cpus, server_cpu),
            configuration: gateway.configuration().to_owned(),
            plan: Some(plan),
            gateway: Some(gateway),
            cluster: Some(cluster),
        })
    }

    /// Address of the cluster to produce to; `None` if another program publishes.
    pub fn bootstrap(&self) -> Option<&str> {
        self.cluster.as_ref().map(Cluster::bootstrap)
    }

    /// Passes ownership of the gateway to the scenario and starts a second one with the same configuration.
    /// `None` if no gateway was started.
    pub fn take_with_replacement(&mut self) -> Result<Option<[Gateway; 2]>, RunError> {
        let Some(start_second_gateway) = self.start_second_gateway()? else { return Ok(None) };
        Ok(self.gateway.take().map(|gateway| [gateway, start_second_gateway]))
    }

    /// Starts a second gateway with the same configuration; the scenario has to stop it. `None` if no gateway
    /// was started.
    pub fn start_second_gateway(&self) -> Result<Option<Gateway>, RunError> {
        let (Some(plan), Some(cluster)) = (&self.plan, &self.cluster) else { return Ok(None) };
        let start_second_gateway = Gateway::start(plan, cluster)?;
        std::thread::sleep(SETTLE);
        Ok(Some(start_second_gateway))
    }

    /// Stops the started servers; reports a gateway that exited with an error or before the end.
    pub fn stop(self) -> Result<(), RunError> {
        self.gateway.map_or(Ok(()), stop_gateway)
    }
}

/// Stops a gateway; reports it if it exited with an error or before the end.
pub fn stop_gateway(mut gateway: Gateway) -> Result<(), RunError> {
    gateway.check()?;
    let log = gateway.log().to_owned();
    if !gateway.stop() {
        eprintln!("odin-bench: the gateway did not shut down cleanly; its log is {}", log.display());
    }
    Ok(())
}

/// The requested CPU, or all CPUs except the server's; the first is the CPU of this process.
fn generator_cpus(allowed: &[usize], flags: &HostFlags, server_cpu: Option<usize>) -> Vec<usize> {
    let others = allowed.iter().copied().filter(|cpu| allowed.len() == 1 || Some(*cpu) != server_cpu);
    flags.cpu.map_or_else(|| others.collect(), |cpu| vec![cpu])
}
