//! What can be run, one file each.

pub mod admission;
pub mod capacity;
pub mod compare;
pub mod drain;
pub mod fanout;
pub mod filtered;
pub mod idle;
pub mod resume;
pub mod stall;
pub mod storm;
pub mod sustained;

use protocol::PatternName;

use crate::args::HostFlags;
use crate::host::producer::KIND;

/// The token of sessions that are to hear nothing.
const SILENT_TOKEN: &str = "SILENT";

/// How long the consumer of a gateway that is started waits for records, and other variables, unless they were asked for. The wait is of the
/// mock alone; a real cluster wakes whoever waits.
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

/// The channel of a token that this program produces.
fn channel(token: &str) -> PatternName<'static> {
    PatternName::parse(format!("{token}.{KIND}").into()).expect("tokens of scenarios are letters and digits")
}
