//! The position of an event in Kafka, and the positions that a gap names. Pure.

use protocol::Position;

use super::channels::ChannelId;

/// The position of one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventPosition {
    /// Number of the partition of the event's kind.
    pub(super) stream: u32,
    pub(super) position: Position,
}

/// Positions that the server announced it would not deliver to a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnnouncedGap {
    /// `None` means every channel of the kind.
    pub(super) channel: Option<ChannelId>,
    pub(super) stream: u32,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl AnnouncedGap {
    /// Whether the gap names this event.
    pub(super) fn names(&self, channel: ChannelId, event_position: &EventPosition) -> bool {
        self.channel.is_none_or(|named| named == channel)
            && self.stream == event_position.stream
            && (self.from..=self.to).contains(&event_position.position.offset)
    }
}
