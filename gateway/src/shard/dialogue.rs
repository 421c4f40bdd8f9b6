//! What a client asks and what it is answered: its messages against the shard's channels.
//!
//! A `subscribe` takes effect here at once; its acknowledgement waits until every owner of partitions has said where it begins
//! (`begin`), and what is asked meanwhile is answered after it (`acks`). On a gateway of one shard nothing waits, unless for the
//! brokers.

use std::sync::Arc;
use std::time::Instant;

use protocol::envelope::write_json;
use protocol::{ErrorMessage, GapReason, Pattern, Pong, code};
use serde::Serialize;
use wire::SocketId;

use super::acks::{Acks, Ready, Subscription};
use super::begin::{Begin, Begun, Start, StartFrom};
use super::channels::Channels;
use super::frames::Frames;
use super::mesh::{Mesh, Request};
use super::outbox::{Outbox, OutboxLimits};
use super::owner::{Owner, snapshot_too_large};
use super::resume::Resume;
use crate::bucket::Bucket;
use crate::config::Rate;
use crate::ingest::frame::Subject;
use crate::ingest::pull::Ticket;
use crate::limits;
use crate::metrics::Counters;
use crate::session::commands::{self, Action, Subscribe, Unsubscribe};
use crate::session::{Flow, Message, framing};

/// One session's turn to speak.
pub struct Dialogue<'a> {
    /// The session's socket.
    pub socket: SocketId,
    /// Who subscribed to what.
    pub channels: &'a mut Channels,
    /// The session's outbox: what it has unsubscribed from is taken out.
    pub outbox: &'a mut Outbox,
    /// Its bounds.
    pub outbox_limits: &'a OutboxLimits,
    /// The frames in it.
    pub frames: &'a mut Frames,
    /// What the session is still to be answered.
    pub acks: &'a mut Acks,
    /// What it is still to be brought.
    pub resume: &'a mut Option<Box<Resume>>,
    /// What is counted.
    pub counters: &'a mut Counters,
    /// Channels and wildcards that the session may have.
    pub channels_max: usize,
    /// How many messages it may send; `None`: as many as it likes.
    pub allowance: Option<Allowance<'a>>,
    /// This shard's partitions.
    pub owner: &'a mut Owner,
    /// The others'.
    pub mesh: &'a mut Mesh,
    /// Whether more was asked than can wait.
    pub is_flooded: bool,
}

/// What a session may still send.
pub struct Allowance<'a> {
    /// Of this session.
    pub bucket: &'a mut Bucket,
    /// Of each session.
    pub rate: &'a Rate,
    /// When the messages came.
    pub now: Instant,
}

