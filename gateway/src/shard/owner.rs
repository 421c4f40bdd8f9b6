//! A shard as the owner of partitions: how far each has come, what is kept of them, and the answers to those who ask.
//!
//! What is kept is the newest frames (`history`) and each channel's last one (`last_values`), for all sessions of all shards.
//! Pure: records and questions go in, answers come out; who delivers them is `core`'s matter.
//!
//! A client may come from a gateway that is ahead of this one, so a position beyond our head is not wrong yet: the brokers are
//! asked where the log ends (`take_ends_wanted`), and the answer waits for theirs. It waits, too, until the history is filled; but
//! never longer than [`limits::BEGIN_PATIENCE`]: then a subscription keeps the place that it named, and nothing of it is refused
//! that nobody could look up.
//!
//! A question is answered for the partitions that have begun by then, also while it waits. Of those that begin later the homes
//! are told by [`Owner::known`].

mod answers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::GapReason;

use super::begin::Begun;
use super::layout::{Known, Progress};
use crate::ingest::consumer::{Began, Moved};
use crate::ingest::frame::Frame;
use crate::ingest::history::History;
use crate::ingest::last_values::LastValues;
use crate::ingest::partition::{Owned, Partition};
use crate::ingest::pull::{Chunk, Pull, Then, Ticket};
use crate::ingest::skipped::Announcements;
use crate::ingest::strays::Strays;
use crate::limits;

use self::answers::Deferred;
pub(super) use self::answers::snapshot_too_large;

/// See the module.
pub struct Owner {
    shard: usize,
    shards: usize,
    /// By topic.
    kinds: Vec<Arc<str>>,
    heads: BTreeMap<Partition, Head>,
    /// The partitions that there are, and whether somebody can say where each begins. `None`: the brokers have not told yet.
    expected: Option<BTreeMap<Partition, bool>>,
    history: History,
    last_values: LastValues,
    /// What is to be told of records without a usable key.
    pub skipped: Announcements,
    strays: Strays,
    /// What a snapshot may have: half an outbox.
    snapshot_frames_max: usize,
    snapshot_bytes_max: usize,
    is_ready: bool,
    deferred: Vec<Deferred>,
    /// Pulls beyond the end of what is known of a log, and the number of the brokers' answer that decides.
    doubts: VecDeque<(Ticket, u64)>,
    ends_wanted: Vec<Partition>,
    /// Of these the brokers could not tell the end; when they may be asked again.
    unanswered: VecDeque<(Instant, Partition)>,
}

/// How far a partition has come.
#[derive(Debug, Default)]
struct Head {
    next: i64,
    /// What is before it is only kept.
    live_from: i64,
    /// The log's end, as the brokers last told.
    end: i64,
    /// Since when it stands at this offset, while what is before `live_from` is read.
    stands: Option<(i64, Instant)>,
    /// How often the brokers were asked for the end, and how often they have answered.
    asked: u64,
    answered: u64,
    /// The number of the last answer that told one.
    told: u64,
}

impl Head {
    /// Whether the log is known to come to this offset.
    fn can_reach(&self, offset: i64) -> bool {
        offset <= self.live_next().max(self.end)
    }

    /// The next offset that is delivered.
    fn live_next(&self) -> i64 {
        self.next.max(self.live_from)
    }
}

/// Bounds of what a shard keeps of its partitions.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// Of the history, bytes.
    pub history_bytes_max: usize,
    /// Channels whose last event is kept.
    pub last_values_max: usize,
    /// Frames of one snapshot.
    pub snapshot_frames_max: usize,
    /// Bytes of one snapshot.
    pub snapshot_bytes_max: usize,
}

