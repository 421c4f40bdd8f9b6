//! A client, as the model has it: what it asked for, what it got, and what it must have got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{Channel, GapReason, Pattern, Position, ServerMessage, code};
use serde_json::{Value, json};
use testkit::frames::{CLOSE, TEXT, split_frame};
use wire::SocketId;

use super::log::{KINDS, Log, TOKENS};
use crate::ingest::partition::Partition;

/// A position that no log reaches.
const FAR: i64 = 1_000_000;

#[derive(Default)]
pub(super) struct Client {
    /// Its shard and socket, while it is connected.
    pub(super) line: Option<(usize, SocketId)>,
    has_upgraded: bool,
    bytes: Vec<u8>,
    /// What it asked for and was not answered.
    asked: VecDeque<Asked>,
    /// What it has, or is to ask for again once it is connected: from which offset of each partition it must have got all.
    pub(super) subscriptions: BTreeMap<String, BTreeMap<Partition, i64>>,
    /// What it got.
    seen: BTreeMap<Partition, BTreeMap<i64, String>>,
    /// The newest offset of each channel in each partition.
    newest: BTreeMap<(String, Partition), i64>,
    /// What it says to have: of a channel, all of a partition before an offset.
    claims: BTreeMap<(String, Partition), i64>,
    /// What it was told not to get, by channel.
    gaps: Vec<Gap>,
    /// What it asked to have again and gave back before the answer came: some may come again, or a gap that names it.
    maybe_again: BTreeMap<(String, Partition), i64>,
    pub(super) reasons: BTreeSet<&'static str>,
}

/// Offsets of a channel that will not come.
struct Gap {
    channel: String,
    partition: Partition,
    from: i64,
    to: i64,
    /// None of it may come. A wildcard's gap says nothing of what a narrower subscription is brought, and what Kafka deleted
    /// may have come before, for another subscription.
    is_strict: bool,
}

struct Asked {
    name: String,
    start: Start,
    /// Given back before the answer came.
    is_over: bool,
}

enum Start {
    Live,
    Snapshot,
    Since(BTreeMap<Partition, i64>),
    Unsubscribe,
}

impl Client {
    pub(super) fn connect(&mut self, shard: usize, socket: SocketId) {
        *self = Self { line: Some((shard, socket)), ..std::mem::take(self) };
        self.has_upgraded = false;
        self.bytes.clear();
        self.asked.clear();
    }

    /// What it asks for, having lost its connection: everything that it had, from where it stands.
    pub(super) fn come_back(&mut self, log: &Log) -> Vec<String> {
        let names: Vec<_> = self.subscriptions.keys().cloned().collect();
        let mut messages = Vec::new();
        // The widest first: what it covers needs no resume of its own.
        let mut asked: Vec<String> = Vec::new();
        for name in sorted_by_width(names) {
            let is_covered = asked.iter().any(|other| pattern(other).overlaps(pattern(&name)));
            if is_covered {
                self.subscriptions.remove(&name);
                continue;
            }
            let from = self.missing_from(&name, log);
            messages.push(self.subscribe_since(&name, from));
            asked.push(name);
        }
        messages
    }

    pub(super) fn subscribe(&mut self, name: &str) -> String {
        // What it had of a channel long ago may be a little ahead of where the channel begins now. What was asked for with since may
        // be rejected: it holds nothing yet.
        let Self { newest, subscriptions, asked, .. } = self;
        let live = asked.iter().filter(|asked| matches!(asked.start, Start::Live));
        let held = subscriptions.keys().chain(live.map(|asked| &asked.name));
        let held: Vec<_> = held.collect();
        newest.retain(|(channel, _), _| {
            !selects(name, channel) || held.iter().any(|held| selects(held, channel))
        });
        self.asked.push_back(Asked { name: name.to_owned(), start: Start::Live, is_over: false });
        json!({"type": "subscribe", "data": {"channels": [name], "positions": true}}).to_string()
    }

