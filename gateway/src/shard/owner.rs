//! A shard as the owner of partitions: how far each has come, what is kept of them, and the answers to those who ask.
//!
//! What is kept is the newest frames (`history`) and each channel's last one (`last_values`), for all sessions of all shards.
//! Pure: records and questions go in, answers come out; who delivers them is `core`'s matter.
//!
//! A client may come from a gateway that is ahead of this one, so a position beyond our head is not wrong yet: the brokers are
//! asked where the log ends (`take_ends_wanted`), and the answer waits for theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::client::Since;
use protocol::{GapReason, Pattern, code};

use super::begin::{Begin, Begun, BegunCursor, BegunStart, Refusal, Start, StartFrom};
use super::single;
use crate::ingest::consumer::{Began, Moved};
use crate::ingest::frame::Frame;
use crate::ingest::history::History;
use crate::ingest::last_values::LastValues;
use crate::ingest::partition::{Owned, Partition};
use crate::ingest::pull::{Chunk, Pull, Then};
use crate::ingest::skipped::Announcements;
use crate::ingest::strays::Strays;
use crate::limits;

/// See the module.
pub struct Owner {
    shard: usize,
    shards: usize,
    /// By topic.
    kinds: Vec<Arc<str>>,
    heads: BTreeMap<Partition, Head>,
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
    ends_wanted: Vec<Partition>,
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
}

impl Head {
    /// Whether the log is known to come to this offset.
    fn can_reach(&self, offset: i64) -> bool {
        offset <= self.next.max(self.live_from).max(self.end)
    }
}

/// A question that waits.
#[derive(Debug)]
struct Deferred {
    question: Question,
    /// For these ends: for the answer of that number, which was asked for after the question came.
    ends: Vec<(Partition, u64)>,
}

/// A question, with how far our partitions had come when it came. From there on its home withholds what it is about, whoever
/// else wants it, so that is where the answer has to begin, however late it is.
#[derive(Debug)]
struct Question {
    home: usize,
    begin: Begin,
    cut: BTreeMap<Partition, i64>,
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
            ends_wanted: Vec::new(),
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

