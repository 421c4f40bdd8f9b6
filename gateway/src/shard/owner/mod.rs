//! A shard as the owner of partitions: how far each is read, the stored frames, and the answers to start requests and pulls.
//!
//! It stores the newest frames (`history`) and each channel's last one (`last_values`), for all sessions of all shards. Pure:
//! records and questions in, answers out; `core` delivers them.
//!
//! A client may come from a gateway that is ahead of this one, so a position beyond the head is not wrong yet: the brokers are
//! asked where the log ends (`take_ends_wanted`), and the answer waits for theirs. It also waits until the history is filled, but
//! never longer than [`limits::BEGIN_PATIENCE`]: then a subscription keeps the place that it named, and is not refused for
//! something that nobody could look up.
//!
//! An answer covers the partitions that have started by then, also those that started while the question waited. [`Owner::known`]
//! tells the homes of later ones.

pub(crate) mod answers;
pub(crate) mod deferred_questions;
pub(crate) mod history;
pub(crate) mod last_values;
pub(crate) mod misplaced_tokens;
pub(crate) mod quiet_tokens;
pub(crate) mod read_gate;
pub(crate) mod single_position;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::GapReason;

use self::history::History;
use self::last_values::LastValues;
use self::misplaced_tokens::MisplacedTokens;
use super::mesh::layout::{Known, PartitionProgress};
use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::{Chunk, Pull, PullContinuation};
use crate::event::skipped::Announcements;
use crate::kafka::polled::{OffsetJump, ReadStart};
use crate::limits;

pub(crate) use self::answers::snapshot_too_large;
use self::deferred_questions::{Change, DeferredQuestions};

/// The partitions with their stored frames, and the deferred questions.
pub(crate) struct Owner {
    shard: usize,
    shards: usize,
    /// By topic.
    kinds: Vec<Arc<str>>,
    heads: BTreeMap<Partition, Head>,
    /// The existing partitions, and whether each can start. `None` before the brokers have listed them.
    expected: Option<BTreeMap<Partition, bool>>,
    history: History,
    last_values: LastValues,
    /// Announcements of records without a usable key.
    pub skipped: Announcements,
    misplaced_tokens: MisplacedTokens,
    /// Maximum frames of a snapshot: half an outbox.
    snapshot_frames_max: usize,
    snapshot_bytes_max: usize,
    is_ready: bool,
    deferred: DeferredQuestions,
    /// Questions answered with what was known because too many waited, and questions whose session ended before.
    questions_hurried: u64,
    questions_withdrawn: u64,
    /// Operations of answers: starts, positions, partitions and questions looked at.
    operations: u64,
    operations_per_turn: u64,
    resume_age_max: Option<Duration>,
    /// The wall clock at some time: milliseconds since 1970.
    clock: Option<(Instant, i64)>,
    now_ms: Option<i64>,
    ends_wanted: Vec<Partition>,
    /// Partitions whose end the brokers could not tell, and when they may be asked again.
    unanswered: VecDeque<(Instant, Partition)>,
}

/// How far a partition is read.
#[derive(Debug, Default)]
struct Head {
    next: i64,
    /// Records below are stored and not delivered.
    live_from: i64,
    /// From here on every record was read, and is an event or has no token.
    whole_from: i64,
    /// The log's end in the brokers' last answer.
    end: i64,
    /// The offset at which it stands, and since when, while records below `live_from` are read.
    stands: Option<(i64, Instant)>,
    /// How often the brokers were asked for the end, and how often they answered.
    asked: u64,
    answered: u64,
    /// The number of the last answer that had an end.
    told: u64,
}

impl Head {
    /// Whether the log is known to reach this offset.
    fn can_reach(&self, offset: i64) -> bool {
        offset <= self.live_next().max(self.end)
    }

    /// The next offset that is delivered.
    fn live_next(&self) -> i64 {
        self.next.max(self.live_from)
    }
}

/// Limits of a shard's stored frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetentionLimits {
    /// Bytes of the history.
    pub history_bytes_max: usize,
    /// Channels whose last event is stored.
    pub last_values_max: usize,
    /// Frames of one snapshot.
    pub snapshot_frames_max: usize,
    /// Bytes of one snapshot.
    pub snapshot_bytes_max: usize,
    /// Maximum age of records that a resume reads from Kafka; `None`: no limit.
    pub resume_age_max: Option<Duration>,
    /// See [`limits::OWNER_OPERATIONS_PER_TURN`].
    pub operations_per_turn: u64,
}