    pub(super) fn subscribe_snapshot(&mut self, name: &str) -> String {
        self.asked.push_back(Asked { name: name.to_owned(), start: Start::Snapshot, is_over: false });
        json!({"type": "subscribe", "data": {"channels": [name], "positions": true, "snapshot": true}})
            .to_string()
    }

    pub(super) fn unsubscribe(&mut self, name: &str) -> String {
        self.asked.iter_mut().filter(|asked| asked.name == name).for_each(|asked| asked.is_over = true);
        self.subscriptions.remove(name);
        self.asked.push_back(Asked { name: name.to_owned(), start: Start::Unsubscribe, is_over: false });
        json!({"type": "unsubscribe", "data": {"channels": [name]}}).to_string()
    }

    /// With lists, as the ack has them.
    pub(super) fn subscribe_since(&mut self, name: &str, from: BTreeMap<Partition, i64>) -> String {
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (partition, offset) in &from {
            let position = Position { partition: partition.number, offset: *offset };
            kinds.entry(KINDS[partition.topic]).or_default().push(position.to_string());
        }
        let since = match pattern(name) {
            Pattern::Exact { kind, .. } => json!(kinds.get(kind)),
            _ => json!(kinds),
        };
        self.asked.push_back(Asked { name: name.to_owned(), start: Start::Since(from), is_over: false });
        json!({"type": "subscribe", "data": {"channels": [name], "positions": true, "since": {name: since}}})
            .to_string()
    }

