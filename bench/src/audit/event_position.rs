//! Where one event stands in Kafka, and what a gap announces. Pure.

use protocol::Position;

use super::channels::ChannelId;

/// Where one event stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventPosition {
    /// The partition of the event's kind, by number.
    pub(super) stream: u32,
    pub(super) position: Position,
}

/// Positions that the server said it would not deliver to a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnnouncedGap {
    /// `None` is every channel of the kind.
    pub(super) channel: Option<ChannelId>,
    pub(super) stream: u32,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl AnnouncedGap {
    /// Whether it names this event.
    pub(super) fn names(&self, channel: ChannelId, event_position: &EventPosition) -> bool {
        self.channel.is_none_or(|named| named == channel)
            && self.stream == event_position.stream
            && (self.from..=self.to).contains(&event_position.position.offset)
    }
}
