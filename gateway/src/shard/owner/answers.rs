//! The answers of an [`Owner`] to start requests, and when it answers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use protocol::{Pattern, Position, code};
use wire::SocketId;

use super::Owner;
use super::deferred_questions::{Change, DeferredQuestions, Question};
use super::single_position;
use crate::counters::operations;
use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::topic_set::TopicSet;
use crate::limits;
use crate::shard::mesh::first_offsets::FirstOffsets;
use crate::shard::mesh::start::{
    StartFrom, StartOutcome, StartRefusal, StartReply, StartRequest, SubscriptionStart,
};

/// What a question's past subscriptions want of a topic.
#[derive(Debug, Default)]
struct PastStarts {
    is_concerned: bool,
    has_snapshot: bool,
    first_offsets: FirstOffsets,
}

/// Partitions that are not fully known.
struct UnresolvedPartitions {
    /// Partitions whose end nobody could tell.
    unknown: BTreeSet<Partition>,
    /// Partitions whose past is still being read.
    unread: BTreeSet<Partition>,
}

impl Owner {
    /// Answers a start request. `None`: the answer comes later, from [`Owner::answer_waiting`]. If too many questions wait, it is
    /// answered at once with what is known, like one that has waited for its maximum. A costly one is answered in a step of its
    /// own.
    pub(crate) fn answer_start(
        &mut self,
        home: usize,
        begin: StartRequest,
        now: Instant,
    ) -> Option<StartReply> {
        self.look_at_the_clock(now);
        self.operations += (begin.positions() + begin.starts.len() + self.heads.len()) as u64;
        // Of a partition that the client did not name, everything is wanted.
        let mut named = BTreeMap::new();
        for &(topic, ref since) in begin.starts.iter().flat_map(SubscriptionStart::since) {
            operations::count(since.positions().len());
            for (number, first) in since.firsts() {
                let highest = named.entry(Partition { topic, number }).or_insert(first);
                *highest = first.max(*highest);
            }
        }
        let ends = named.into_iter().filter_map(|(partition, highest)| self.end_needed(partition, highest));
        let ends: Vec<_> = ends.collect();
        let cut = self.heads.iter().map(|(&partition, head)| (partition, head.live_next())).collect();
        let question = Question { home, begin, cut };
        if ends.is_empty() && (self.is_ready || question.begin.starts.is_empty()) {
            let cost = question.begin.positions() + question.begin.starts.len();
            let question = match cost > limits::QUESTION_OPERATIONS_AT_ONCE {
                true => self.deferred.push_complete(question, now + limits::BEGIN_PATIENCE).err()?,
                false => question,
            };
            return Some(self.answer(&question, &[]));
        }
        let (question, ends) = self.deferred.push(question, ends, now + limits::BEGIN_PATIENCE).err()?;
        self.questions_hurried += 1;
        Some(self.answer(&question, &ends))
    }

