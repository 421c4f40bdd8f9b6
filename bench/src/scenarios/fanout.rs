//! All sessions on one channel: each event goes to every session.

use std::sync::atomic::AtomicBool;

use crate::args::{FanoutArguments, LoadFlags, TOKEN};
use crate::host::producer::{ProducerPlan, gateway_value_bytes};
use crate::measure::{MeasureContext, Workload, measure};
use crate::report::measurement::Measurement;
use crate::run::{Plan, RunError};
use crate::scenarios::channel;
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &FanoutArguments, stop: &AtomicBool) -> Result<Measurement, RunError> {
    let testbed = Testbed::set_up(&arguments.host, arguments.load.connections)?;
    let workload = workload(&arguments.load, arguments.rate, &testbed.server);
    let measurement = measure(&workload, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(measurement)
}

/// The workload: all sessions on one channel with `rate` events per second.
pub fn workload(load: &LoadFlags, rate: f64, server: &Server) -> Workload {
    let channels = vec![channel(TOKEN)];
    Workload {
        scenario: "fanout".to_owned(),
        plan: Plan {
            target: server.target.clone(),
            connections: load.connections,
            ramp_rate: load.ramp_rate,
            timeout: load.connection_timeout,
            sources: Vec::new(),
            subscriptions: subscriptions::in_turn(server.dialect, &channels, load.connections),
            channels,
        },
        processes: load.processes,
        producer: Some(ProducerPlan {
            rate_per_s: rate,
            tokens: vec![TOKEN.to_owned()],
            channel_header: None,
            partition: None,
            value_bytes: gateway_value_bytes(load.payload, TOKEN),
        }),
        payload_bytes: load.payload,
        duration: load.duration,
        asked_per_s: Some(rate * load.connections as f64),
    }
}
