//! Performs a client's messages on the shard's channels.
//!
//! A `subscribe` takes effect here at once. Its acknowledgement waits until every owner of partitions has said where it begins
//! (`ask_owners`), and later requests are answered after it (`pending_replies`, `replies`). On a gateway with one shard it waits
//! only for the brokers, if at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use protocol::{ErrorMessage, GapReason, Pattern, PatternName, Pong, code};
use serde::Serialize;

use super::action;
use super::action::{Action, RequestedChannel, Subscribe, Unsubscribe};
use super::replies::{Replies, write_text};
use crate::admission::token_bucket::TokenBucket;
use crate::counters::operations;
use crate::event::channel_index::Channels;
use crate::event::frame::Subject;
use crate::event::pull::PullId;
use crate::event::topic_set::TopicSet;
use crate::limits;
use crate::limits::Rate;
use crate::shard::mesh::start::{StartFrom, StartRequest, SubscriptionStart};
use crate::shard::mesh::{Mesh, Request};
use crate::shard::owner::Owner;
use crate::shard::resume::Resume;
use crate::shard::sessions::pending_replies::Subscription;
use crate::websocket::{Flow, Message};

/// What a session's message may read and change.
pub(crate) struct CommandContext<'a> {
    /// The session's answers and its outbox.
    pub replies: Replies<'a>,
    /// The subscribers of channels.
    pub channels: &'a mut Channels,
    /// Maximum of channels and wildcards of the session.
    pub channels_max: usize,
    /// The session's rate of messages; `None`: no limit.
    pub allowance: Option<Allowance<'a>>,
    /// This shard's partitions.
    pub owner: &'a mut Owner,
    /// The queues to the other shards.
    pub mesh: &'a mut Mesh,
    /// Whether subscriptions may begin in the past: the shard's resumes are below their limit.
    pub may_resume: bool,
    /// Whether more requests are pending than allowed.
    pub is_flooded: bool,
    /// Operations that its messages have cost in this turn, see `limits::pacing`.
    pub cost: u64,
    /// The cost at which reading stops for now.
    pub cost_max: u64,
}

/// What a session may still send.
pub(crate) struct Allowance<'a> {
    /// The session's messages.
    pub bucket: &'a mut TokenBucket,
    /// The session's control frames.
    pub control: &'a mut TokenBucket,
    /// The rate of each session.
    pub rate: &'a Rate,
}

