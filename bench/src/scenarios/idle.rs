//! Sessions that hear nothing and say nothing, as those of browser tabs in the background: what each costs the server.
//!
//! They subscribe to a channel that nobody publishes to, send no heartbeats, and answer pings. Nothing else is billed to them: the hosted
//! cluster is asked twice a second, as a real one would be, and the server's metrics are not asked for at all.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::{HostFlags, IdleArguments};
use crate::html::{Figure, HtmlInput};
use crate::machine;
use crate::measure::memory;
use crate::report::grouped;
use crate::report::measurement::{Findings, Measurement};
use crate::run::{Plan, Run, RunError, Watch};
use crate::scenarios::{SILENT_TOKEN, channel, with_environment};
use crate::server::process::Memory;
use crate::server::{Server, ServerPoll};
use crate::stage::Stage;
use crate::subscriptions;

const WARM_UP: Duration = Duration::from_secs(2);
/// librdkafka's default. The mock does not wake who waits when a record comes, but none comes.
const FETCH_WAIT_MS: u32 = 500;
/// The window should bill each session at least so many pings.
const PINGS_PER_SESSION_MIN: u64 = 2;

/// The result. Its fields are the keys of the JSON, beside those of every measurement.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Idleness {
    #[serde(flatten)]
    pub measurement: Measurement,
    pub pings_answered: u64,
    pub cpu_us_per_session_second: Option<f64>,
    pub memory_before: Option<Memory>,
    pub private_bytes_per_session: Option<f64>,
}

/// Runs it until its end or until `stop`.
pub fn run(arguments: &IdleArguments, stop: &AtomicBool) -> Result<Idleness, RunError> {
    machine::allow_descriptors(arguments.connections, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    let stage = Stage::set(&host(arguments), arguments.connections)?;
    let memory_before = memory(&stage.server)?;
    let unasked = Server { metrics_url: None, ..stage.server.clone() };
    let watch = Watch::Server { poll: ServerPoll::start(&unasked)?, pid: unasked.pid };
    let mut run = Run::new(plan(arguments, &stage.server), watch, stop)?.without_heartbeats();
    run.ramp()?;
    let ramp = run.mark().since(run.window.began());
    run.warm_up(WARM_UP)?;
    let answered_before = run.ledger.tally.pings_answered;
    run.hold(arguments.duration)?;
    let pings_answered = run.ledger.tally.pings_answered - answered_before;
    let memory_now = memory(&stage.server)?;
    run.grace(Duration::ZERO)?;
    let measurement = Measurement::of(Findings {
        scenario: "idle".to_owned(),
        server_name: stage.server.name.clone(),
        asked_per_s: None,
        harvest: run.harvest(),
        ramp,
        window: run.window.difference(),
        memory: memory_before.zip(memory_now),
        produced: None,
        configuration: stage.configuration.clone(),
        machine: stage.machine.clone(),
        interrupted: run.is_stopped(),
    });
    run.close()?;
    stage.strike()?;
    Ok(Idleness::of(measurement, pings_answered, memory_before))
}

/// What the sessions are not to be billed for, unless it was asked for.
fn host(arguments: &IdleArguments) -> HostFlags {
    let room = [("WS_MAX_CONNECTIONS", arguments.connections.to_string())];
    with_environment(&arguments.host, FETCH_WAIT_MS, &room)
}

fn plan(arguments: &IdleArguments, server: &Server) -> Plan {
    let channels = vec![channel(SILENT_TOKEN)];
    Plan {
        target: server.target.clone(),
        connections: arguments.connections,
        ramp_rate: arguments.ramp_rate,
        timeout: arguments.connection_timeout,
        sources: Vec::new(),
        subscriptions: subscriptions::in_turn(server.dialect, &channels, arguments.connections),
        channels,
    }
}

impl Idleness {
    fn of(mut measurement: Measurement, pings_answered: u64, memory_before: Option<Memory>) -> Self {
        let established = measurement.audited.established;
        let per_session = |amount: f64| (established > 0).then(|| amount / established as f64);
        let grown = memory_before.zip(measurement.server.private_bytes);
        let grown = grown.map(|(before, now)| now as f64 - before.private_bytes as f64);
        if pings_answered < PINGS_PER_SESSION_MIN * established {
            measurement.notes.push(format!(
                "The window was too short for {PINGS_PER_SESSION_MIN} pings of each session: {} were answered. The gateway pings each every 27 s.",
                grouped(pings_answered)
            ));
        }
        Self {
            cpu_us_per_session_second: measurement
                .server
                .cpu_cores
                .and_then(|cores| per_session(cores * 1e6)),
            private_bytes_per_session: grown.and_then(per_session),
            measurement,
            pings_answered,
            memory_before,
        }
    }

    /// Whether a client would have noticed nothing.
    pub fn passed(&self) -> bool {
        self.measurement.passed
    }

    /// What an idle session costs, and the measurement.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec!["an idle session costs", ""]);
        for (name, value) in self.rows() {
            table.add_row(vec![name.to_owned(), value]);
        }
        format!("{table}\n{}", self.measurement.summary())
    }

    /// The page, the costs first.
    pub fn page(&self) -> HtmlInput {
        let mut page = self.measurement.page();
        let rows = self.rows().into_iter();
        let figures = rows.map(|(name, value)| Figure { name: name.to_owned(), values: vec![value] });
        page.figures.splice(0..0, figures);
        page
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let bytes = |value: Option<f64>| optional(value.map(|bytes| format!("{bytes:.0}")));
        let cpu = self.measurement.server.cpu_cores;
        vec![
            ("bytes, resident", bytes(self.measurement.server.bytes_per_session)),
            ("bytes, private", bytes(self.private_bytes_per_session)),
            ("CPU us a second", optional(self.cpu_us_per_session_second.map(|cpu| format!("{cpu:.3}")))),
            ("CPU of a core, all sessions", optional(cpu.map(|cores| format!("{:.2}%", 100.0 * cores)))),
            ("pings answered, all sessions", grouped(self.pings_answered)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Scenario};
    use clap::Parser;

    fn environment(line: &str) -> Vec<String> {
        let words = ["odin-bench", "idle"].into_iter().chain(line.split_whitespace());
        let arguments = Arguments::try_parse_from(words).expect(line);
        let Scenario::Idle(arguments) = arguments.scenario else { panic!("asked for idle") };
        let flags = host(&arguments);
        flags.environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn sessions_are_not_billed_for_the_mock_unless_that_was_asked_for() {
        let (room, wait) = ("WS_MAX_CONNECTIONS=500", "KAFKA_PROPERTIES=fetch.wait.max.ms=500");
        assert_eq!(environment("--connections 500"), [room, wait]);
        assert_eq!(environment("--connections 500 --brokers h:9092"), [room]);
        assert_eq!(
            environment("--connections 500 --env KAFKA_PROPERTIES=a=b"),
            ["KAFKA_PROPERTIES=a=b", room]
        );
        assert!(environment("--url ws://h:1/ws").is_empty());
    }
}
