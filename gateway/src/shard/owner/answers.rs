//! What an [`Owner`] answers to those who ask where subscriptions begin, and when. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::{Pattern, Position, code};

use super::Owner;
use crate::ingest::frame::Frame;
use crate::ingest::partition::{Owned, Partition};
use crate::limits;
use crate::shard::begin::{Begin, Begun, BegunStart, Refusal, Start, StartFrom};
use crate::shard::single;
use crate::shard::topic_set::TopicSet;

/// A question that waits.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) question: Question,
    /// When it is answered whatever it still waits for.
    due: Instant,
    /// For these ends: for the answer of that number, which was asked for after the question came.
    pub(super) ends: Vec<(Partition, u64)>,
}

/// A question, with how far our partitions had come when it came. From there on its home withholds what it is about, whoever
/// else wants it, so that is where the answer has to begin, however late it is.
#[derive(Debug)]
pub(super) struct Question {
    home: usize,
    pub(super) begin: Begin,
    pub(super) cut: BTreeMap<Partition, i64>,
}

impl Owner {
    /// Where subscriptions begin. `None`: the answer comes later, from [`Owner::set_ready`], [`Owner::end_found`] or
    /// [`Owner::answer_overdue`].
    pub fn begin(&mut self, home: usize, begin: Begin, now: Instant) -> Option<Begun> {
        let partitions: Vec<_> = self.heads.keys().copied().collect();
        let ends: Vec<_> = partitions.into_iter().filter_map(|it| self.end_needed(&begin, it)).collect();
        let cut = self.heads.iter().map(|(&partition, head)| (partition, head.live_next())).collect();
        let question = Question { home, begin, cut };
        if ends.is_empty() && (self.is_ready || question.begin.starts.is_empty()) {
            return Some(self.answer(&question, &[]));
        }
        self.deferred.push(Deferred { question, due: now + limits::BEGIN_PATIENCE, ends });
        None
    }

