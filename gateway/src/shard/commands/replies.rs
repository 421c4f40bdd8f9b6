//! The answers of a session: acknowledgements once they are complete, and the first positions of partitions that they lacked.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use protocol::Positions;
use protocol::client::Since;
use protocol::envelope::write_json;
use serde::Serialize;
use wire::SocketId;

use crate::counters::Counters;
use crate::counters::operations;
use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::selection::Selection;
use crate::event::topic_set::TopicSet;
use crate::shard::mesh::layout::OwnersLayout;
use crate::shard::mesh::start::{StartReply, SubscriptionStart};
use crate::shard::outbox::frames::Frames;
use crate::shard::outbox::{Outbox, OutboxLimits};
use crate::shard::owner::snapshot_too_large;
use crate::shard::resume::Resume;
use crate::shard::sessions::pending_replies::{CompleteReply, PendingReplies, Subscription};
use protocol::framing;

/// What answering reads and changes of a session and its shard.
pub(crate) struct Replies<'a> {
    /// The session's socket.
    pub socket: SocketId,
    /// Its outbox.
    pub outbox: &'a mut Outbox,
    /// The limits of the outbox.
    pub outbox_limits: &'a OutboxLimits,
    /// The frames in outboxes.
    pub frames: &'a mut Frames,
    /// The session's pending answers.
    pub pending_replies: &'a mut PendingReplies,
    /// What the session still misses.
    pub resume: &'a mut Option<Box<Resume>>,
    /// The number of cursors of its earlier resumes.
    pub cursors_made: u32,
    /// Topics of which the session was told that partitions have not started.
    pub waiting: &'a mut TopicSet,
    /// Which partitions have started.
    pub layout: &'a OwnersLayout,
    /// The kinds, by topic.
    pub kinds: &'a Arc<[Arc<str>]>,
    /// The shard's counters.
    pub counters: &'a mut Counters,
    /// The time.
    pub now: Instant,
}