impl Owner {
    /// Owns nothing yet.
    pub fn new(shard: usize, shards: usize, kinds: Vec<Arc<str>>, keeping: &Keeping) -> Self {
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
            strays: Strays::default(),
            snapshot_frames_max: keeping.snapshot_frames_max,
            snapshot_bytes_max: keeping.snapshot_bytes_max,
            is_ready: false,
            deferred: Vec::new(),
            doubts: VecDeque::new(),
            ends_wanted: Vec::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// With this knowledge of where tokens belong; without any, single positions are taken as they are.
    pub fn with_strays(self, strays: Strays) -> Self {
        Self { strays, ..self }
    }

    /// The kinds, by topic.
    pub fn kinds(&self) -> &[Arc<str>] {
        &self.kinds
    }

    /// What is kept, from which sessions resume.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What is kept for snapshots.
    pub fn last_values(&self) -> &LastValues {
        &self.last_values
    }

    /// Tokens that were seen where they do not belong.
    pub fn strays(&self) -> &Strays {
        &self.strays
    }

    /// A topic has so many partitions from now on.
    pub fn set_partitions(&mut self, topic: usize, partitions: i32) {
        self.strays.set_partitions(topic, partitions, &self.last_values);
    }

    /// The brokers say which partitions this shard has, and of which somebody can say where they begin.
    pub fn expect(&mut self, expected: Vec<(Partition, bool)>) {
        self.expected = Some(expected.into_iter().collect());
    }

    /// What is known of this shard's partitions; `None` before the brokers have said which there are.
    pub fn known(&self) -> Option<Known> {
        let expected = self.expected.as_ref()?;
        let not_begun = expected
            .iter()
            .filter(|(it, _)| !self.heads.contains_key(it))
            .map(|(&it, &can_begin)| (it, if can_begin { Progress::Awaited } else { Progress::Stuck }));
        let begun = self.heads.keys().map(|&it| (it, Progress::Begun));
        Some(begun.chain(not_begun).collect())
    }

    /// A partition is this shard's. Where its delivery begins: of the questions that wait, too.
    pub fn began(&mut self, began: &Began) -> Owned {
        let Owned { partition, next } = began.owned;
        self.history.begin(partition, next);
        let head = Head { next, live_from: began.live_from, ..Head::default() };
        let cut = head.live_next();
        self.heads.insert(partition, head);
        let mut deferred = std::mem::take(&mut self.deferred);
        for Deferred { question, ends, .. } in &mut deferred {
            question.cut.insert(partition, cut);
            let highest = question.begin.starts.iter().filter_map(|start| start.first(partition)).max();
            ends.extend(highest.and_then(|highest| self.end_needed(partition, highest)));
        }
        self.deferred = deferred;
        Owned { partition, next: cut }
    }

    /// Keeps a record's frame. Whether it is to be delivered.
    pub fn keep(&mut self, frame: &Arc<Frame>) -> bool {
        let Some(source) = frame.source() else { return false };
        self.history.push(frame);
        self.last_values.put(frame);
        self.strays.saw(frame);
        let Some(head) = self.heads.get_mut(&source.partition) else { return false };
        head.next = source.offset + 1;
        source.offset >= head.live_from
    }

    /// A record became no frame.
    pub fn pass(&mut self, owned: Owned) {
        self.history.advance(owned.partition, owned.next);
        if let Some(head) = self.heads.get_mut(&owned.partition) {
            head.next = owned.next;
        }
    }

    /// A record's key names no token: it became no frame, and whoever hears every token is told so.
    pub fn skip(&mut self, owned: Owned, now: Instant) {
        let Owned { partition, next } = owned;
        self.history.skip(partition, next - 1);
        if self.heads.get(&partition).is_some_and(|head| next > head.live_from) {
            self.skipped.note(partition, next - 1, now);
        }
        self.pass(owned);
    }

    /// A partition goes on elsewhere.
    pub fn moved(&mut self, moved: &Moved) {
        self.history.begin(moved.partition, moved.next);
        let Some(head) = self.heads.get_mut(&moved.partition) else { return };
        if moved.reason == GapReason::Reset {
            // The topic was made anew: what was known of the old one is of no use.
            self.last_values.forget(moved.partition);
            self.skipped.forget(moved.partition);
            self.strays.forget(moved.partition);
            head.live_from = moved.next;
            head.end = moved.next;
            let cuts = self.deferred.iter_mut().filter_map(|it| it.question.cut.get_mut(&moved.partition));
            cuts.for_each(|cut| *cut = moved.next);
        }
        head.next = moved.next;
    }

    /// Whether every partition has come to where its delivery begins. True of none, too.
    pub fn is_warm(&self) -> bool {
        self.heads.values().all(|head| head.next >= head.live_from)
    }

    /// Delivery of a partition that stood still for `quiet`, before where it was to begin, begins where the partition stands:
    /// what comes of it then is nobody's past. How many such partitions there were.
    pub fn stop_waiting(&mut self, quiet: Duration, now: Instant) -> usize {
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
            let cuts = self.deferred.iter_mut().filter_map(|it| it.question.cut.get_mut(partition));
            cuts.for_each(|cut| *cut = head.next.min(*cut));
        }
        stopped
    }