impl Owner {
    /// Without partitions.
    pub(crate) fn new(shard: usize, shards: usize, kinds: Vec<Arc<str>>, keeping: &RetentionLimits) -> Self {
        Self {
            shard,
            shards,
            heads: BTreeMap::new(),
            expected: None,
            history: History::new(keeping.history_bytes_max),
            last_values: LastValues::new(
                keeping.last_values_max,
                keeping.last_values_max * limits::LAST_VALUE_BYTES,
            ),
            skipped: Announcements::default(),
            kinds,
            misplaced_tokens: MisplacedTokens::default(),
            snapshot_frames_max: keeping.snapshot_frames_max,
            snapshot_bytes_max: keeping.snapshot_bytes_max,
            is_ready: false,
            deferred: DeferredQuestions::default(),
            questions_hurried: 0,
            questions_withdrawn: 0,
            operations: 0,
            operations_per_turn: keeping.operations_per_turn,
            resume_age_max: keeping.resume_age_max,
            clock: None,
            now_ms: None,
            ends_wanted: Vec::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// With knowledge of where tokens belong; without it, single positions are accepted as they are.
    pub(crate) fn with_misplaced_tokens(self, misplaced_tokens: MisplacedTokens) -> Self {
        Self { misplaced_tokens, ..self }
    }

    /// With the wall clock, which shows `now_ms` at this time; without it nothing is known to be too old.
    pub(crate) fn with_clock(self, now: Instant, now_ms: i64) -> Self {
        Self { clock: Some((now, now_ms)), ..self }
    }

    /// The kinds, by topic.
    pub(crate) fn kinds(&self) -> &[Arc<str>] {
        &self.kinds
    }

    /// The frames from which sessions resume.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The frames for snapshots.
    pub(crate) fn last_values(&self) -> &LastValues {
        &self.last_values
    }

    /// Tokens that were seen where they do not belong.
    pub(crate) fn misplaced_tokens(&self) -> &MisplacedTokens {
        &self.misplaced_tokens
    }

    /// Sets a topic's number of partitions.
    pub(crate) fn set_partitions(&mut self, topic: usize, partitions: i32) {
        self.misplaced_tokens.set_partitions(topic, partitions, &self.last_values);
    }

    /// Sets this shard's partitions, and whether each can start, as the brokers report.
    pub(crate) fn set_layout(&mut self, expected: Vec<(Partition, bool)>) {
        self.expected = Some(expected.into_iter().collect());
    }

    /// How far this shard's partitions have started; `None` before the brokers have listed them.
    pub(crate) fn known(&self) -> Option<Known> {
        let expected = self.expected.as_ref()?;
        let not_begun =
            expected.iter().filter(|(it, _)| !self.heads.contains_key(it)).map(|(&it, &can_begin)| {
                (it, if can_begin { PartitionProgress::Awaited } else { PartitionProgress::Stuck })
            });
        let begun = self.heads.keys().map(|&it| (it, PartitionProgress::Started));
        Some(begun.chain(not_begun).collect())
    }

    /// Starts a partition. Returns where its delivery begins, also for the questions that wait.
    pub(crate) fn partition_started(&mut self, began: &ReadStart) -> PartitionOffset {
        let PartitionOffset { partition, next } = began.owned;
        self.history.begin(partition, next);
        let head = Head { next, live_from: began.live_from, whole_from: next, ..Head::default() };
        let cut = head.live_next();
        self.heads.insert(partition, head);
        self.deferred.note(partition, Change::Began(cut));
        PartitionOffset { partition, next: cut }
    }

    /// Stores a record's frame. Whether it must be delivered.
    pub(crate) fn store_frame(&mut self, frame: &Arc<Frame>) -> bool {
        let Some(source) = frame.source() else { return false };
        self.history.push(frame);
        self.last_values.put(frame);
        self.misplaced_tokens.observe(frame);
        let Some(head) = self.heads.get_mut(&source.partition) else { return false };
        head.next = source.offset + 1;
        if source.is_gap {
            head.whole_from = head.next;
        }
        source.offset >= head.live_from
    }

    /// Notes a record without a frame.
    pub(crate) fn advance_past(&mut self, owned: PartitionOffset) {
        self.history.advance(owned.partition, owned.next);
        if let Some(head) = self.heads.get_mut(&owned.partition) {
            head.next = owned.next;
        }
    }

    /// Notes a record whose key is not a token: it has no frame, and sessions that subscribe to every token are told.
    pub(crate) fn skip(&mut self, owned: PartitionOffset, now: Instant) {
        let PartitionOffset { partition, next } = owned;
        self.history.skip(partition, next - 1);
        if self.heads.get(&partition).is_some_and(|head| next > head.live_from) {
            self.skipped.note(partition, next - 1, now);
        }
        self.advance_past(owned);
    }

    /// Notes that a partition continues elsewhere.
    pub(crate) fn note_jump(&mut self, jump: &OffsetJump) {
        self.history.begin(jump.partition, jump.next);
        let Some(head) = self.heads.get_mut(&jump.partition) else { return };
        if jump.reason == GapReason::Reset {
            // What was known of the old topic is of no use.
            self.last_values.forget(jump.partition);
            self.skipped.forget(jump.partition);
            self.misplaced_tokens.forget(jump.partition);
            head.live_from = jump.next;
            head.end = jump.next;
            self.deferred.note(jump.partition, Change::Reset(jump.next));
        }
        head.next = jump.next;
        head.whole_from = jump.next;
    }

    /// Whether every partition has reached the beginning of its delivery. True without partitions.
    pub(crate) fn is_warm(&self) -> bool {
        self.heads.values().all(|head| head.next >= head.live_from)
    }

    /// Lets delivery begin where a partition stands, if it has stood still for `quiet` below its planned beginning: later records
    /// are new to everybody. Returns the number of such partitions.
    pub(crate) fn stop_waiting(&mut self, quiet: Duration, now: Instant) -> usize {
        let mut stopped = 0;
        for (partition, head) in self.heads.iter_mut().filter(|(_, head)| head.next < head.live_from) {
            let since = match head.stands {
                Some((next, since)) if next == head.next => since,
                _ => now,
            };
            head.stands = Some((head.next, since));
            if now < since + quiet {
                continue;
            }
            head.live_from = head.next;
            stopped += 1;
            self.deferred.note(*partition, Change::Lowered(head.next));
        }
        stopped
    }

    /// Every partition has started and its history is filled: from now on resumes are answered; [`Owner::answer_waiting`] answers
    /// deferred ones.
    pub(crate) fn set_ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.deferred.reconsider_all();
        }
    }