impl Dialogue<'_> {
    /// Does what a message asks and appends what can be answered to `replies`.
    pub fn on_message(&mut self, message: Message<'_>, replies: &mut Vec<u8>) -> Flow {
        // Answered by the protocol itself.
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return Flow::Continue;
        }
        self.counters.messages_received += 1;
        match self.read(message) {
            Some(Action::Subscribe(subscribe)) => self.subscribe(subscribe),
            Some(Action::Unsubscribe(unsubscribe)) => self.unsubscribe(unsubscribe, replies),
            Some(Action::Heartbeat) => self.say(&Pong { ts: wall_clock_ms() }, replies),
            Some(Action::Error { code, message }) => {
                self.counters.client_errors += 1;
                self.say(&ErrorMessage { code: code.into(), message: message.into() }, replies);
            }
            None => self.say_too_often(replies),
        }
        self.answer(replies);
        if self.is_flooded { Flow::Stop } else { Flow::Continue }
    }

    /// What a message asks; `None` if it is one too many, whatever it asks.
    fn read<'m>(&mut self, message: Message<'m>) -> Option<Action<'m>> {
        if let Some(Allowance { bucket, rate, now }) = &mut self.allowance {
            bucket.take(rate, *now).ok()?;
        }
        match message {
            Message::Text(text) => Some(Action::of_text(text, self.channels_max)),
            _ => Some(Action::of_binary()),
        }
    }

    /// Answers a message that was one too many, unless answers wait already that come to half of what may wait at a full socket:
    /// nobody is closed as a flood for what has no effect, and a thousand such messages at once are told in a few answers.
    fn say_too_often(&mut self, replies: &mut Vec<u8>) {
        self.counters.messages_rate_limited += 1;
        let Some(Allowance { rate, .. }) = &self.allowance else { return };
        let waiting = replies.len() + self.outbox.control_bytes() + self.acks.bytes();
        if waiting >= limits::CONTROL_BYTES / 2 {
            return;
        }
        let Rate { burst, per_s } = rate;
        let message = format!(
            "more than {burst} messages at once and {per_s} a second: this one had no effect; name many channels in one \
             message, or send it again later"
        );
        self.counters.client_errors += 1;
        self.say(&ErrorMessage { code: code::RATE_LIMITED.into(), message: message.into() }, replies);
    }

    /// Appends the answers that are complete.
    pub fn answer(&mut self, replies: &mut Vec<u8>) {
        while let Some(ready) = self.acks.pop() {
            match ready {
                Ready::Text(text) => replies.extend_from_slice(&text),
                Ready::Subscription(mut subscription) => {
                    self.bring_snapshot(&mut subscription);
                    if let Some(resume) = self.resume {
                        for refused in &subscription.ack.not_resumed {
                            resume.refused(subscription.number, &refused.channel);
                        }
                        resume.acknowledged(subscription.number);
                    }
                    self.counters.channels_rejected += subscription.ack.rejected.len() as u64;
                    self.counters.resumes_refused += subscription.ack.not_resumed.len() as u64;
                    let kinds = self.owner.kinds();
                    framing::text_from(replies, |payload| subscription.write(kinds, payload));
                }
            }
        }
    }

    fn subscribe(&mut self, mut subscribe: Subscribe<'_>) {
        let slot = self.socket.slot();
        let held = self.channels.count(slot);
        subscribe.keep_within(self.channels_max, held, |pattern| {
            self.channels.is_subscribed(slot, &pattern.to_string())
        });
        subscribe.reject_live(|pattern| self.channels.overlaps(slot, pattern));
        let everyone = self.mesh.everyone();
        let number = self.acks.next_number();
        let mut starts = Vec::new();
        for wanted in &subscribe.channels {
            self.channels.subscribe(slot, wanted.name.as_str());
            if let Some(start) = start_of(wanted) {
                let resume = self.resume.get_or_insert_default();
                let is_since = matches!(start.from, StartFrom::Since(_));
                resume.add(number, Arc::clone(&start.name), everyone, is_since);
                starts.push(start);
            }
        }
        self.counters.resumes += starts.len() as u64;
        let wants_cut = subscribe.positions;
        let starts: Arc<[Start]> = starts.into();
        let subscription = Subscription {
            number,
            ack: subscribe.into_owned().acknowledge(self.channels.count(slot)),
            starts: Arc::clone(&starts),
            unanswered: everyone,
            cut: wants_cut.then(Vec::new),
            snapshot: Vec::new(),
        };
        self.is_flooded |= self.acks.push_subscription(subscription).is_err();
        self.begin(Begin { ticket: Ticket { socket: self.socket, cursor: number }, wants_cut, starts });
    }

    /// Asks every owner, this shard first.
    fn begin(&mut self, begin: Begin) {
        self.mesh.announce(self.channels.take_changes());
        for peer in self.mesh.peers().iter() {
            self.mesh.ask(peer, Request::Begin(begin.clone()));
        }
        let shard = self.mesh.shard();
        if let Some(begun) = self.owner.begin(shard, begin) {
            note_begun(self.acks, self.resume, shard, begun);
        }
    }

    /// What is queued of these channels goes before the answer does, unless another subscription wants it.
    fn unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>, replies: &mut Vec<u8>) {
        let slot = self.socket.slot();
        self.counters.channels_rejected += unsubscribe.rejected.len() as u64;
        let mut has_left = false;
        for name in &unsubscribe.channels {
            has_left |= self.channels.unsubscribe(slot, name.as_str());
        }
        if has_left {
            let Self { channels, .. } = self;
            if let Some(resume) = self.resume {
                for name in &unsubscribe.channels {
                    resume
                        .give_back(name.as_str(), |pattern: Pattern<'_>| channels.overlapping(slot, pattern));
                }
            }
            let discarded = self.outbox.discard_events_where(self.frames, |frame| match &frame.subject {
                Subject::Record(source) => !channels.covers(slot, source.channel()),
                // What is lost of channels that the session does not have is not its matter, and were it to ask for them again,
                // the gap would name what is brought after it.
                Subject::Gap(range) if range.reason == GapReason::Skipped => {
                    !["*", &*range.name].into_iter().any(|name| channels.is_subscribed(slot, name))
                }
                Subject::Gap(range) => {
                    Pattern::parse(&range.name).is_ok_and(|pattern| !channels.overlaps(slot, pattern))
                }
                Subject::Resumed(name) => !channels.is_subscribed(slot, name),
            });
            self.counters.frames_discarded += discarded as u64;
        }
        let count = self.channels.count(slot);
        self.say(&unsubscribe.acknowledge(count), replies);
    }

    /// Answers at once, or after what was asked before.
    fn say(&mut self, message: &impl Serialize, replies: &mut Vec<u8>) {
        if self.acks.is_empty() {
            framing::text_from(replies, |payload| write_json(payload, message));
        } else {
            let mut text = Vec::new();
            framing::text_from(&mut text, |payload| write_json(payload, message));
            self.is_flooded |= self.acks.push_text(text).is_err();
        }
    }

    /// The last events come first among the events, if there is room for them all.
    fn bring_snapshot(&mut self, subscription: &mut Subscription) {
        let mut snapshot = std::mem::take(&mut subscription.snapshot);
        let Subscription { number, starts, .. } = &*subscription;
        // What was given back meanwhile is not brought.
        snapshot.retain(|(start, _)| {
            self.resume.as_ref().is_some_and(|resume| resume.is_held(*number, &starts[*start].name))
        });
        if snapshot.is_empty() {
            return;
        }
        let bytes = snapshot.iter().map(|(_, frame)| frame.bytes.len()).sum();
        let is_too_large =
            snapshot.len() > self.outbox_limits.frames / 2 || bytes > self.outbox_limits.bytes / 2;
        if is_too_large || !self.outbox.has_room(snapshot.len(), bytes, self.outbox_limits) {
            let mut starts: Vec<_> = snapshot.iter().map(|(start, _)| *start).collect();
            starts.sort_unstable();
            starts.dedup();
            starts.into_iter().for_each(|start| subscription.refuse(start, snapshot_too_large()));
            return;
        }
        for (_, frame) in snapshot {
            let reference = self.frames.insert_replayed(frame);
            self.outbox
                .push_event(reference, self.frames, self.outbox_limits)
                .expect("there is room for all of them");
            self.counters.frames_queued += 1;
            self.counters.frames_replayed += 1;
        }
    }
}

/// Takes an owner's answer in, for the acknowledgement and for the cursors.
pub(super) fn note_begun(acks: &mut Acks, resume: &mut Option<Box<Resume>>, owner: usize, begun: Begun) {
    let number = begun.ticket.cursor;
    let starts = acks.starts(number);
    if let (Some(resume), Some(starts)) = (resume, starts) {
        for (start, begun) in starts.iter().zip(&begun.starts) {
            resume.begun(number, &start.name, owner, &begun.cursors);
        }
    }
    acks.begun(owner, begun);
}

fn start_of(wanted: &commands::Wanted<'_>) -> Option<Start> {
    let from = match &wanted.start {
        commands::Start::Live => return None,
        commands::Start::Snapshot => StartFrom::Snapshot,
        commands::Start::Since(kinds) => StartFrom::Since(
            kinds.iter().map(|(kind, since)| (kind.as_ref().into(), since.clone())).collect(),
        ),
    };
    Some(Start { name: wanted.name.as_str().into(), from })
}

fn wall_clock_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}
