//! The loss audit: compares the events that every session received with those that were due to it. Pure: no
//! socket, no clock.
//!
//! Within a session the audit is exact from the first event after the acknowledgement on: the publisher
//! increments `seq` by 1 per channel, so a jump is a loss, a repeat is a duplicate and a late event is a
//! reordering (`session`). Across sessions it finds what one session alone cannot show: events lost before
//! the first or after the last received event, and channels of which no event was received.
//!
//! Invariants:
//! - Every delivery is counted once: as delivered (in order or late), as duplicated, or as unrequested.
//! - No event published before a session's subscription is due to it. Whether an event is later than every
//!   subscription is determined by its own timestamp (see [`Audit::begin_window`]), so the result does not
//!   depend on the order of arrival.
//! - The end of the obligation is determined by the events that some session had received when the window
//!   ended (see [`Audit::end_window`]): later traffic does not move it.
//! - An event without `seq` is audited by its offset only: for order and repeats, not for loss. It is counted
//!   as unsequenced.

mod channels;
mod event_position;
mod event_positions;
mod session;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use protocol::{PatternName, Position};

pub use channels::{ChannelId, PatternId};
pub use event_positions::GapCounts;

use channels::Channels;
use event_position::{AnnouncedGap, EventPosition};
use event_positions::EventPositions;
use session::{SessionAudit, Verdict};

/// Publishers on other machines have their own clocks: an event counts as published within the window if its
/// timestamp is this much later than the beginning of the window.
const CLOCK_SKEW_MS: u64 = 1_000;

/// The audit's description of an event. It is the same for every session, so it is created once per event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditedEvent {
    channel: ChannelId,
    stream: u32,
    offset: i64,
    /// `seq` on the channel's ordinal scale; `None` for an event without `seq`.
    ordinal: Option<u32>,
}

/// Counts over all sessions of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Events that arrived, each counted once.
    pub delivered: u64,
    /// Events that were due to a session and did not arrive.
    pub lost: u64,
    /// Deliveries of an event that the session already had.
    pub duplicated: u64,
    /// Events that arrived after a later one of their channel, or of their partition and kind.
    pub reordered: u64,
    /// Events of channels that the session is not subscribed to.
    pub unrequested: u64,
    /// Events without `seq`, whose loss cannot be detected.
    pub unsequenced: u64,
}

/// A `seq` too far from the other `seq`s of the channel to be a count.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("seq {seq} of {channel} is more than 2,000,000,000 away from the channel's first")]
pub struct SeqOutOfRange {
    seq: u64,
    channel: String,
}

/// The audit of one run. Sessions are numbered from 0.
#[derive(Debug)]
pub struct Audit {
    channels: Channels,
    sessions: Vec<SessionAudit>,
    counts: AuditCounts,
    window_begin_ms: Option<u64>,
    positions: Option<EventPositions>,
}

impl Audit {
    /// Creates the audit for this number of unsubscribed sessions and the patterns that they choose from.
    pub fn new(sessions: usize, patterns: Vec<PatternName<'static>>) -> Self {
        Self {
            channels: Channels::new(patterns),
            sessions: std::iter::repeat_with(SessionAudit::default).take(sessions).collect(),
            counts: AuditCounts::default(),
            window_begin_ms: None,
            positions: None,
        }
    }

    /// Keeps the position of each event from now on; resumes and the comparison of gaps need the positions.
    pub fn keep_positions(&mut self) {
        self.positions.get_or_insert_default();
    }

    /// The session's subscription was acknowledged: from now on the events that these patterns select are due
    /// to it.
    ///
    /// On a channel with an event in the window before the subscription, the events after the first one that
    /// the session receives are due; on all other channels, those that are due to any session. A session that
    /// ended before starts with new state.
    pub fn subscribe(&mut self, session: usize, patterns: Rc<[PatternId]>) {
        if self.sessions[session].has_ended() {
            self.counts.lost += self.heads(&self.sessions[session]);
        }
        let published = |channel: &ChannelId| self.channels.owed_from(*channel).is_some();
        let partially_received = self.channels.selected_by(&patterns).filter(published).collect();
        self.sessions[session].begin(patterns, partially_received);
    }

