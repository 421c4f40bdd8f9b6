//! The gateway's messages, parsed as far as the audit needs them: of an event only the fields before its
//! value.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{GapReason, Position};
use serde::Deserialize;

use crate::lane::{Lane, Selection};

/// For each kind, the next position of every partition.
pub type Positions = BTreeMap<String, Vec<Position>>;

/// A message of the gateway.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    #[serde(skip)]
    /// An event.
    Event {
        /// Channel and partition of the event.
        lane: Lane,
        /// Offset of the event.
        offset: i64,
    },
    /// A `subscription_ack`.
    SubscriptionAck {
        /// The subscribed channels.
        subscribed: Vec<String>,
        /// The rejected channels.
        #[serde(default)]
        rejected: Vec<Refusal>,
        /// The channels that were subscribed but not resumed.
        #[serde(default)]
        not_resumed: Vec<Refusal>,
        /// The positions at which the events begin.
        #[serde(default)]
        positions: Positions,
        /// Partitions, by kind, without a known position yet.
        #[serde(default)]
        waiting: BTreeMap<String, Vec<i32>>,
    },
    /// A `positions` message.
    Positions {
        /// Positions of partitions that an acknowledgement listed as waiting.
        positions: Positions,
    },
    /// An `unsubscription_ack`.
    UnsubscriptionAck {
        /// The unsubscribed channels.
        unsubscribed: Vec<String>,
    },
    /// A `resumed` message.
    Resumed {
        /// The resumed channel.
        channel: String,
        /// The number of replayed events.
        replayed: u64,
    },
    /// A `gap`.
    Gap {
        /// The affected channel.
        channel: String,
        /// The first lost position.
        from: Position,
        /// The last lost position.
        to: Position,
        /// The reason of the loss.
        reason: GapReason,
    },
    /// Any `error` message.
    Error,
}

/// A channel that was rejected, or not resumed.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// The channel.
    pub channel: String,
    /// The machine-readable code.
    pub code: String,
    /// The human-readable message.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.channel, self.code, self.message)
    }
}

impl Answer {
    /// Parses a message.
    ///
    /// # Panics
    /// Panics at a message that the protocol does not define, which fails the test.
    pub fn read(text: &str) -> Self {
        match text.starts_with(r#"{"seq":"#) {
            true => Self::read_event(text).unwrap_or_else(|| panic!("no event: {text}")),
            false => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
        }
    }

    /// The value may be any JSON; the fields before it contain no escapes.
    fn read_event(text: &str) -> Option<Self> {
        let (head, _) = text.split_once(r#","data":"#)?;
        let (_, place) = head.split_once(r#""channel":""#)?;
        let (channel, place) = place.split_once(r#"","pos":""#)?;
        let position: Position = place.strip_suffix('"')?.parse().ok()?;
        let Selection { token: Some(token), kind: Some(kind) } = Selection::parse(channel)? else {
            return None;
        };
        let lane = Lane { token, kind, partition: position.partition };
        Some(Self::Event { lane, offset: position.offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_event_is_read_whatever_its_data_is() {
        let mut frame = Vec::new();
        let data = br#"{"x":",\"data\":"}"#;
        let position = Position { partition: 3, offset: 99 };
        protocol::write_event(&mut frame, position, 5, "T17", "social", Some(data)).unwrap();
        let Answer::Event { lane, offset } = Answer::read(std::str::from_utf8(&frame).unwrap()) else {
            panic!("it is an event")
        };
        assert_eq!((lane.to_string().as_str(), offset), ("T17.social 3", 99));
    }
}
