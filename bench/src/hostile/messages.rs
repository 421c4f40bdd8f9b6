//! Messages of the gateway's protocol as attackers write them.

use std::fmt::Write as _;

/// The kinds of the default topics.
pub const KINDS: [&str; 8] =
    ["trade", "liquidity", "balances", "metadata", "social", "community", "creation", "analytics"];
/// Partitions of each topic.
pub const PARTITIONS: usize = 12;
/// The gateway's WS_MAX_CHANNELS.
pub const CHANNELS_MAX: usize = 256;

/// The names `{prefix}{number}{suffix}` for the numbers below `count`.
pub fn names(prefix: &str, count: usize, suffix: &str) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}{suffix}")).collect()
}

/// A message of this type with these channels, and with `more` appended to its data.
pub fn message<N: AsRef<str>>(kind: &str, channels: &[N], more: &str) -> String {
    let mut text = format!(r#"{{"type":"{kind}","data":{{"channels":["#);
    for (index, name) in channels.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(text, r#"{comma}"{}""#, name.as_ref());
    }
    text.push(']');
    text.push_str(more);
    text.push_str("}}");
    text
}

/// A subscription to live events.
pub fn subscribe<N: AsRef<str>>(channels: &[N]) -> String {
    message("subscribe", channels, "")
}

/// Cancels the subscriptions.
pub fn unsubscribe<N: AsRef<str>>(channels: &[N]) -> String {
    message("unsubscribe", channels, "")
}

/// A subscription in which each channel has the same value in `since`.
pub fn since<N: AsRef<str>>(channels: &[N], value: &str) -> String {
    let each: Vec<_> = channels.iter().map(|name| format!(r#""{}":{value}"#, name.as_ref())).collect();
    message("subscribe", channels, &format!(r#","since":{{{}}}"#, each.join(",")))
}

/// A value of `since` for wildcards: the same list for every kind.
pub fn every_kind(list: &str) -> String {
    let kinds: Vec<_> = KINDS.iter().map(|kind| format!(r#""{kind}":{list}"#)).collect();
    format!("{{{}}}", kinds.join(","))
}

/// A list that has one offset for each partition.
pub fn offset_list(partitions: usize, offset: u64) -> String {
    let offset_list: Vec<_> = (0..partitions).map(|partition| format!(r#""{partition}:{offset}""#)).collect();
    format!("[{}]", offset_list.join(","))
}
