//! The scenarios, one per file.

pub mod admission;
pub mod burst;
pub mod capacity;
pub mod compare;
pub mod drain;
pub mod fanout;
pub mod filtered;
pub mod hostile;
pub mod idle;
pub mod overload;
pub mod resume;
pub mod stall;
pub mod storm;
pub mod sustained;

use protocol::PatternName;

use crate::args::HostFlags;
use crate::host::producer::KIND;
use crate::measure::MeasureContext;
use crate::run::RunError;
use crate::testbed::Testbed;

/// The token of sessions that receive no events.
const SILENT_TOKEN: &str = "SILENT";

/// Adds the wait of the gateway's consumer for records, and other variables, unless they were given. The wait
/// applies to the mock only; a real cluster answers a waiting fetch when a record arrives.
fn with_environment(flags: &HostFlags, fetch_wait_ms: u32, others: &[(&str, String)]) -> HostFlags {
    let mut flags = flags.clone();
    if flags.url.is_some() {
        return flags;
    }
    let wait = ("KAFKA_PROPERTIES", format!("fetch.wait.max.ms={fetch_wait_ms}"));
    let wait = Some(wait).filter(|_| flags.brokers.is_none());
    for (name, value) in others.iter().cloned().chain(wait) {
        if !flags.environment.iter().any(|(asked, _)| asked == name) {
            flags.environment.push((name.to_owned(), value));
        }
    }
    flags
}

/// Runs this number of rounds, each with a new server and room for `connections` connections, until one is
/// interrupted. An interrupted round is kept only if it is the only one: beside complete rounds it carries no
/// information.
fn in_rounds<R>(
    count: u32,
    flags: &HostFlags,
    connections: usize,
    is_cut_short: impl Fn(&R) -> bool,
    mut measure: impl FnMut(MeasureContext<'_>) -> Result<R, RunError>,
) -> Result<Vec<R>, RunError> {
    let mut rounds = Vec::new();
    for number in 1..=count {
        if count > 1 {
            eprintln!("Round {number} of {count}");
        }
        let testbed = Testbed::set_up(flags, connections)?;
        let round = measure(MeasureContext::of(&testbed))?;
        testbed.stop()?;
        let is_over = is_cut_short(&round);
        if !is_over || rounds.is_empty() {
            rounds.push(round);
        }
        if is_over {
            break;
        }
    }
    Ok(rounds)
}

/// The channel of a token that this program produces.
fn channel(token: &str) -> PatternName<'static> {
    PatternName::parse(format!("{token}.{KIND}").into()).expect("tokens of scenarios are letters and digits")
}