impl CommandContext<'_> {
    /// Performs a message and appends the answers that are complete to `replies`.
    pub(crate) fn on_message(&mut self, message: Message<'_>, replies: &mut Vec<u8>) -> Flow {
        match message {
            Message::Fragment => {
                self.cost += limits::OPERATIONS_PER_FRAGMENT;
                return self.flow();
            }
            // tungstenite has answered it.
            Message::Ping(_) | Message::Pong(_) => {
                self.cost += limits::OPERATIONS_PER_CONTROL_FRAME;
                return self.flow_of_control_frames();
            }
            Message::Text(_) | Message::Binary(_) => self.cost += limits::OPERATIONS_PER_MESSAGE,
        }
        let before = operations::done();
        self.replies.counters.messages_received += 1;
        match self.read(message) {
            Some(Action::Subscribe(subscribe)) => self.subscribe(subscribe),
            Some(Action::Unsubscribe(unsubscribe)) => self.unsubscribe(unsubscribe, replies),
            // Answered at once: it shows that the gateway works, whatever answers are pending.
            Some(Action::Heartbeat) => write_text(replies, &Pong { ts: wall_clock_ms() }),
            Some(Action::Error { code, message }) => {
                self.replies.counters.client_errors += 1;
                self.reply(&ErrorMessage { code: code.into(), message: message.into() }, replies);
            }
            None => self.reject_too_frequent(replies),
        }
        self.replies.answer(replies);
        self.cost += operations::done() - before;
        if self.is_flooded { Flow::Stop } else { self.flow() }
    }

    fn flow(&self) -> Flow {
        if self.cost < self.cost_max { Flow::Continue } else { Flow::Pause }
    }

    /// A control frame above the rate is answered, and the next one waits until it is paid for: no error could be sent about it,
    /// and a client may not even know of its pongs.
    fn flow_of_control_frames(&mut self) -> Flow {
        if let Some(Allowance { control, rate, .. }) = &mut self.allowance {
            let debt = control.spend(rate, 1.0 / limits::CONTROL_FRAMES_PER_MESSAGE, self.replies.now);
            if !debt.is_zero() {
                return Flow::Pause;
            }
        }
        self.flow()
    }

    /// The action of a message; `None` if the message exceeds the rate.
    fn read<'m>(&mut self, message: Message<'m>) -> Option<Action<'m>> {
        if let Some(Allowance { bucket, rate, .. }) = &mut self.allowance {
            bucket.take(rate, self.replies.now).ok()?;
        }
        match message {
            Message::Text(text) => Some(Action::of_text(text, self.channels_max)),
            _ => Some(Action::of_binary()),
        }
    }

    /// Answers a message that exceeds the rate, unless pending answers already use half of what may wait at a full socket: no
    /// client is closed as a flood for messages without effect, and a thousand such messages at once cause few answers.
    fn reject_too_frequent(&mut self, replies: &mut Vec<u8>) {
        self.replies.counters.messages_rate_limited += 1;
        let Some(Allowance { rate, .. }) = &self.allowance else { return };
        let waiting =
            replies.len() + self.replies.outbox.control_bytes() + self.replies.pending_replies.bytes();
        if waiting >= limits::CONTROL_BYTES / 2 {
            return;
        }
        let Rate { burst, per_s } = rate;
        let message = format!(
            "more than {burst} messages at once and {per_s} a second: this one had no effect; name many channels in one \
             message, or send it again later"
        );
        self.replies.counters.client_errors += 1;
        self.reply(&ErrorMessage { code: code::RATE_LIMITED.into(), message: message.into() }, replies);
    }

    fn subscribe(&mut self, mut subscribe: Subscribe<'_>) {
        let (slot, kinds) = (self.replies.socket.slot(), self.replies.kinds);
        let held = self.channels.count(slot);
        subscribe.keep_within(self.channels_max, held, |name| self.channels.is_subscribed(slot, name));
        if subscribe.has_past() {
            let held = self.channels.selection(slot);
            subscribe.begin_live_ones_live(|pattern| held.overlaps(pattern));
        }
        if !self.may_resume {
            subscribe.begin_all_live();
        }
        let everyone = self.mesh.everyone();
        let number = self.replies.pending_replies.next_number();
        let has_past = subscribe.has_past();
        let mut starts = Vec::new();
        let mut topics = TopicSet::default();
        for RequestedChannel { name, start } in &mut subscribe.channels {
            topics = topics.union(TopicSet::selected(name.pattern(), kinds));
            // Events of a new subscription may be withheld if the session resumes.
            let is_new = self.channels.subscribe(slot, name.as_str());
            if is_new && (has_past || self.replies.resume.is_some()) {
                let start = std::mem::replace(start, action::RequestedStart::Live);
                starts.push(start_of(name.as_str(), start, kinds));
            }
        }
        let starts: Arc<[SubscriptionStart]> = starts.into();
        self.replies.counters.resumes += starts.iter().filter(|start| start.has_past()).count() as u64;
        if !starts.is_empty() {
            let before = self.replies.cursors_made;
            let resume =
                self.replies.resume.get_or_insert_with(|| Box::new(Resume::new(Arc::clone(kinds), before)));
            resume.add(number, Arc::clone(&starts), topics, everyone);
            self.is_flooded |= resume.starts() > limits::RESUME_STARTS.max(2 * self.channels_max)
                || resume.messages() > limits::RESUME_MESSAGES.max(2 * self.channels_max);
        }
        let wants_positions = subscribe.positions;
        let subscription = Subscription {
            number,
            ack: subscribe.acknowledge(self.channels.count(slot)),
            starts: Arc::clone(&starts),
            topics,
            unanswered: everyone,
            due: self.replies.now + limits::ACK_PATIENCE,
            wants_positions,
            cut: BTreeMap::new(),
            refused: Vec::new(),
            snapshot: Vec::new(),
        };
        self.is_flooded |= self.replies.pending_replies.push_subscription(subscription).is_err();
        let wants_cut = wants_positions || !starts.is_empty();
        self.ask_owners(StartRequest {
            pull_id: PullId { socket: self.replies.socket, cursor: number },
            wants_cut,
            starts,
        });
    }

    /// Sends a start request to every owner, this shard first.
    fn ask_owners(&mut self, begin: StartRequest) {
        self.mesh.announce(self.channels.take_changes());
        for peer in self.mesh.peers().iter() {
            self.mesh.ask(peer, Request::Start(begin.clone()));
        }
        let shard = self.mesh.shard();
        if let Some(begun) = self.owner.answer_start(shard, begin, self.replies.now) {
            self.replies.take_start_reply(shard, begun);
        }
    }

    /// Queued events of these channels are removed before the answer, unless another subscription selects them.
    fn unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>, replies: &mut Vec<u8>) {
        let Self { replies: Replies { socket, resume, outbox, frames, counters, .. }, channels, .. } = self;
        let slot = socket.slot();
        counters.channels_rejected += unsubscribe.rejected.len() as u64;
        let names = unsubscribe.channels.iter().map(PatternName::as_str);
        let left: HashSet<&str> = names.filter(|name| channels.unsubscribe(slot, name)).collect();
        if !left.is_empty() {
            let kept = channels.selection(slot);
            if let Some(resume) = resume {
                resume.give_back(&left);
                resume.forget_gaps(|name| kept.overlaps(Pattern::of_name(name)));
            }
            let discarded = outbox.discard_events_where(frames, |frame| match &frame.subject {
                Subject::Record(source) => !kept.covers(source.channel()),
                // A loss in channels that the session does not have does not concern it; and if it subscribed again, the gap
                // would be about events that are replayed after it.
                Subject::Gap(range) if range.reason == GapReason::Skipped => {
                    !(kept.contains(Pattern::All) || kept.contains(Pattern::of_name(&range.name)))
                }
                Subject::Gap(range) => !kept.overlaps(Pattern::of_name(&range.name)),
                Subject::Resumed(name) => !kept.contains(Pattern::of_name(name)),
            });
            counters.frames_discarded += discarded as u64;
        }
        drop(left);
        let count = channels.count(slot);
        self.reply(&unsubscribe.acknowledge(count), replies);
    }

    /// Answers at once, or after pending answers.
    fn reply(&mut self, message: &impl Serialize, replies: &mut Vec<u8>) {
        if self.replies.pending_replies.is_empty() {
            write_text(replies, message);
        } else {
            let mut text = Vec::new();
            write_text(&mut text, message);
            self.is_flooded |= self.replies.pending_replies.push_text(text).is_err();
        }
    }
}

/// Positions of kinds without a topic mean nothing.
fn start_of(name: &str, start: action::RequestedStart<'_>, topics: &[Arc<str>]) -> SubscriptionStart {
    let from = match start {
        action::RequestedStart::Live => StartFrom::Live,
        action::RequestedStart::Snapshot => StartFrom::Snapshot,
        action::RequestedStart::Since(kinds) => {
            let topic_of = |kind: &str| topics.iter().position(|of_topic| **of_topic == *kind);
            let known = kinds.into_iter().filter_map(|(kind, since)| Some((topic_of(&kind)?, since)));
            let mut known: Vec<_> = known.collect();
            known.sort_unstable_by_key(|(topic, _)| *topic);
            StartFrom::Since(known.into())
        }
    };
    SubscriptionStart { name: name.into(), from }
}

fn wall_clock_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}
