//! A client of the model: what it asked for, what it got, and what it must have got.

mod asks;
mod resets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{Channel, GapReason, Pattern, Position, ServerMessage, code};
use serde_json::Value;
use testkit::frames::{CLOSE, TEXT, split_frame};
use wire::SocketId;

use self::resets::since_resets;
use super::log::{KINDS, Log, PartitionLog, TOKENS};
use super::promise::{Promise, cut_of};
use super::recreated::Life;
use crate::event::partition::Partition;

/// A position beyond every log.
const FAR: i64 = 1_000_000;

#[derive(Default)]
pub(crate) struct Client {
    /// Its shard and socket, while it is connected.
    pub(crate) line: Option<(usize, SocketId)>,
    has_upgraded: bool,
    bytes: Vec<u8>,
    /// Unanswered requests.
    asked: VecDeque<Asked>,
    /// What it is subscribed to, or will ask for again once it is connected.
    pub(crate) subscriptions: BTreeMap<String, Promise>,
    /// What it got: the channel, when, and of which incarnation of the topic.
    seen: BTreeMap<Partition, BTreeMap<i64, (String, u64, u32)>>,
    /// Counts messages in both directions.
    clock: u64,
    /// The newest offset of each channel in each partition.
    newest: BTreeMap<(String, Partition), i64>,
    /// Channels of which it had nothing for a while, during which a recreated topic was not announced to it.
    unheard: BTreeSet<(String, Partition)>,
    /// Announced losses, by channel.
    gaps: Vec<Gap>,
    /// What it asked to have again and unsubscribed from before the answer: some may come again, or a gap that names it.
    maybe_again: BTreeMap<(String, Partition), i64>,
    pub(crate) reasons: BTreeSet<&'static str>,
    /// The positions that it has named on this connection.
    named: BTreeSet<(Partition, i64)>,
    /// Recreated partitions, announced or not.
    pub(crate) recreated: BTreeSet<Partition>,
    /// Announced resets, by name: the first incarnation of which something may come.
    over_before: BTreeMap<(String, Partition), u32>,
}

/// Offsets of a channel that will not be delivered.
struct Gap {
    channel: String,
    partition: Partition,
    from: i64,
    to: i64,
    /// When it was announced.
    at: u64,
    /// The highest possible incarnation that it is about.
    incarnation: u32,
    /// Whether none of it may come. A wildcard's gap says nothing about the replay of a narrower subscription, and what Kafka
    /// deleted may have come before, for another subscription.
    is_strict: bool,
}

struct Asked {
    names: Vec<(String, Start)>,
    at: u64,
    /// What came until then may have been queued for a subscription that has ended since, and may come again.
    again_until: u64,
    /// Unsubscribed before the answer came.
    over: BTreeSet<String>,
    /// See [`Promise`].
    is_alone: bool,
    /// Resets announced since, by the names in gaps.
    resets: BTreeSet<(String, Partition)>,
}

enum Start {
    Live,
    Snapshot,
    Since(BTreeMap<Partition, i64>),
    Unsubscribe,
}

impl Client {
    pub(crate) fn connect(&mut self, shard: usize, socket: SocketId) {
        *self = Self { line: Some((shard, socket)), ..std::mem::take(self) };
        self.has_upgraded = false;
        self.bytes.clear();
        self.asked.clear();
        // The present subscriptions decide what is a repetition.
        self.newest.clear();
        self.unheard.clear();
        self.named.clear();
        self.over_before.clear();
    }

