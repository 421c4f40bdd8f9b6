//! Many tokens, each session on one of them: exercises the channel index, with little fan-out.

use std::sync::atomic::AtomicBool;

use crate::args::FilteredArguments;
use crate::host::producer::{ProducerPlan, gateway_value_bytes};
use crate::measure::{MeasureContext, Workload, measure};
use crate::report::measurement::Measurement;
use crate::run::{Plan, RunError};
use crate::scenarios::channel;
use crate::server::Server;
use crate::subscriptions;
use crate::testbed::Testbed;

/// Runs the scenario until its end or until `stop`.
pub fn run(arguments: &FilteredArguments, stop: &AtomicBool) -> Result<Measurement, RunError> {
    let testbed = Testbed::set_up(&arguments.host, arguments.load.connections)?;
    let workload = workload(arguments, &testbed.server);
    let measurement = measure(&workload, MeasureContext::of(&testbed), stop)?;
    testbed.stop()?;
    Ok(measurement)
}

/// Sessions take the tokens in turn; all tokens are published, even without subscribers.
pub fn workload(arguments: &FilteredArguments, server: &Server) -> Workload {
    let FilteredArguments { rate, load, .. } = arguments;
    let tokens: Vec<String> = (0..arguments.tokens).map(|number| format!("T{number}")).collect();
    let channels: Vec<_> = tokens.iter().map(|token| channel(token)).collect();
    Workload {
        scenario: "filtered".to_owned(),
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
            rate_per_s: rate * tokens.len() as f64,
            channel_header: None,
            partition: None,
            value_bytes: gateway_value_bytes(load.payload, &tokens[tokens.len() - 1]),
            tokens,
        }),
        payload_bytes: load.payload,
        duration: load.duration,
        asked_per_s: Some(rate * load.connections as f64),
    }
}