    /// A partition is this shard's.
    pub fn began(&mut self, began: &Began) {
        let Owned { partition, next } = began.owned;
        self.history.begin(partition, next);
        self.heads.insert(partition, Head { next, live_from: began.live_from, ..Head::default() });
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

    /// Where subscriptions begin. `None`: the answer comes later, from [`Owner::set_ready`] or [`Owner::end_found`].
    pub fn begin(&mut self, home: usize, begin: Begin) -> Option<Begun> {
        let ends = self.ends_needed(&begin);
        let question = Question { home, begin, cut: self.cut().collect() };
        if ends.is_empty() && (self.is_ready || question.begin.starts.is_empty()) {
            return Some(self.answer(&question));
        }
        self.deferred.push(Deferred { question, ends });
        None
    }

    /// The brokers told a log's end (or could not). The answers that waited for it.
    pub fn end_found(&mut self, partition: Partition, end: Option<i64>) -> Vec<(usize, Begun)> {
        let Some(head) = self.heads.get_mut(&partition) else { return Vec::new() };
        head.answered += 1;
        let answered = if let Some(end) = end {
            head.end = end;
            head.answered
        } else {
            // Asked again, until they can tell.
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

    /// Answers those who wait for nothing any more.
    fn answer_deferred(&mut self) -> Vec<(usize, Begun)> {
        let (ready, waiting) =
            std::mem::take(&mut self.deferred).into_iter().partition(|it| it.ends.is_empty());
        self.deferred = waiting;
        let ready: Vec<Deferred> = ready;
        ready.into_iter().map(|Deferred { question, .. }| (question.home, self.answer(&question))).collect()
    }

    /// Partitions whose end the brokers are to be asked for.
    pub fn take_ends_wanted(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.ends_wanted)
    }

    /// The next frames of a session.
    pub fn pull(&self, pull: &Pull) -> Chunk {
        let Pull { partition, from, .. } = *pull;
        let wait =
            Chunk { from, lost: None, frames: Vec::new(), skipped: None, next: from, then: Then::Wait };
        let Ok(pattern) = Pattern::parse(&pull.pattern) else { return wait };
        let Some(head) = self.heads.get(&partition) else { return wait };
        let mut chunk = self.history.pull(partition, pattern, from);
        if chunk.then == Then::Live && head.next < head.live_from {
            chunk.then = Then::Wait;
        }
        chunk
    }

    /// The next offset of each partition that is delivered.
    fn cut(&self) -> impl Iterator<Item = (Partition, i64)> {
        self.heads.iter().map(|(&partition, head)| (partition, head.next.max(head.live_from)))
    }

    fn answer(&self, question: &Question) -> Begun {
        let Question { begin, cut, .. } = question;
        let starts = begin.starts.iter().map(|start| self.start(start, cut)).collect();
        let owned = cut.iter().map(|(&partition, &next)| Owned { partition, next });
        Begun {
            ticket: begin.ticket,
            cut: if begin.wants_cut { owned.collect() } else { Vec::new() },
            starts,
        }
    }

    fn start(&self, start: &Start, cut: &BTreeMap<Partition, i64>) -> BegunStart {
        let Ok(pattern) = Pattern::parse(&start.name) else { return BegunStart::default() };
        let is_selected = |partition: &Partition| pattern.of_kind(&self.kinds[partition.topic]).is_some();
        let cut = cut.iter().map(|(&partition, &cut)| (partition, cut)).filter(|(it, _)| is_selected(it));
        match &start.from {
            StartFrom::Snapshot => self.snapshot(pattern, cut.collect()),
            StartFrom::Since(kinds) => self.resume(pattern, kinds, &cut.collect()),
        }
    }

    /// The last events before the cut, and cursors from there on: the acknowledgement comes first, so nothing may be ahead of
    /// them.
    fn snapshot(&self, pattern: Pattern<'_>, cut: BTreeMap<Partition, i64>) -> BegunStart {
        let mut begun = BegunStart::default();
        match self.last_values.select(pattern, self.snapshot_frames_max, self.snapshot_bytes_max) {
            Some(mut snapshot) => {
                // What came since the question comes through the cursors.
                snapshot.retain(|frame| {
                    frame
                        .source()
                        .is_some_and(|it| cut.get(&it.partition).is_some_and(|&cut| it.offset < cut))
                });
                begun.snapshot = snapshot;
            }
            None => begun.refusal = Some(snapshot_too_large()),
        }
        let owned = cut.into_iter().map(|(partition, next)| Owned { partition, next });
        begun.cursors = owned.map(|owned| BegunCursor { owned, cut: owned.next }).collect();
        begun
    }

    fn resume(
        &self,
        pattern: Pattern<'_>,
        kinds: &[(Box<str>, Since)],
        cut: &BTreeMap<Partition, i64>,
    ) -> BegunStart {
        let refusal = single::refusal(&self.strays, &self.kinds, pattern, kinds);
        let mut begun = BegunStart { refusal, ..BegunStart::default() };
        // Partitions that the question does not name are live; what came since the question has to be brought all the same.
        let is_late =
            |partition: &Partition, cut: i64| self.heads.get(partition).is_some_and(|it| cut < it.next);
        let mut wanted: BTreeMap<Partition, i64> = cut
            .iter()
            .filter(|&(partition, &cut)| is_late(partition, cut))
            .map(|(&it, &cut)| (it, cut))
            .collect();
        for (kind, since) in kinds {
            for Owned { partition, next } in self.wanted(kind, since) {
                let can_come = self.heads.get(&partition).is_some_and(|head| head.can_reach(next));
                if !can_come {
                    let named = partition.position(next).to_string();
                    begun.refusal.get_or_insert_with(|| unknown_position(kind, &named));
                }
                if let Some(&cut) = cut.get(&partition) {
                    wanted.insert(partition, if can_come { next } else { cut });
                }
            }
        }
        let cursors = wanted.into_iter().map(|(partition, next)| {
            let owned = Owned { partition, next };
            BegunCursor { owned, cut: cut.get(&partition).copied().unwrap_or(next) }
        });
        begun.cursors = cursors.collect();
        begun
    }

    /// The cursors that a `since` asks this shard for, in partitions that there may not be.
    fn wanted(&self, kind: &str, since: &Since) -> Vec<Owned> {
        let Some(topic) = self.kinds.iter().position(|known| **known == *kind) else { return Vec::new() };
        let owned = |number: i32, next: i64| Owned { partition: Partition { topic, number }, next };
        let is_ours = |owned: &Owned| owned.partition.owner(self.shards) == self.shard;
        match since {
            Since::After(position) => {
                let after = owned(position.partition, position.offset.saturating_add(1));
                Some(after).into_iter().filter(is_ours).collect()
            }
            Since::From(positions) => {
                let mut wanted: BTreeMap<i32, Owned> = self
                    .heads
                    .keys()
                    .filter(|partition| partition.topic == topic)
                    .map(|partition| (partition.number, owned(partition.number, 0)))
                    .collect();
                let named = positions.iter().map(|position| owned(position.partition, position.offset));
                wanted.extend(named.filter(is_ours).map(|owned| (owned.partition.number, owned)));
                wanted.into_values().collect()
            }
        }
    }

    /// The ends without which the question cannot be answered; they are asked for.
    fn ends_needed(&mut self, begin: &Begin) -> Vec<(Partition, u64)> {
        let mut needed = Vec::new();
        for start in &*begin.starts {
            let StartFrom::Since(kinds) = &start.from else { continue };
            for wanted in kinds.iter().flat_map(|(kind, since)| self.wanted(kind, since)) {
                let Some(head) = self.heads.get(&wanted.partition) else { continue };
                if !head.can_reach(wanted.next) {
                    needed.push((wanted.partition, head.asked + 1));
                }
            }
        }
        for &(partition, _) in &needed {
            self.want_end(partition);
        }
        needed
    }

    /// One question at a time: those who come while it is on its way have it asked again.
    fn want_end(&mut self, partition: Partition) {
        if let Some(head) = self.heads.get_mut(&partition)
            && head.asked == head.answered
        {
            head.asked += 1;
            self.ends_wanted.push(partition);
        }
    }
}

/// A kind's `since` that names a position which is not there.
fn unknown_position(kind: &str, position: &str) -> Refusal {
    let message = format!(
        "no {kind} event has the position {position} yet, or there is no such partition: delivery begins with the next \
         event; send a pos that this gateway sent"
    );
    Refusal { code: code::UNKNOWN_POSITION, message }
}

/// The last events are more than a session may have waiting.
pub(super) fn snapshot_too_large() -> Refusal {
    let message = "the last events are more than half an outbox (WS_OUTBOX_BYTES, WS_OUTBOX_FRAMES): delivery begins with \
                   the next event; subscribe to fewer channels at a time";
    Refusal { code: code::SNAPSHOT_TOO_LARGE, message: message.to_owned() }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