    /// Every partition has begun, and has come as far as it is waited for: from now on resumes are answered. The answers that
    /// waited for it.
    pub fn set_ready(&mut self) -> Vec<(usize, Begun)> {
        self.is_ready = true;
        self.answer_deferred()
    }

    /// The brokers told a log's end (or could not: they are asked again a little later). The answers that waited for it.
    pub fn end_found(&mut self, partition: Partition, end: Option<i64>, now: Instant) -> Vec<(usize, Begun)> {
        let Some(head) = self.heads.get_mut(&partition) else { return Vec::new() };
        head.answered += 1;
        let answered = if let Some(end) = end {
            head.end = end;
            head.told = head.answered;
            head.answered
        } else {
            self.unanswered.push_back((now + limits::END_RETRY_INTERVAL, partition));
            0
        };
        for deferred in &mut self.deferred {
            deferred.ends.retain(|&(of, number)| of != partition || number > answered);
        }
        if self.deferred.iter().any(|deferred| deferred.ends.iter().any(|(of, _)| *of == partition)) {
            self.want_end(partition);
        }
        if self.is_ready { self.answer_deferred() } else { Vec::new() }
    }

    /// Partitions whose end the brokers are to be asked for.
    pub fn take_ends_wanted(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.ends_wanted)
    }

    /// The next frames of a session.
    pub fn pull(&mut self, pull: &Pull) -> Chunk {
        let Pull { partition, from, ticket, .. } = *pull;
        let Some(head) = self.heads.get(&partition) else {
            return Chunk {
                from,
                lost: None,
                frames: Vec::new(),
                skipped: None,
                next: from,
                then: Then::Wait,
            };
        };
        // Some place may be ahead of the others: until the log is there, what is live is not all wanted.
        let last = pull.wants.last().unwrap_or(from).max(from);
        let (is_beyond, reach) = (!head.can_reach(last), head.live_next().max(head.end));
        let is_ahead = last > head.live_next();
        let mut chunk = self.history.pull(partition, &pull.wants, from);
        if chunk.then == Then::Live && (head.next < head.live_from || is_ahead) {
            chunk.then = Then::Wait;
        }
        if is_beyond && self.is_of_another_log(ticket, partition) {
            return Chunk {
                from,
                lost: None,
                frames: Vec::new(),
                skipped: None,
                next: reach,
                then: Then::Reset,
            };
        }
        chunk
    }

    /// Whether the brokers have said, since this cursor was first asked for here, that the log ends below it.
    fn is_of_another_log(&mut self, ticket: Ticket, partition: Partition) -> bool {
        let Some(head) = self.heads.get(&partition) else { return false };
        if let Some(index) = self.doubts.iter().position(|(doubted, _)| *doubted == ticket) {
            let number = self.doubts[index].1;
            if head.told >= number {
                self.doubts.remove(index);
                return true;
            }
        } else {
            if self.doubts.len() == limits::DOUBTS {
                self.doubts.pop_front();
            }
            self.doubts.push_back((ticket, head.asked + 1));
        }
        self.want_end(partition);
        false
    }

    /// One question at a time: whatever is asked while it is on its way has it asked again.
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
#[path = "owner_tests.rs"]
mod tests;