    /// When [`Owner::answer_waiting`] has work, unless it has some now ([`Owner::has_waiting`]).
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let unanswered = self.unanswered.front().map(|(due, _)| *due);
        self.deferred.next_due().into_iter().chain(unanswered).min()
    }

    /// Whether deferred questions may be answered now.
    pub(crate) fn has_waiting(&self) -> bool {
        self.deferred.is_walking()
    }

    /// Answers questions that are complete or overdue, as many as a turn allows.
    pub(crate) fn answer_waiting(&mut self, now: Instant) -> Vec<(usize, StartReply)> {
        self.look_at_the_clock(now);
        let until = self.turn_ends_at();
        while let Some(&(due, _)) = self.unanswered.front()
            && due <= now
        {
            self.unanswered.pop_front();
            // A question that waits for an end has it asked for again.
            self.deferred.reconsider_all();
        }
        let mut answers = Vec::new();
        // Looking at a question asks for ends, which changes the owner.
        let mut waiting = std::mem::take(&mut self.deferred);
        while self.operations < until
            && let Some(number) = waiting.overdue(now)
        {
            self.look_at(&mut waiting, number);
            answers.extend(self.answer_one(&mut waiting, number));
        }
        while self.operations < until
            && let Some(number) = waiting.walk()
        {
            if self.look_at(&mut waiting, number) {
                answers.extend(self.answer_one(&mut waiting, number));
            }
        }
        self.deferred = waiting;
        answers
    }

    /// A session has ended: its questions need no answer.
    pub(crate) fn withdraw(&mut self, home: usize, socket: SocketId) {
        self.questions_withdrawn += self.deferred.withdraw(home, socket) as u64;
    }

    /// Updates a deferred question. Whether it can be answered.
    fn look_at(&mut self, waiting: &mut DeferredQuestions, number: u64) -> bool {
        self.operations += 1;
        let Some((deferred, changes)) = waiting.look_at(number) else { return false };
        for (partition, change) in changes {
            self.operations += 1;
            let cut = &mut deferred.question.cut;
            match change {
                Change::Began(next) => {
                    cut.insert(partition, next);
                    let starts = &deferred.question.begin.starts;
                    self.operations += starts.len() as u64;
                    let highest = starts.iter().filter_map(|start| start.first(partition)).max();
                    deferred.ends.extend(highest.and_then(|highest| self.end_needed(partition, highest)));
                }
                Change::Reset(next) => _ = cut.get_mut(&partition).map(|cut| *cut = next),
                Change::Lowered(next) => _ = cut.get_mut(&partition).map(|cut| *cut = next.min(*cut)),
            }
        }
        self.operations += deferred.ends.len() as u64;
        deferred
            .ends
            .retain(|(partition, number)| self.heads.get(partition).is_some_and(|head| head.told < *number));
        deferred.ends.iter().for_each(|(partition, _)| self.want_end(*partition));
        deferred.ends.is_empty() && (self.is_ready || deferred.question.begin.starts.is_empty())
    }

    fn answer_one(&mut self, waiting: &mut DeferredQuestions, number: u64) -> Option<(usize, StartReply)> {
        let deferred = waiting.remove(number)?;
        Some((deferred.question.home, self.answer(&deferred.question, &deferred.ends)))
    }

    /// `unknown`: partitions whose end nobody could tell.
    fn answer(&mut self, question: &Question, unknown: &[(Partition, u64)]) -> StartReply {
        let Question { begin, cut, .. } = question;
        let looked_at = begin.positions() + begin.starts.len() + cut.len();
        self.operations += limits::OWNER_OPERATIONS_PER_ANSWER + looked_at as u64;
        let unsettled = UnresolvedPartitions {
            unknown: unknown.iter().map(|(partition, _)| *partition).collect(),
            unread: self.heads.iter().filter(|(_, it)| it.next < it.live_from).map(|(it, _)| *it).collect(),
        };
        // For all its snapshots together: otherwise a client that names channels twice gets everything twice.
        let mut frames_left = 2 * self.snapshot_frames_max;
        let starts = begin.starts.iter().map(|start| self.start(start, cut, &unsettled, &mut frames_left));
        let starts: Vec<_> = starts.collect();
        let mut past: Vec<_> = self.kinds.iter().map(|_| PastStarts::default()).collect();
        for (start, begun) in begin.starts.iter().zip(&starts).filter(|(start, _)| start.has_past()) {
            for topic in TopicSet::selected(start.pattern(), &self.kinds).iter() {
                let is_refused = begun.refusal.is_some();
                past[topic].is_concerned = true;
                past[topic].has_snapshot |= matches!(start.from, StartFrom::Snapshot) && !is_refused;
                past[topic].first_offsets.add(start.since_of(topic).filter(|_| !is_refused));
            }
        }
        let behind = cut.iter().filter(|&(&it, &cut)| self.is_behind(it, cut, &past[it.topic]));
        let behind = behind.map(|(&partition, _)| partition).collect();
        let owned = cut.iter().map(|(&partition, &next)| PartitionOffset { partition, next });
        StartReply {
            pull_id: begin.pull_id,
            cut: if begin.wants_cut { owned.collect() } else { Vec::new() },
            behind,
            starts,
        }
    }

    fn start(
        &self,
        start: &SubscriptionStart,
        cut: &BTreeMap<Partition, i64>,
        unsettled: &UnresolvedPartitions,
        frames_left: &mut usize,
    ) -> StartOutcome {
        match &start.from {
            StartFrom::Live => StartOutcome::default(),
            StartFrom::Snapshot => self.snapshot(start.pattern(), cut, frames_left),
            StartFrom::Since(_) => {
                StartOutcome { snapshot: Vec::new(), refusal: self.refusal(start, unsettled) }
            }
        }
    }

    /// The last events below the cut.
    fn snapshot(
        &self,
        pattern: Pattern<'_>,
        cut: &BTreeMap<Partition, i64>,
        frames_left: &mut usize,
    ) -> StartOutcome {
        let refused = |refusal| StartOutcome { snapshot: Vec::new(), refusal: Some(refusal) };
        if !self.is_ready {
            return refused(snapshot_not_ready());
        }
        let frames_max = self.snapshot_frames_max.min(*frames_left);
        let Some(mut snapshot) = self.last_values.select(pattern, frames_max, self.snapshot_bytes_max) else {
            return refused(snapshot_too_large());
        };
        *frames_left -= snapshot.len();
        // Later events are delivered through the cursors.
        let is_before = |frame: &Arc<Frame>| {
            let source = frame.source();
            source.is_some_and(|it| cut.get(&it.partition).is_some_and(|&cut| it.offset < cut))
        };
        snapshot.retain(is_before);
        StartOutcome { snapshot, refusal: None }
    }

    /// Why a subscription cannot begin as requested, if this shard knows a reason.
    fn refusal(&self, start: &SubscriptionStart, unsettled: &UnresolvedPartitions) -> Option<StartRefusal> {
        let is_unread = |topic, position: Position| {
            let from = unsettled.unread.range(Partition { topic, number: i32::MIN }..);
            // Two are enough: one of them may be the named one.
            let mut first = from.take(2).take_while(|it| it.topic == topic);
            first.any(|it| it.number != position.partition)
        };
        if let Some(refusal) = single_position::refusal(&self.misplaced_tokens, &self.kinds, start, is_unread)
        {
            return Some(refusal);
        }
        for &(topic, ref since) in start.since() {
            operations::count(since.positions().len());
            for (position, (number, wanted)) in since.positions().iter().zip(since.firsts()) {
                let partition = Partition { topic, number };
                let can_be_had = match self.heads.get(&partition) {
                    _ if partition.owner(self.shards) != self.shard => true,
                    _ if unsettled.unknown.contains(&partition) => true,
                    Some(head) => head.can_reach(wanted),
                    None => self.can_answer(partition),
                };
                if !can_be_had {
                    return Some(unknown_position(&self.kinds[topic], position));
                }
                if self.is_too_old(partition, wanted) {
                    return Some(too_old(&self.kinds[topic], position));
                }
            }
        }
        None
    }

    /// Whether a wanted offset is known to be older than the maximum age: it is below the history, which reaches back that far.
    /// Otherwise the replay threads find out.
    fn is_too_old(&self, partition: Partition, wanted: i64) -> bool {
        let (Some(age_max), Some(now_ms)) = (self.resume_age_max, self.now_ms) else { return false };
        let is_below = self.history.first(partition).is_some_and(|first| wanted < first);
        let oldest_ms = self.history.oldest_ms(partition).filter(|_| is_below);
        oldest_ms.is_some_and(|oldest_ms| oldest_ms.saturating_add(age_max.as_millis() as i64) < now_ms)
    }

    fn look_at_the_clock(&mut self, now: Instant) {
        self.now_ms = self
            .clock
            .map(|(then, then_ms)| then_ms + now.saturating_duration_since(then).as_millis() as i64);
    }

    /// Whether this partition may exist although it has not started.
    fn can_answer(&self, partition: Partition) -> bool {
        self.expected.as_ref().is_none_or(|expected| expected.contains_key(&partition))
    }

    /// Whether these starts want events of a partition that are not delivered live from here on. If the answer is late, events
    /// were withheld since the cut; and whatever a start names, it begins with the cut if another owner refuses it.
    fn is_behind(&self, partition: Partition, cut: i64, past: &PastStarts) -> bool {
        let Some(head) = self.heads.get(&partition) else { return false };
        let next = head.live_next();
        // Its past may become live if its log stands still ([`Owner::stop_waiting`]).
        let is_unread = head.next < head.live_from;
        let all_begin_there =
            || past.first_offsets.range(partition.number, cut).is_none_or(|it| it == (next, next));
        past.is_concerned && (past.has_snapshot || is_unread || cut < next || !all_begin_there())
    }

    /// The end of this partition, if the question cannot be answered without it; then it is asked for.
    pub(crate) fn end_needed(&mut self, partition: Partition, highest: i64) -> Option<(Partition, u64)> {
        let head = self.heads.get(&partition)?;
        if head.can_reach(highest) {
            return None;
        }
        let number = head.asked + 1;
        self.want_end(partition);
        Some((partition, number))
    }
}