    /// The session resumes: it keeps its state, and the events after the last one that it received are due.
    pub fn resume(&mut self, session: usize, patterns: Rc<[PatternId]>) {
        self.sessions[session].subscribe(patterns);
    }

    /// Marks the event that is `back` events before the newest of the channel as received by a session that
    /// has never subscribed, so that the session can resume after it. Returns the position of that event;
    /// `None` if there are not that many events, or if positions are not kept.
    pub fn begin_after(&mut self, session: usize, channel: &str, back: u32) -> Option<Position> {
        let channel = self.channels.find(channel)?;
        let ordinal = self.channels.newest(channel)?.checked_sub(back)?;
        let EventPosition { stream, position } = self.positions.as_ref()?.find(channel, ordinal)?;
        let event = AuditedEvent { channel, stream, offset: position.offset, ordinal: Some(ordinal) };
        self.sessions[session].begin_after(event);
        Some(position)
    }

    /// The position of the last event of the channel that the session received, if positions are kept.
    pub fn last_position(&self, session: usize, channel: &str) -> Option<Position> {
        let channel = self.channels.find(channel)?;
        let last = self.sessions[session].last(channel)?;
        Some(self.positions.as_ref()?.find(channel, last)?.position)
    }

    /// The server announced that the session will not receive these positions. Returns `false` if they are
    /// not a range.
    pub fn announce(&mut self, session: usize, channel: &str, from: Position, to: Position) -> bool {
        if from.partition != to.partition || from.offset > to.offset {
            return false;
        }
        let stream = self.channels.stream(channel, from.partition);
        let channel = (!channel.starts_with("*.")).then(|| self.channels.channel(channel));
        self.sessions[session].announce(AnnouncedGap { channel, stream, from: from.offset, to: to.offset });
        true
    }

    /// The session ended. Its losses so far count; later events are not due.
    pub fn end_session(&mut self, session: usize) {
        self.sessions[session].end();
    }

    /// Describes an event; called once per distinct event, when it first arrives.
    pub fn describe(
        &mut self,
        channel: &str,
        position: Position,
        seq: Option<u64>,
        timestamp_ms: Option<u64>,
    ) -> Result<AuditedEvent, SeqOutOfRange> {
        let id = self.channels.channel(channel);
        let stream = self.channels.stream(channel, position.partition);
        let mut event = AuditedEvent { channel: id, stream, offset: position.offset, ordinal: None };
        if let Some(seq) = seq {
            let in_window = self
                .window_begin_ms
                .zip(timestamp_ms)
                .is_some_and(|(begin, timestamp)| timestamp > begin + CLOCK_SKEW_MS);
            let ordinal = self.channels.note(id, seq, in_window);
            let ordinal = ordinal.ok_or_else(|| SeqOutOfRange { seq, channel: channel.to_owned() })?;
            event.ordinal = Some(ordinal);
            if let Some(positions) = &mut self.positions {
                positions.note(id, ordinal, EventPosition { stream, position });
            }
        }
        Ok(event)
    }

    /// Counts one delivery.
    pub fn record(&mut self, session: usize, event: AuditedEvent) {
        let session = &mut self.sessions[session];
        if !session.has_seen(event.channel) && !self.channels.selects(session.patterns(), event.channel) {
            self.counts.unrequested += 1;
            return;
        }
        if event.ordinal.is_none() {
            self.counts.unsequenced += 1;
        }
        match session.record(event) {
            Verdict::InOrder => self.counts.delivered += 1,
            Verdict::Duplicated => self.counts.duplicated += 1,
            Verdict::Reordered => {
                self.counts.delivered += 1;
                self.counts.reordered += 1;
            }
        }
    }

    /// Every session has subscribed: events published from now on (plus one second for the publisher's clock)
    /// are due to all sessions that select them, including the first event of a channel.
    pub fn begin_window(&mut self, now_ms: u64) {
        self.window_begin_ms = Some(now_ms);
    }

    /// From now on, only the events that some session has received before this call are due.
    pub fn end_window(&mut self) {
        self.channels.end_window();
    }

