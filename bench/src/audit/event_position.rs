//! Where one event stands in Kafka, and what a gap announces. Pure.

use protocol::Position;

use super::channels::ChannelId;

/// Where one event stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The partition of the event's kind, by number.
    pub(super) stream: u32,
    pub(super) position: Position,
}

/// Positions that the server said it would not deliver to a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// `None` is every channel of the kind.
    pub(super) channel: Option<ChannelId>,
    pub(super) stream: u32,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Announced {
    /// Whether it names this event.
    pub(super) fn names(&self, channel: ChannelId, place: &Place) -> bool {
        self.channel.is_none_or(|named| named == channel)
            && self.stream == place.stream
            && (self.from..=self.to).contains(&place.position.offset)
    }
}