    /// When [`Owner::answer_overdue`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        // All have the same patience.
        let deferred = self.deferred.first().map(|deferred| deferred.due);
        let unanswered = self.unanswered.front().map(|(due, _)| *due);
        deferred.into_iter().chain(unanswered).min()
    }

    /// The answers that are not to wait any longer.
    pub fn answer_overdue(&mut self, now: Instant) -> Vec<(usize, Begun)> {
        if self.next_due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        while let Some(&(_, partition)) = self.unanswered.front().filter(|(due, _)| *due <= now) {
            self.unanswered.pop_front();
            if self.deferred.iter().any(|deferred| deferred.ends.iter().any(|(of, _)| *of == partition)) {
                self.want_end(partition);
            }
        }
        self.answer_those(|deferred| deferred.due <= now)
    }

    /// Answers the questions that wait for nothing any more.
    pub(super) fn answer_deferred(&mut self) -> Vec<(usize, Begun)> {
        self.answer_those(|deferred| deferred.ends.is_empty())
    }

    fn answer_those(&mut self, is_answered: impl Fn(&Deferred) -> bool) -> Vec<(usize, Begun)> {
        let (answered, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.deferred).into_iter().partition(is_answered);
        self.deferred = waiting;
        answered.iter().map(|it| (it.question.home, self.answer(&it.question, &it.ends))).collect()
    }

    /// `unknown`: partitions whose end nobody could tell.
    fn answer(&self, question: &Question, unknown: &[(Partition, u64)]) -> Begun {
        let Question { begin, cut, .. } = question;
        let starts: Vec<_> = begin.starts.iter().map(|start| self.start(start, cut, unknown)).collect();
        let past = begin.starts.iter().zip(&starts).filter(|(start, _)| start.has_past());
        let past: Vec<_> = past.map(|it| (TopicSet::selected(it.0.pattern(), &self.kinds), it)).collect();
        let behind = cut.iter().filter(|&(&partition, &cut)| self.is_behind(partition, cut, &past));
        let behind = behind.map(|(&partition, _)| partition).collect();
        let owned = cut.iter().map(|(&partition, &next)| Owned { partition, next });
        Begun {
            ticket: begin.ticket,
            cut: if begin.wants_cut { owned.collect() } else { Vec::new() },
            behind,
            starts,
        }
    }

    fn start(
        &self,
        start: &Start,
        cut: &BTreeMap<Partition, i64>,
        unknown: &[(Partition, u64)],
    ) -> BegunStart {
        match &start.from {
            StartFrom::Live => BegunStart::default(),
            StartFrom::Snapshot => self.snapshot(start.pattern(), cut),
            StartFrom::Since(_) => BegunStart { snapshot: Vec::new(), refusal: self.refusal(start, unknown) },
        }
    }

    /// The last events before the cut.
    fn snapshot(&self, pattern: Pattern<'_>, cut: &BTreeMap<Partition, i64>) -> BegunStart {
        let refused = |refusal| BegunStart { snapshot: Vec::new(), refusal: Some(refusal) };
        if !self.is_ready {
            return refused(snapshot_not_ready());
        }
        let Some(mut snapshot) =
            self.last_values.select(pattern, self.snapshot_frames_max, self.snapshot_bytes_max)
        else {
            return refused(snapshot_too_large());
        };
        // What came since the question comes through the cursors.
        let is_before = |frame: &Arc<Frame>| {
            let source = frame.source();
            source.is_some_and(|it| cut.get(&it.partition).is_some_and(|&cut| it.offset < cut))
        };
        snapshot.retain(is_before);
        BegunStart { snapshot, refusal: None }
    }

    /// Why a subscription cannot begin where it was to, if this shard knows a reason.
    fn refusal(&self, start: &Start, unknown: &[(Partition, u64)]) -> Option<Refusal> {
        let is_unread = |topic, position: Position| {
            let mut others =
                self.heads.iter().filter(|(it, _)| it.topic == topic && it.number != position.partition);
            others.any(|(_, head)| head.next < head.live_from)
        };
        if let Some(refusal) = single::refusal(&self.strays, &self.kinds, start, is_unread) {
            return Some(refusal);
        }
        for &(topic, ref since) in start.since() {
            for position in since.positions() {
                let partition = Partition { topic, number: position.partition };
                let wanted = since.first(position.partition).unwrap_or(position.offset);
                let can_be_had = match self.heads.get(&partition) {
                    _ if partition.owner(self.shards) != self.shard => true,
                    _ if unknown.iter().any(|(it, _)| *it == partition) => true,
                    Some(head) => head.can_reach(wanted),
                    None => self.may_begin(partition),
                };
                if !can_be_had {
                    return Some(unknown_position(&self.kinds[topic], position));
                }
            }
        }
        None
    }

    /// Whether this partition may be there, though it has not begun.
    fn may_begin(&self, partition: Partition) -> bool {
        self.expected.as_ref().is_none_or(|expected| expected.iter().any(|(it, _)| *it == partition))
    }

    /// Whether what these starts want of a partition is something else than what is told from here on. Where an answer is late,
    /// something has been withheld since the cut; and whatever a start names, it begins with the cut if another owner refuses it.
    fn is_behind(&self, partition: Partition, cut: i64, past: &[(TopicSet, (&Start, &BegunStart))]) -> bool {
        let Some(head) = self.heads.get(&partition) else { return false };
        let next = head.live_next();
        past.iter().any(|&(topics, (start, begun))| {
            let is_concerned = topics.contains(partition.topic);
            let is_snapshot = matches!(start.from, StartFrom::Snapshot) && begun.refusal.is_none();
            let first = start.first(partition).filter(|_| begun.refusal.is_none());
            // What was to be its past may become live if its log stands still ([`Owner::stop_waiting`]).
            let is_unread = head.next < head.live_from;
            is_concerned && (is_snapshot || is_unread || cut < next || first.unwrap_or(cut) != next)
        })
    }

    /// The end of this partition, if the question cannot be answered without; it is asked for.
    pub(super) fn end_needed(&mut self, begin: &Begin, partition: Partition) -> Option<(Partition, u64)> {
        let head = self.heads.get(&partition)?;
        let mut wanted = begin.starts.iter().filter_map(|start| start.first(partition));
        if wanted.all(|wanted| head.can_reach(wanted)) {
            return None;
        }
        let number = head.asked + 1;
        self.want_end(partition);
        Some((partition, number))
    }
}

/// A kind's `since` that names a position which is not there.
fn unknown_position(kind: &str, position: &Position) -> Refusal {
    let message = format!(
        "no {kind} event has the position {position} yet, or there is no such partition: delivery begins with the next \
         event; send a pos that this gateway sent"
    );
    Refusal { code: code::UNKNOWN_POSITION, message }
}

/// The last events are not known yet.
fn snapshot_not_ready() -> Refusal {
    let message = "the gateway has just started and has not read the last events yet: delivery begins with the next event; \
                   unsubscribe and subscribe with snapshot again in a few seconds";
    Refusal { code: code::SNAPSHOT_NOT_READY, message: message.to_owned() }
}

/// The last events are more than a session may have waiting.
pub(in crate::shard) fn snapshot_too_large() -> Refusal {
    let message = "the last events are more than half an outbox (WS_OUTBOX_BYTES, WS_OUTBOX_FRAMES): delivery begins with \
                   the next event; subscribe to fewer channels at a time";
    Refusal { code: code::SNAPSHOT_TOO_LARGE, message: message.to_owned() }
}
