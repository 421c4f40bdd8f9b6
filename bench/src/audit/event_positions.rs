//! The positions of events in Kafka. Sessions resume after them, and announced gaps are compared with the
//! missing events by them. Pure.
//!
//! Positions are kept only for scenarios that request them: 40 bytes for each distinct event of the run.

use std::collections::HashMap;

use super::channels::ChannelId;
use super::event_position::EventPosition;
use super::session::SessionAudit;

/// The announced gaps of a run, compared with the missing events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapCounts {
    /// Lost events that a gap of their session names.
    pub announced: u64,
    /// Lost events that no gap names.
    pub unannounced: u64,
    /// Events that a gap names although they were delivered.
    pub misannounced: u64,
}

/// The positions of the events of a run.
#[derive(Debug, Default)]
pub(super) struct EventPositions {
    by_ordinal: HashMap<(ChannelId, u32), EventPosition>,
}

impl EventPositions {
    pub(super) fn note(&mut self, channel: ChannelId, ordinal: u32, event_position: EventPosition) {
        self.by_ordinal.insert((channel, ordinal), event_position);
    }

    pub(super) fn find(&self, channel: ChannelId, ordinal: u32) -> Option<EventPosition> {
        self.by_ordinal.get(&(channel, ordinal)).copied()
    }

    /// Whether a gap of the session names this event. An event that no session received has no known
    /// position, so no gap names it.
    pub(super) fn is_announced(&self, session: &SessionAudit, channel: ChannelId, ordinal: u32) -> bool {
        !session.gaps().is_empty()
            && self.find(channel, ordinal).is_some_and(|event_position| {
                session.gaps().iter().any(|gap| gap.names(channel, &event_position))
            })
    }

    /// The number of events that the session received although one of its gaps names them.
    pub(super) fn misannounced(&self, session: &SessionAudit) -> u64 {
        if session.gaps().is_empty() {
            return 0;
        }
        let had = session.seen_ranges().flat_map(|(channel, first, last)| {
            (first..=last)
                .filter(move |ordinal| !session.misses(channel, *ordinal))
                .map(move |at| (channel, at))
        });
        had.filter(|(channel, ordinal)| self.is_announced(session, *channel, *ordinal)).count() as u64
    }
}
