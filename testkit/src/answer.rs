//! What a gateway says, read as far as the audit needs it: of an event only its head.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{GapReason, Position};
use serde::Deserialize;

use crate::lane::{Lane, Selection};

/// For each kind the next position of every partition.
pub type Positions = BTreeMap<String, Vec<Position>>;

/// A message of the gateway.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    #[serde(skip)]
    /// An event.
    Event {
        /// Its channel and partition.
        lane: Lane,
        /// Its offset.
        offset: i64,
    },
    /// `subscription_ack`.
    SubscriptionAck {
        /// As the message says.
        subscribed: Vec<String>,
        /// As the message says.
        #[serde(default)]
        rejected: Vec<Refusal>,
        /// As the message says.
        #[serde(default)]
        not_resumed: Vec<Refusal>,
        /// As the message says.
        #[serde(default)]
        positions: Positions,
        /// Partitions, by kind, of which no position is known yet.
        #[serde(default)]
        waiting: BTreeMap<String, Vec<i32>>,
    },
    /// `positions`.
    Positions {
        /// Of partitions that an acknowledgement listed as waiting.
        positions: Positions,
    },
    /// `unsubscription_ack`.
    UnsubscriptionAck {
        /// As the message says.
        unsubscribed: Vec<String>,
    },
    /// `resumed`.
    Resumed {
        /// As the message says.
        channel: String,
        /// As the message says.
        replayed: u64,
    },
    /// `gap`.
    Gap {
        /// As the message says.
        channel: String,
        /// Lost.
        from: Position,
        /// Lost too.
        to: Position,
        /// As the message says.
        reason: GapReason,
    },
    /// Whatever it says.
    Error,
}

/// A channel that was not taken, or not resumed.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// Which.
    pub channel: String,
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.channel, self.code, self.message)
    }
}

impl Answer {
    /// # Panics
    /// At what the manual does not know: the test is over.
    /// Reads a message.
    ///
    pub fn read(text: &str) -> Self {
        match text.starts_with(r#"{"seq":"#) {
            true => Self::read_event(text).unwrap_or_else(|| panic!("no event: {text}")),
            false => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
        }
    }

    /// The value may be anything; the head comes before it and has no escapes.
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
