//! The model's configuration, and its clients' channels.

use std::sync::Arc;

use super::log::{KINDS, TOKENS};
use crate::config::Config;

/// A channel or wildcard.
pub(crate) fn any_name(random: &mut fastrand::Rng) -> String {
    let token = TOKENS[random.usize(..TOKENS.len())];
    let kind = KINDS[random.usize(..KINDS.len())];
    match random.u8(..8) {
        0..4 => format!("{token}.{kind}"),
        4..5 => format!("{token}.*"),
        5..7 => format!("*.{kind}"),
        _ => "*".to_owned(),
    }
}

/// The configuration of the gateway whose shards the model drives.
pub(crate) fn config(shards: usize, outbox_frames: usize, conflates: bool) -> Arc<Config> {
    let pairs = [
        ("KAFKA_BROKERS", "broker:9092".to_owned()),
        ("KAFKA_TOPICS", "odin.x,odin.y".to_owned()),
        ("WS_SHARDS", shards.to_string()),
        ("WS_PINNING", "off".to_owned()),
        // A run of the model lasts less than a second.
        ("WS_MESSAGE_RATE", "0".to_owned()),
        ("WS_INBOUND_RATE", "0".to_owned()),
        ("WS_OUTBOX_FRAMES", outbox_frames.to_string()),
        ("WS_SLOW_CONSUMER", if conflates { "conflate" } else { "disconnect" }.to_owned()),
    ];
    let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
    Arc::new(Config::from_pairs(pairs, false).expect("valid"))
}