    /// Number of live sessions from number `first` on that have received no event since they subscribed.
    pub fn silent_sessions_from(&self, first: usize) -> u64 {
        let sessions = self.sessions[first..].iter();
        sessions.filter(|session| session.is_live() && session.seen_ranges().next().is_none()).count() as u64
    }

    /// Number of events of the window that live sessions still miss: in flight, or lost. After `end_window`
    /// the number only falls. Scans all sessions and channels.
    pub fn outstanding(&self) -> u64 {
        self.sessions.iter().filter(|session| session.is_live()).map(|session| self.tail(session)).sum()
    }

    /// Counts so far of deliveries, duplicates, reorderings and the like; losses are known only at the end.
    /// Cheap.
    pub fn counts_so_far(&self) -> AuditCounts {
        self.counts
    }

    /// Number of events missing so far between others that arrived: late, or lost. Scans all sessions.
    pub fn missing_so_far(&self) -> u64 {
        self.sessions.iter().map(SessionAudit::missing).sum()
    }

    /// The final counts. Scans all sessions and channels; call it after `end_window` and a grace period.
    pub fn counts(&self) -> AuditCounts {
        let lost: u64 = self.sessions.iter().map(|session| self.lost(session)).sum();
        AuditCounts { lost: self.counts.lost + lost, ..self.counts }
    }

    /// Number of sessions from number `first` on that received a gap announcement.
    pub fn announced_to(&self, first: usize) -> u64 {
        self.sessions[first..].iter().filter(|session| !session.gaps().is_empty()).count() as u64
    }

    /// Compares the gaps with the missing events, if positions are kept; `announced` and `unannounced`
    /// together are the lost events. Scans all sessions and the missing events of each.
    pub fn gap_counts(&self) -> GapCounts {
        let mut counts = GapCounts { unannounced: self.counts.lost, ..GapCounts::default() };
        let Some(positions) = &self.positions else {
            return GapCounts { unannounced: self.counts().lost, ..counts };
        };
        for session in &self.sessions {
            let lost = self.lost(session);
            let behind_last = |(channel, _, last): (ChannelId, u32, u32)| {
                let newest =
                    self.channels.newest(channel).filter(|newest| session.is_live() && *newest > last);
                (channel, last + 1, newest.unwrap_or(last) + 1)
            };
            let missing = session.missing_ranges().chain(session.seen_ranges().map(behind_last));
            let announced = missing.map(|(channel, from, to)| {
                (from..to).filter(|ordinal| positions.is_announced(session, channel, *ordinal)).count() as u64
            });
            let announced = announced.sum::<u64>();
            counts.announced += announced;
            counts.unannounced += lost - announced;
            counts.misannounced += positions.misannounced(session);
        }
        counts
    }

    fn lost(&self, session: &SessionAudit) -> u64 {
        session.missing() + self.heads(session) + if session.is_live() { self.tail(session) } else { 0 }
    }

    /// Number of due events of the window before the first event that this session received, over all
    /// channels.
    fn heads(&self, session: &SessionAudit) -> u64 {
        let owed = session.seen_ranges().filter(|(channel, ..)| session.owes_beginning_of(*channel));
        let before_first = owed.filter_map(|(channel, first, _)| {
            Some(u64::from(first.saturating_sub(self.channels.owed_from(channel)?)))
        });
        before_first.sum()
    }

    /// Number of events that other sessions received after the last event of this session, over all channels.
    fn tail(&self, session: &SessionAudit) -> u64 {
        let after_last = |(channel, _, last): (ChannelId, u32, u32)| {
            self.channels.newest(channel).map_or(0, |newest| u64::from(newest.saturating_sub(last)))
        };
        let unseen = self
            .channels
            .selected_by(session.patterns())
            .filter(|id| !session.has_seen(*id) && session.owes_beginning_of(*id));
        let all =
            |channel: ChannelId| match self.channels.newest(channel).zip(self.channels.owed_from(channel)) {
                Some((newest, from)) if newest >= from => u64::from(newest - from) + 1,
                _ => 0,
            };
        session.seen_ranges().map(after_last).sum::<u64>() + unseen.map(all).sum::<u64>()
    }
}
