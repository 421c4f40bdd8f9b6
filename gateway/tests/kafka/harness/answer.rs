//! What a gateway says, read as far as the audit needs it: of an event only its head.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{GapReason, Position};
use serde::Deserialize;

use super::lane::{Lane, Selection};

/// For each kind the next position of every partition.
pub(crate) type Positions = BTreeMap<String, Vec<Position>>;

/// A message of the gateway.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answer {
    #[serde(skip)]
    Event {
        lane: Lane,
        offset: i64,
    },
    SubscriptionAck {
        subscribed: Vec<String>,
        #[serde(default)]
        rejected: Vec<Refusal>,
        #[serde(default)]
        not_resumed: Vec<Refusal>,
        #[serde(default)]
        positions: Positions,
    },
    UnsubscriptionAck {
        unsubscribed: Vec<String>,
    },
    Resumed {
        channel: String,
        replayed: u64,
    },
    Gap {
        channel: String,
        from: Position,
        to: Position,
        reason: GapReason,
    },
    /// Whatever it says.
    Error,
}

/// A channel that was not taken, or not resumed.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) channel: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.channel, self.code, self.message)
    }
}

impl Answer {
    /// # Panics
    /// At what the manual does not know: the test is over.
    pub(crate) fn read(text: &str) -> Self {
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