impl Replies<'_> {
    /// Takes an owner's start reply, for the acknowledgement and for the cursors.
    pub(crate) fn take_start_reply(&mut self, owner: usize, begun: StartReply) {
        if let Some(resume) = self.resume {
            resume.take_start_reply(begun.pull_id.cursor, owner, &begun.behind);
        }
        self.pending_replies.take_start_reply(owner, begun);
    }

    /// A partition of an owner has started: tells the session if it waits for it.
    pub(crate) fn partition_started(&mut self, owner: usize, began: PartitionOffset, replies: &mut Vec<u8>) {
        self.pending_replies.partition_started(owner, began, self.kinds);
        if let Some(resume) = self.resume {
            resume.partition_started(owner, began);
        }
        let PartitionOffset { partition, next } = began;
        if !self.waiting.contains(partition.topic) {
            return;
        }
        let kind = &*self.kinds[partition.topic];
        let positions = BTreeMap::from([(kind.into(), vec![partition.position(next)])]);
        write_text(replies, &Positions { positions });
    }

    /// The partitions at some owner have changed.
    pub(crate) fn layout_changed(&mut self) {
        let Self { resume, waiting, layout, .. } = self;
        if let Some(resume) = resume {
            resume.layout_changed();
        }
        if layout.has_begun(**waiting) {
            **waiting = TopicSet::default();
        }
    }

    /// Appends the answers that are complete.
    pub(crate) fn answer(&mut self, replies: &mut Vec<u8>) {
        while let Some(ready) = self.pending_replies.pop(self.layout, self.now) {
            match ready {
                CompleteReply::Text(text) => replies.extend_from_slice(&text),
                CompleteReply::Subscription(subscription) => self.acknowledge(*subscription, replies),
            }
        }
    }

    fn acknowledge(&mut self, mut subscription: Subscription, replies: &mut Vec<u8>) {
        self.queue_snapshot(&mut subscription);
        if let Some(resume) = self.resume {
            let Subscription { number, cut, refused, .. } = &subscription;
            resume.acknowledged(*number, cut, refused);
        }
        self.counters.channels_rejected += subscription.ack.rejected.len() as u64;
        self.counters.resumes_refused += subscription.ack.not_resumed.len() as u64;
        let waiting = self.layout.waiting(subscription.topics);
        *self.waiting = self.waiting.union(waiting.keys().copied().collect());
        framing::text_from(replies, |payload| subscription.write(self.kinds, &waiting, payload));
    }

    /// Queues the last events before other events, if there is room for all of them.
    fn queue_snapshot(&mut self, subscription: &mut Subscription) {
        let snapshot = self.wanted_of_snapshot(subscription);
        if snapshot.is_empty() {
            return;
        }
        let bytes = snapshot.iter().map(|(_, frame)| frame.bytes.len()).sum();
        let is_too_large =
            snapshot.len() > self.outbox_limits.frames / 2 || bytes > self.outbox_limits.bytes / 2;
        if is_too_large || !self.outbox.has_room(snapshot.len(), bytes, self.outbox_limits) {
            let starts: Vec<_> = snapshot.iter().map(|(start, _)| *start).collect();
            starts.into_iter().for_each(|start| subscription.refuse(start, snapshot_too_large()));
            return;
        }
        for (_, frame) in snapshot {
            let has_room = self.outbox.push_replayed(frame, self.frames, self.outbox_limits);
            assert!(has_room, "there is room for all of them");
            self.counters.frames_queued += 1;
            self.counters.frames_replayed += 1;
        }
    }

    /// Each of the last events once, without those that were unsubscribed meanwhile or are resumed, because the resume delivers
    /// them in order.
    fn wanted_of_snapshot(&self, subscription: &mut Subscription) -> Vec<(usize, Arc<Frame>)> {
        let mut snapshot = std::mem::take(&mut subscription.snapshot);
        let Subscription { number, starts, refused, .. } = &*subscription;
        let Some(resume) = self.resume.as_ref() else { return Vec::new() };
        if snapshot.is_empty() {
            return snapshot;
        }
        let mut is_wanted: Vec<_> = (0..starts.len()).map(|start| resume.is_held(*number, start)).collect();
        refused.iter().for_each(|&start| is_wanted[start] = false);
        let wanted = starts.iter().zip(&is_wanted).filter(|(_, is_wanted)| **is_wanted);
        let resumed = Resumed::of(wanted.map(|(start, _)| start));
        operations::count(snapshot.len());
        let mut seen = HashSet::new();
        snapshot.retain(|(start, frame)| {
            let place = frame.source().map(|source| (source.partition, source.offset));
            is_wanted[*start] && !resumed.contain(frame) && seen.insert(place)
        });
        snapshot
    }
}

/// Events that cursors deliver, from positions that their subscriptions named.
#[derive(Default)]
struct Resumed<'a> {
    /// Of all partitions of a topic.
    topics: BTreeMap<usize, Selection<'a>>,
    partitions: BTreeMap<Partition, Selection<'a>>,
}

impl<'a> Resumed<'a> {
    fn of(starts: impl Iterator<Item = &'a SubscriptionStart>) -> Self {
        let mut resumed = Self::default();
        for start in starts {
            for &(topic, ref since) in start.since() {
                let selection = match since {
                    Since::From(_) => resumed.topics.entry(topic).or_default(),
                    Since::After(last) => {
                        let partition = Partition { topic, number: last.partition };
                        resumed.partitions.entry(partition).or_default()
                    }
                };
                selection.add(start.pattern());
            }
        }
        resumed
    }

    fn contain(&self, frame: &Frame) -> bool {
        frame.source().is_some_and(|source| {
            let Partition { topic, .. } = source.partition;
            let selections =
                [self.topics.get(&topic), self.partitions.get(&source.partition)].into_iter().flatten();
            selections.into_iter().any(|selection| selection.covers(source.channel()))
        })
    }
}

/// Appends a message in its text frame.
pub(crate) fn write_text(out: &mut Vec<u8>, message: &impl Serialize) {
    framing::text_from(out, |payload| write_json(payload, message));
}