/// The refusal of a kind's `since` with a position that does not exist.
fn unknown_position(kind: &str, position: &Position) -> StartRefusal {
    let message = format!(
        "no {kind} event has the position {position} yet, or there is no such partition: delivery begins with the next \
         event; send a pos that this gateway sent"
    );
    StartRefusal { code: code::UNKNOWN_POSITION, message }
}

/// The refusal of a kind's `since` with a position beyond the maximum age.
fn too_old(kind: &str, position: &Position) -> StartRefusal {
    let message = format!(
        "what follows the {kind} position {position} is older than the gateway reads Kafka again for (WS_RESUME_MAX_AGE): \
         delivery begins with the next event; load the state again"
    );
    StartRefusal { code: code::TOO_OLD, message }
}

/// The refusal of a snapshot while the last events are not known yet.
fn snapshot_not_ready() -> StartRefusal {
    let message = "the gateway has just started and has not read the last events yet: delivery begins with the next event; \
                   unsubscribe and subscribe with snapshot again in a few seconds";
    StartRefusal { code: code::SNAPSHOT_NOT_READY, message: message.to_owned() }
}

/// The refusal of a snapshot larger than a session may have queued.
pub(crate) fn snapshot_too_large() -> StartRefusal {
    let message = "the last events are more than half an outbox (WS_OUTBOX_BYTES, WS_OUTBOX_FRAMES): delivery begins with \
                   the next event; subscribe to fewer channels at a time";
    StartRefusal { code: code::SNAPSHOT_TOO_LARGE, message: message.to_owned() }
}
