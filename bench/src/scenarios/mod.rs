//! What can be run, one file each.

pub mod capacity;
pub mod compare;
pub mod fanout;
pub mod filtered;
pub mod idle;
pub mod storm;
pub mod sustained;

use protocol::PatternName;

use crate::host::producer::KIND;

/// The token of sessions that are to hear nothing.
const SILENT_TOKEN: &str = "SILENT";

/// The channel of a token that this program produces.
fn channel(token: &str) -> PatternName<'static> {
    PatternName::parse(format!("{token}.{KIND}").into()).expect("tokens of scenarios are letters and digits")
}