    /// Whether it waits for an answer, or for the end of its handshake.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let is_asked = |asked: &Asked| {
            asked.names.iter().any(|(asked, start)| asked == name && !matches!(start, Start::Unsubscribe))
                && !asked.over.contains(name)
        };
        self.subscriptions.contains_key(name) || self.asked.iter().any(is_asked)
    }

    /// Bytes arrived. Whether the gateway has closed.
    pub(crate) fn read(&mut self, bytes: &[u8], log: &Log) -> bool {
        self.bytes.extend_from_slice(bytes);
        if !self.has_upgraded {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return false;
            };
            assert!(self.bytes.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&self.bytes));
            self.bytes.drain(..end + 4);
            self.has_upgraded = true;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &bytes[..];
        while let Some((first, payload, after)) = split_frame(rest) {
            rest = after;
            match first {
                TEXT => self.hear(std::str::from_utf8(payload).expect("text"), log),
                CLOSE => return true,
                other => panic!("a frame that begins with {other:#x}"),
            }
        }
        self.bytes = rest.to_vec();
        false
    }

    fn hear(&mut self, text: &str, log: &Log) {
        match ServerMessage::parse(text).unwrap_or_else(|error| panic!("{error}: {text}")) {
            ServerMessage::Event(event) => {
                assert!(self.may_hear_of(&event.channel), "it has not asked for that: {text}");
                let topic = KINDS.iter().position(|kind| event.channel.ends_with(kind)).expect("a kind");
                let partition = Partition { topic, number: event.pos.partition };
                let incarnation = event.data.expect("a value").get().parse().expect("an incarnation");
                self.deliver(&event.channel, partition, event.pos.offset, incarnation);
            }
            ServerMessage::Gap(gap) => {
                let name = gap.channel.into_owned();
                assert!(self.may_hear_of(&name), "it has not asked for that: {text}");
                let kind = match pattern(&name) {
                    Pattern::Exact { kind, .. } | Pattern::Kind(kind) => kind,
                    other => panic!("a gap of {other}"),
                };
                // The gap is about records without a key, so no event is missing.
                if gap.reason == GapReason::Skipped {
                    assert!(matches!(pattern(&name), Pattern::Kind(_)), "every record has a frame: {text}");
                    return;
                }
                let topic = KINDS.iter().position(|it| *it == kind).expect("a kind");
                let partition = Partition { topic, number: gap.from.partition };
                if gap.reason == GapReason::Reset {
                    return self.begin_again(&name, partition, (gap.from.offset, gap.to.offset), log);
                }
                let incarnation = log.partitions[&partition].life.incarnation;
                // Events of a log that no longer exists cannot be replayed.
                if gap.reason != GapReason::Replay || incarnation == 0 {
                    self.reasons.insert(gap.reason.as_str());
                }
                let is_exact = matches!(pattern(&name), Pattern::Exact { .. });
                let is_strict = is_exact && gap.reason == GapReason::SlowConsumer && incarnation == 0;
                for (offset, (channel, ..)) in
                    self.seen.entry(partition).or_default().range(gap.from.offset..=gap.to.offset)
                {
                    let again = self.maybe_again.get(&(channel.clone(), partition));
                    let has_come =
                        is_strict && selects(&name, channel) && again.is_none_or(|&from| offset < &from);
                    assert!(!has_come, "a gap of {name} names {offset}, which came: {text}");
                }
                let channels = TOKENS.map(|token| format!("{token}.{kind}"));
                let named = channels.into_iter().filter(|channel| selects(&name, channel));
                let (from, to) = (gap.from.offset, gap.to.offset);
                self.clock += 1;
                let at = self.clock;
                let gap = |channel| Gap { channel, partition, from, to, at, incarnation, is_strict };
                self.gaps.extend(named.map(gap));
            }
            ServerMessage::SubscriptionAck(_) => {
                self.acknowledged(&serde_json::from_str(text).expect("JSON"), log);
            }
            ServerMessage::UnsubscriptionAck(_) => {
                let asked = self.asked.pop_front().expect("it asked");
                assert!(matches!(asked.names[0].1, Start::Unsubscribe), "answers come in order: {text}");
                self.asked.iter_mut().for_each(|asked| asked.again_until = self.clock);
                let Self { newest, subscriptions, unheard, .. } = self;
                let is_held = |channel: &str| subscriptions.keys().any(|name| selects(name, channel));
                unheard.extend(newest.keys().filter(|(channel, _)| !is_held(channel)).cloned());
            }
            ServerMessage::Positions(first) => {
                for (kind, positions) in &first.positions {
                    positions.iter().for_each(|position| self.begin(kind, *position, log));
                }
            }
            ServerMessage::Resumed(resumed) => {
                let is_held = self.has(&resumed.channel) || self.gives_back();
                assert!(is_held, "it has not asked for that: {text}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether it has, or has asked for, something of this channel or wildcard, or waits to learn what it no longer has.
    fn may_hear_of(&self, name: &str) -> bool {
        let asked = self.asked.iter().flat_map(|asked| &asked.names).map(|(name, _)| name);
        let mut wanted = self.subscriptions.keys().chain(asked);
        wanted.any(|wanted| pattern(wanted).overlaps(pattern(name))) || self.gives_back()
    }

    fn gives_back(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked.names[0].1, Start::Unsubscribe))
    }

    fn deliver(&mut self, channel: &str, partition: Partition, offset: i64, incarnation: u32) {
        for ((name, of), first) in &self.over_before {
            let is_over = *of == partition && incarnation < *first && selects(name, channel);
            assert!(!is_over, "{offset} of {channel}, of incarnation {incarnation}, came after its reset");
        }
        let place = (channel.to_owned(), partition);
        let is_recreated = self.recreated.iter().any(|it| it.topic == partition.topic);
        // Until an unsubscribe is answered, events may be from before or from what it has asked for since.
        let is_given_back = |asked: &Asked| {
            let mut names = asked.names.iter().filter(|(_, start)| matches!(start, Start::Unsubscribe));
            names.any(|(name, _)| selects(name, channel))
        };
        let may_be_of_either = self.asked.iter().any(is_given_back);
        let is_of_new_log = (self.unheard.remove(&place) || may_be_of_either) && is_recreated;
        let newest = self.newest.entry(place).or_insert(-1);
        assert!(*newest < offset || is_of_new_log, "{channel} {partition:?}: {offset} after {newest}");
        *newest = offset;
        for gap in self.gaps.iter().filter(|gap| gap.is_strict) {
            let Gap { from, to, .. } = gap;
            assert!(
                !gap.names(channel, partition, offset) || gap.incarnation != incarnation,
                "{offset} of {channel} came after a gap: {from}-{to}"
            );
        }
        self.clock += 1;
        self.seen.entry(partition).or_default().insert(offset, (channel.to_owned(), self.clock, incarnation));
    }

    /// The gateway announces where a partition begins.
    fn begin(&mut self, kind: &str, position: Position, log: &Log) {
        let topic = KINDS.iter().position(|it| *it == kind).expect("a kind");
        let partition = Partition { topic, number: position.partition };
        let live_from = log.partitions[&partition].live_from;
        assert_eq!(position.offset, live_from, "{position} of {kind}");
        let selects_kind = |name: &str| pattern(name).of_kind(kind).is_some();
        for (_, promise) in self.subscriptions.iter_mut().filter(|(name, _)| selects_kind(name)) {
            // A promise with an offset there keeps it.
            if promise.otherwise.is_none() && !promise.from.contains_key(&partition) {
                promise.from.insert(partition, live_from);
                promise.views.insert(partition, log.partitions[&partition].life.began_in);
            }
        }
    }

    fn acknowledged(&mut self, ack: &Value, log: &Log) {
        let Asked { names, at, again_until, over, is_alone, resets } =
            self.asked.pop_front().expect("it asked");
        assert!(ack["rejected"].is_null(), "{ack}");
        let refused: BTreeMap<&str, &str> = ack["not_resumed"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| (entry["channel"].as_str().expect("text"), entry["code"].as_str().expect("text")))
            .collect();
        for (name, start) in names {
            let refusal = refused.get(&*name).copied();
            let cut = cut_of(&name, ack, log);
            let is_over = over.contains(&name);
            let promise = match start {
                Start::Live => {
                    assert_eq!(refusal, None, "{ack}");
                    self.lower_newest(&name, again_until, |it| cut.get(&it).copied().unwrap_or(0));
                    Promise { from: cut, ..Promise::default() }
                }
                Start::Snapshot | Start::Since(_) if refusal.is_some() => {
                    if let Start::Since(since) = &start {
                        let is_far = since.values().any(|&offset| offset == FAR);
                        // The gateway may not know a new partition yet.
                        let is_new = since.keys().any(|it| log.partitions[it].is_late);
                        let is_unknown = refusal == Some(code::UNKNOWN_POSITION);
                        let is_live = refusal == Some(code::ALREADY_LIVE);
                        let is_old = since.keys().any(|it| log.partitions[it].life.incarnation > 0);
                        assert!(
                            is_live || is_unknown == is_far || (is_unknown && (is_new || is_old)),
                            "{name}: {ack}"
                        );
                    }
                    self.lower_newest(&name, again_until, |it| cut.get(&it).copied().unwrap_or(0));
                    Promise { from: cut, ..Promise::default() }
                }
                Start::Snapshot => {
                    self.forget(&name, (at, again_until), is_over, |_| 0);
                    Promise { from: cut, ..Promise::default() }
                }
                Start::Since(mut since) => {
                    since_resets(&name, &mut since, &resets, is_alone, log);
                    self.forget(&name, (at, again_until), is_over, |partition| {
                        since.get(&partition).copied().unwrap_or(0)
                    });
                    Promise { from: since, otherwise: Some(0), is_alone, ..Promise::default() }
                }
                Start::Unsubscribe => panic!("answers come in order: {ack}"),
            };
            if !is_over {
                self.subscriptions.insert(name, promise.seen_now(log));
            }
        }
    }

    /// What it asked to have again may come again; and must, unless it has unsubscribed since. Events after the question are no
    /// repetition: if nothing is missed, events are live before the answer.
    fn forget(
        &mut self,
        name: &str,
        (asked_at, again_until): (u64, u64),
        is_over: bool,
        from: impl Fn(Partition) -> i64,
    ) {
        let is_of = |partition: Partition| pattern(name).of_kind(KINDS[partition.topic]).is_some();
        for (&partition, seen) in self.seen.iter_mut().filter(|(partition, _)| is_of(**partition)) {
            if !is_over {
                // Events that came between the question and the answer to an unsubscribe may be of the ended subscription.
                for (&offset, (channel, at, _)) in seen.range(from(partition)..) {
                    if selects(name, channel) && (asked_at + 1..=again_until).contains(at) {
                        let again = self.maybe_again.entry((channel.clone(), partition)).or_insert(i64::MAX);
                        *again = (*again).min(offset);
                    }
                }
                seen.retain(|&offset, (channel, at, _)| {
                    offset < from(partition) || !selects(name, channel) || *at > asked_at
                });
                continue;
            }
            for (channel, ..) in seen.values().filter(|(channel, ..)| selects(name, channel)) {
                let again = self.maybe_again.entry((channel.clone(), partition)).or_insert(i64::MAX);
                *again = (*again).min(from(partition));
            }
        }
        self.lower_newest(name, again_until, &from);
        for gap in &mut self.gaps {
            if !selects(name, &gap.channel) || !is_of(gap.partition) {
                continue;
            }
            if gap.at <= asked_at {
                // Some events of an ended subscription may have come.
                gap.is_strict &= !is_over;
                gap.to = if is_over { gap.to } else { gap.to.min(from(gap.partition) - 1) };
            } else if gap.at <= again_until {
                // It may be about the ended subscription.
                gap.is_strict = false;
            }
        }
    }

    /// A subscription begins here: events above may come, unless they came after it was requested.
    fn lower_newest(&mut self, name: &str, again_until: u64, from: impl Fn(Partition) -> i64) {
        let is_of = |partition: Partition| pattern(name).of_kind(KINDS[partition.topic]).is_some();
        for ((channel, partition), newest) in &mut self.newest {
            if selects(name, channel) && is_of(*partition) {
                let since = self.seen.get(partition).into_iter().flatten().rev();
                let mut since = since.filter(|(_, (it, at, _))| it == channel && *at > again_until);
                let came = since.next().map_or(-1, |(offset, _)| *offset);
                *newest = (*newest).min(came.max(from(*partition) - 1));
            }
        }
    }

    /// The offset of each partition from which on it is not complete.
    fn missing_from(&self, name: &str, log: &Log) -> BTreeMap<Partition, i64> {
        let promise = &self.subscriptions[name];
        let place = |(partition, from): (Partition, i64)| {
            let missing = self.missing(name, partition, from, log).next();
            // It asks for nothing that it does not know.
            let missing = missing.filter(|_| !self.is_behind(name, partition, log));
            let seen = self.seen.get(&partition);
            let newest = seen.and_then(|seen| {
                let mut of_name = seen.iter().rev().filter(|(_, (channel, ..))| selects(name, channel));
                of_name.next().map(|(offset, _)| offset + 1)
            });
            (partition, missing.unwrap_or_else(|| newest.unwrap_or(from).max(from)))
        };
        promise.of(name, log).map(place).collect()
    }

    fn missing<'a>(
        &'a self,
        name: &'a str,
        partition: Partition,
        from: i64,
        log: &'a Log,
    ) -> impl Iterator<Item = i64> + 'a {
        let PartitionLog { records, life: Life { incarnation, .. }, .. } = &log.partitions[&partition];
        let records = records.range(from..);
        records.filter_map(move |(&offset, token)| {
            let channel = Channel { token: (*token)?, kind: KINDS[partition.topic] };
            let seen = self.seen.get(&partition).and_then(|seen| seen.get(&offset));
            let seen = seen.is_some_and(|(.., it)| it == incarnation);
            let text = channel.to_string();
            let is_named = |gap: &Gap| gap.incarnation == *incarnation && gap.names(&text, partition, offset);
            let named = || self.gaps.iter().any(is_named);
            (pattern(name).selects(channel) && !seen && !named()).then_some(offset)
        })
    }

    /// Checks that every promised event came or is named by a gap.
    pub(crate) fn check(&self, log: &Log) {
        for (name, promise) in &self.subscriptions {
            for (partition, from) in promise.of(name, log) {
                let missing: Vec<_> = self.missing(name, partition, from, log).collect();
                assert!(missing.is_empty(), "{:?} {name} {partition:?}: {missing:?} are missing", self.line);
                let (view, there) =
                    (promise.view(partition, log), log.partitions[&partition].life.incarnation);
                assert!(
                    view == there,
                    "{:?} {name} {partition:?}: no reset from {view} to {there}",
                    self.line
                );
            }
        }
    }
}

impl Gap {
    fn names(&self, channel: &str, partition: Partition, offset: i64) -> bool {
        self.partition == partition && (self.from..=self.to).contains(&offset) && self.channel == channel
    }
}

pub(crate) fn pattern(name: &str) -> Pattern<'_> {
    Pattern::parse(name).expect("a valid name")
}

fn selects(name: &str, channel: &str) -> bool {
    pattern(name).selects(Channel::parse(channel).expect("a channel"))
}