    /// Takes the end of a log from the brokers (`None`: they could not tell, and are asked again later).
    /// [`Owner::answer_waiting`] answers the questions that waited for it.
    pub(crate) fn end_found(&mut self, partition: Partition, end: Option<i64>, now: Instant) {
        let Some(head) = self.heads.get_mut(&partition) else { return };
        head.answered += 1;
        if let Some(end) = end {
            head.end = end;
            head.told = head.answered;
            self.deferred.reconsider_all();
        } else {
            self.unanswered.push_back((now + limits::END_RETRY_INTERVAL, partition));
        }
    }

    /// The number of deferred questions, and their memory in bytes.
    pub(crate) fn deferred(&self) -> (usize, usize) {
        (self.deferred.len(), self.deferred.bytes())
    }

    /// Questions that were answered at once with what was known, because too many waited.
    pub(crate) fn questions_hurried(&self) -> u64 {
        self.questions_hurried
    }

    /// Questions whose session ended before their answer.
    pub(crate) fn questions_withdrawn(&self) -> u64 {
        self.questions_withdrawn
    }

    /// Operations of answers since the start: starts, positions, partitions and questions looked at.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// The value of [`Owner::operations`] at which a turn that begins now has answered enough.
    pub(crate) fn turn_ends_at(&self) -> u64 {
        self.operations + self.operations_per_turn
    }

    /// Takes the partitions whose end the brokers must be asked for.
    pub(crate) fn take_ends_wanted(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.ends_wanted)
    }

    /// The next frames for a session.
    pub(crate) fn pull(&mut self, pull: &Pull) -> Chunk {
        let Pull { partition, from, decided_by, .. } = *pull;
        let Some(head) = self.heads.get(&partition) else {
            return Chunk::empty(from, from, PullContinuation::Wait);
        };
        // A wanted offset may be above the others: until the log reaches it, not everything live is wanted.
        let last = pull.wants.last().unwrap_or(from).max(from);
        let (is_beyond, reach) = (!head.can_reach(last), head.live_next().max(head.end));
        let is_ahead = last > head.live_next();
        let mut chunk = match self.end_of_quiet(pull) {
            Some(next) => Chunk::empty(from, next, PullContinuation::Live),
            None => self.history.pull(partition, &pull.wants, from),
        };
        if chunk.then == PullContinuation::Live && (head.next < head.live_from || is_ahead) {
            chunk.then = PullContinuation::Wait;
        }
        if is_beyond {
            // An answer to an earlier question decides nothing, because the log may have grown since.
            let number = decided_by.unwrap_or(u64::MAX).min(head.asked + 1);
            if head.told >= number {
                return Chunk::empty(from, reach, PullContinuation::Reset);
            }
            chunk.decided_by = Some(number);
            self.want_end(partition);
        }
        chunk
    }

    /// One question at a time: a request during a question has it asked again afterwards.
    fn want_end(&mut self, partition: Partition) {
        let is_resting = self.unanswered.iter().any(|(_, it)| *it == partition);
        if let Some(head) = self.heads.get_mut(&partition)
            && head.asked == head.answered
            && !is_resting
        {
            head.asked += 1;
            self.ends_wanted.push(partition);
        }
    }
}

#[cfg(test)]
#[path = "tests/owner.rs"]
mod tests;
