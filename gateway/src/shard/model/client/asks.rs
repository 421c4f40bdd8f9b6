//! The requests of the model's clients.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Pattern, Position};
use serde_json::json;

use super::{Asked, Client, FAR, Start, pattern, selects};
use crate::event::partition::Partition;
use crate::shard::model::log::{KINDS, Log, PartitionLog};

impl Client {
    /// What it asks for after it lost its connection: everything that it had, from where it is complete, although messages may
    /// have crossed.
    pub(in crate::shard::model) fn come_back(&mut self, log: &Log) -> Option<String> {
        let names: Vec<_> = self.subscriptions.keys().cloned().collect();
        let all: Vec<_> =
            names.into_iter().map(|name| (name.clone(), self.missing_from(&name, log))).collect();
        let text = (!all.is_empty()).then(|| self.subscribe_since(all));
        self.asked.iter_mut().for_each(|asked| asked.is_alone = true);
        text
    }

    fn ask(&mut self, names: Vec<(String, Start)>) {
        self.clock += 1;
        let at = self.clock;
        let all = self.asked.iter().flat_map(|asked| &asked.names).map(|(name, _)| name);
        let others: Vec<_> = self.subscriptions.keys().chain(all).collect();
        let is_alone =
            !names.iter().any(|(name, _)| others.iter().any(|it| pattern(it).overlaps(pattern(name))));
        for (_, start) in &names {
            if let Start::Since(since) = start {
                self.named.extend(since.iter().map(|(partition, offset)| (*partition, *offset)));
            }
        }
        let resets = BTreeSet::new();
        self.asked.push_back(Asked { names, at, again_until: at, over: BTreeSet::new(), is_alone, resets });
    }

    pub(in crate::shard::model) fn subscribe(&mut self, names: &[String]) -> String {
        // What it had of a channel long ago may be slightly ahead of where the channel begins now. A subscription with since may
        // be live and have no event yet.
        for name in names {
            let Self { newest, subscriptions, asked, .. } = self;
            let asked = asked.iter().flat_map(|asked| &asked.names);
            let live = asked.filter(|(_, start)| matches!(start, Start::Live)).map(|(name, _)| name);
            let held: Vec<_> = subscriptions.keys().chain(live).collect();
            newest.retain(|(channel, _), _| {
                !selects(name, channel) || held.iter().any(|held| selects(held, channel))
            });
        }
        self.ask(names.iter().map(|name| (name.clone(), Start::Live)).collect());
        json!({"type": "subscribe", "data": {"channels": names, "positions": true}}).to_string()
    }

    pub(in crate::shard::model) fn subscribe_snapshot(&mut self, names: &[String]) -> String {
        self.ask(names.iter().map(|name| (name.clone(), Start::Snapshot)).collect());
        json!({"type": "subscribe", "data": {"channels": names, "positions": true, "snapshot": true}})
            .to_string()
    }

    pub(in crate::shard::model) fn unsubscribe(&mut self, names: &[String]) -> String {
        self.asked.iter_mut().for_each(|asked| asked.over.extend(names.iter().cloned()));
        self.subscriptions.retain(|name, _| !names.contains(name));
        self.ask(names.iter().map(|name| (name.clone(), Start::Unsubscribe)).collect());
        json!({"type": "unsubscribe", "data": {"channels": names}}).to_string()
    }

    /// With lists, as the acknowledgement has them.
    pub(in crate::shard::model) fn subscribe_since(
        &mut self,
        all: Vec<(String, BTreeMap<Partition, i64>)>,
    ) -> String {
        let mut since = serde_json::Map::new();
        for (name, from) in &all {
            let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for kind in KINDS.into_iter().filter(|kind| pattern(name).of_kind(kind).is_some()) {
                kinds.insert(kind, Vec::new());
            }
            for (partition, offset) in from {
                let position = Position { partition: partition.number, offset: *offset };
                kinds.entry(KINDS[partition.topic]).or_default().push(position.to_string());
            }
            let value = match pattern(name) {
                Pattern::Exact { kind, .. } => json!(kinds.get(kind)),
                _ => json!(kinds),
            };
            since.insert(name.clone(), value);
        }
        let names: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
        self.ask(all.into_iter().map(|(name, from)| (name, Start::Since(from))).collect());
        json!({"type": "subscribe", "data": {"channels": names, "positions": true, "since": since}})
            .to_string()
    }

    /// Any since of a pattern, chosen at random, up to the ends of the logs or beyond; some partitions are left out.
    pub(in crate::shard::model) fn any_since(
        name: &str,
        log: &Log,
        random: &mut fastrand::Rng,
    ) -> BTreeMap<Partition, i64> {
        // Only of started partitions is it known that no log reaches that far.
        let may_be_far = log.partitions.values().all(|log| log.polled.is_some()) && random.u8(..30) == 0;
        let mut any = |log: &PartitionLog| match random.u8(..40) {
            0 if may_be_far => Some(FAR),
            1 => None,
            // Of any log that it may know.
            it if it < 20 && !log.life.former.is_empty() => {
                let (low, end) = log.life.former[random.usize(..log.life.former.len())];
                Some(random.i64(low..=end))
            }
            _ => Some(random.i64(log.life.base..=log.end)),
        };
        let all = log
            .partitions
            .iter()
            .filter(|(partition, _)| pattern(name).of_kind(KINDS[partition.topic]).is_some());
        all.filter_map(|(&partition, log)| Some((partition, any(log)?))).collect()
    }
}