    /// Whether it waits for an answer, or for the end of its handshake.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.subscriptions.contains_key(name) || self.asked.iter().any(|it| it.name == name && !it.is_over)
    }

    /// Any since of a pattern at random, up to the ends of the logs, or beyond any.
    pub(super) fn any_since(name: &str, log: &Log, random: &mut fastrand::Rng) -> BTreeMap<Partition, i64> {
        let all = log
            .partitions
            .iter()
            .filter(|(partition, _)| pattern(name).of_kind(KINDS[partition.topic]).is_some());
        all.map(|(&partition, log)| {
            (partition, if random.u8(..30) == 0 { FAR } else { random.i64(0..=log.end) })
        })
        .collect()
    }

    /// Bytes came. Whether the gateway has closed.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
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
                TEXT => self.hear(std::str::from_utf8(payload).expect("text")),
                CLOSE => return true,
                other => panic!("a frame that begins with {other:#x}"),
            }
        }
        self.bytes = rest.to_vec();
        false
    }

    fn hear(&mut self, text: &str) {
        match ServerMessage::parse(text).unwrap_or_else(|error| panic!("{error}: {text}")) {
            ServerMessage::Event(event) => {
                assert!(self.may_hear_of(&event.channel), "it has not asked for that: {text}");
                let topic = KINDS.iter().position(|kind| event.channel.ends_with(kind)).expect("a kind");
                let partition = Partition { topic, number: event.pos.partition };
                self.deliver(&event.channel, partition, event.pos.offset);
            }
            ServerMessage::Gap(gap) => {
                let name = gap.channel.into_owned();
                assert!(self.may_hear_of(&name), "it has not asked for that: {text}");
                let kind = match pattern(&name) {
                    Pattern::Exact { kind, .. } | Pattern::Kind(kind) => kind,
                    other => panic!("a gap of {other}"),
                };
                // Of records without a key: no event is missing.
                if gap.reason == GapReason::Skipped {
                    assert!(matches!(pattern(&name), Pattern::Kind(_)), "every record has a frame: {text}");
                    return;
                }
                let topic = KINDS.iter().position(|it| *it == kind).expect("a kind");
                let partition = Partition { topic, number: gap.from.partition };
                self.reasons.insert(gap.reason.as_str());
                assert!(gap.reason != GapReason::Reset, "no topic was made anew");
                let is_exact = matches!(pattern(&name), Pattern::Exact { .. });
                let is_strict = is_exact && gap.reason == GapReason::SlowConsumer;
                for (offset, channel) in
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
                self.gaps.extend(named.map(|channel| Gap { channel, partition, from, to, is_strict }));
            }
            ServerMessage::SubscriptionAck(_) => {
                self.acknowledged(&serde_json::from_str(text).expect("JSON"));
            }
            ServerMessage::UnsubscriptionAck(_) => {
                let asked = self.asked.pop_front().expect("it asked");
                assert!(matches!(asked.start, Start::Unsubscribe), "answers come in order: {text}");
            }
            ServerMessage::Resumed(resumed) => {
                let is_held = self.has(&resumed.channel) || self.gives_back();
                assert!(is_held, "it has not asked for that: {text}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether it has, or has asked for, something of this channel or wildcard; or waits to hear what it has no more.
    fn may_hear_of(&self, name: &str) -> bool {
        let asked = self.asked.iter().map(|asked| &asked.name);
        let mut wanted = self.subscriptions.keys().chain(asked);
        wanted.any(|wanted| pattern(wanted).overlaps(pattern(name))) || self.gives_back()
    }

    fn gives_back(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked.start, Start::Unsubscribe))
    }

    fn deliver(&mut self, channel: &str, partition: Partition, offset: i64) {
        let newest = self.newest.entry((channel.to_owned(), partition)).or_insert(-1);
        assert!(*newest < offset, "{channel} {partition:?}: {offset} after {newest}");
        *newest = offset;
        for gap in self.gaps.iter().filter(|gap| gap.is_strict) {
            let Gap { from, to, .. } = gap;
            assert!(
                !gap.names(channel, partition, offset),
                "{offset} of {channel} came after a gap: {from}-{to}"
            );
        }
        self.seen.entry(partition).or_default().insert(offset, channel.to_owned());
    }

    fn acknowledged(&mut self, ack: &Value) {
        let Asked { name, start, is_over } = self.asked.pop_front().expect("it asked");
        let cut: BTreeMap<Partition, i64> = KINDS
            .iter()
            .enumerate()
            .filter(|(_, kind)| pattern(&name).of_kind(kind).is_some())
            .flat_map(|(topic, kind)| {
                let list = ack["positions"][kind].as_array().expect("positions were asked for").clone();
                list.into_iter().map(move |text| {
                    let position: Position = text.as_str().expect("text").parse().expect("a position");
                    (Partition { topic, number: position.partition }, position.offset)
                })
            })
            .collect();
        if let Some(rejected) = ack["rejected"].as_array() {
            assert_eq!(rejected[0]["code"], code::ALREADY_LIVE, "{ack}");
            assert!(!matches!(start, Start::Live), "{ack}");
            return;
        }
        let is_refused = ack["not_resumed"].as_array().is_some_and(|list| !list.is_empty());
        let from = match start {
            Start::Live => cut,
            Start::Snapshot => {
                self.forget(&name, is_over, |_| 0);
                cut
            }
            Start::Since(since) => {
                assert_eq!(is_refused, since.values().any(|&offset| offset == FAR), "{ack}");
                let from: BTreeMap<_, _> = cut
                    .iter()
                    .map(|(&partition, &cut)| {
                        let wanted = since.get(&partition).copied().unwrap_or(0);
                        (partition, if is_refused { cut } else { wanted })
                    })
                    .collect();
                self.forget(&name, is_over, |partition| from[&partition]);
                for (&partition, &from) in from.iter().filter(|_| !is_refused) {
                    let channels = TOKENS.map(|token| format!("{token}.{}", KINDS[partition.topic]));
                    let claimed = channels.into_iter().filter(|channel| selects(&name, channel));
                    self.claims.extend(claimed.map(|channel| ((channel, partition), from)));
                }
                from
            }
            Start::Unsubscribe => panic!("answers come in order: {ack}"),
        };
        if !is_over {
            self.subscriptions.entry(name).or_insert(from);
        }
    }

    /// What it asked to have again it may have again; and must, unless it has given it back since.
    fn forget(&mut self, name: &str, is_over: bool, from: impl Fn(Partition) -> i64) {
        let is_of = |partition: Partition| pattern(name).of_kind(KINDS[partition.topic]).is_some();
        for (&partition, seen) in self.seen.iter_mut().filter(|(partition, _)| is_of(**partition)) {
            if !is_over {
                seen.retain(|&offset, channel| offset < from(partition) || !selects(name, channel));
                continue;
            }
            for channel in seen.values().filter(|channel| selects(name, channel)) {
                let again = self.maybe_again.entry((channel.clone(), partition)).or_insert(i64::MAX);
                *again = (*again).min(from(partition));
            }
        }
        for ((channel, partition), newest) in &mut self.newest {
            if selects(name, channel) && is_of(*partition) {
                *newest = (*newest).min(from(*partition) - 1);
            }
        }
        for gap in &mut self.gaps {
            if selects(name, &gap.channel) && is_of(gap.partition) {
                // Of what was given back some may have come.
                gap.is_strict &= !is_over;
                gap.to = if is_over { gap.to } else { gap.to.min(from(gap.partition) - 1) };
            }
        }
    }

    /// From where each partition is not complete.
    fn missing_from(&self, name: &str, log: &Log) -> BTreeMap<Partition, i64> {
        let start = &self.subscriptions[name];
        start
            .iter()
            .map(|(&partition, &from)| {
                let missing = self.missing(name, partition, from, log).next();
                let seen = self.seen.get(&partition);
                let newest = seen.and_then(|seen| {
                    seen.iter()
                        .rev()
                        .find(|(_, channel)| selects(name, channel))
                        .map(|(offset, _)| offset + 1)
                });
                (partition, missing.unwrap_or_else(|| newest.unwrap_or(from).max(from)))
            })
            .collect()
    }

    fn missing<'a>(
        &'a self,
        name: &'a str,
        partition: Partition,
        from: i64,
        log: &'a Log,
    ) -> impl Iterator<Item = i64> + 'a {
        let records = log.partitions[&partition].records.range(from..);
        records.filter_map(move |(&offset, token)| {
            let channel = Channel { token: (*token)?, kind: KINDS[partition.topic] };
            let seen = self.seen.get(&partition).is_some_and(|seen| seen.contains_key(&offset));
            let text = channel.to_string();
            let named = || self.gaps.iter().any(|gap| gap.names(&text, partition, offset));
            let claimed = || self.claims.get(&(text.clone(), partition)).is_some_and(|&from| offset < from);
            (pattern(name).selects(channel) && !seen && !named() && !claimed()).then_some(offset)
        })
    }

    /// What is neither here nor named by a gap.
    pub(super) fn check(&self, log: &Log) {
        for (name, start) in &self.subscriptions {
            for (&partition, &from) in start {
                let missing: Vec<_> = self.missing(name, partition, from, log).collect();
                assert!(missing.is_empty(), "{:?} {name} {partition:?}: {missing:?} are missing", self.line);
            }
        }
    }
}

impl Gap {
    fn names(&self, channel: &str, partition: Partition, offset: i64) -> bool {
        self.partition == partition && (self.from..=self.to).contains(&offset) && self.channel == channel
    }
}

fn sorted_by_width(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|name| match pattern(name) {
        Pattern::All => 0,
        Pattern::Kind(_) => 1,
        Pattern::Token(_) => 2,
        Pattern::Exact { .. } => 3,
    });
    names
}

fn pattern(name: &str) -> Pattern<'_> {
    Pattern::parse(name).expect("a valid name")
}

fn selects(name: &str, channel: &str) -> bool {
    pattern(name).selects(Channel::parse(channel).expect("a channel"))
}
