//! The promise of an acknowledgement to a client.

use std::collections::BTreeMap;

use protocol::Position;
use serde_json::{Value, json};

use super::client::pattern;
use super::log::{KINDS, Log, PartitionLog};
use super::recreated::Life;
use crate::event::partition::Partition;

/// The offset of each partition from which on a subscription must have got everything.
#[derive(Default)]
pub(crate) struct Promise {
    pub(crate) from: BTreeMap<Partition, i64>,
    /// The same for other partitions, whenever they start; `None`: nothing is promised of those that existed at the start.
    pub(crate) otherwise: Option<i64>,
    /// The highest possible incarnation of those offsets, where it is not the one with which the partition started.
    pub(crate) views: BTreeMap<Partition, u32>,
    /// Whether the session had no other subscription that could get a gap about its events when it was requested.
    pub(crate) is_alone: bool,
}

impl Promise {
    /// The highest possible incarnation that it is about.
    pub(crate) fn view(&self, partition: Partition, log: &Log) -> u32 {
        let view = self.views.get(&partition).copied().unwrap_or(0);
        view.max(log.partitions[&partition].life.began_in)
    }

    /// It is about what the owners have been told by now, or about the logs whose offsets it names.
    pub(crate) fn seen_now(mut self, log: &Log) -> Self {
        let view = |(&partition, it): (&Partition, &PartitionLog)| {
            let named = self.from.get(&partition).and_then(|&from| log.topics.of_offset(from));
            (partition, named.unwrap_or(it.life.view))
        };
        self.views = log.partitions.iter().map(view).collect();
        self
    }

    /// The partitions of which something was promised.
    pub(crate) fn of<'a>(
        &'a self,
        name: &'a str,
        log: &'a Log,
    ) -> impl Iterator<Item = (Partition, i64)> + 'a {
        let all = log.partitions.iter().filter(|(it, _)| pattern(name).of_kind(KINDS[it.topic]).is_some());
        all.filter_map(|(&partition, log)| {
            // A later partition is delivered from its contents at the time when it was found.
            let Life { view, began_in, first, .. } = log.life;
            let late = || log.polled.and(Some(if view == began_in { log.live_from } else { first }));
            let otherwise = || if log.is_late { late() } else { self.otherwise };
            Some((partition, self.from.get(&partition).copied().or_else(otherwise)?))
        })
    }
}

/// Where each partition begins according to an acknowledgement. It names all that existed at the start, and those that have not
/// started as waiting.
pub(crate) fn cut_of(name: &str, ack: &Value, log: &Log) -> BTreeMap<Partition, i64> {
    let mut cut = BTreeMap::new();
    for (topic, kind) in KINDS.iter().enumerate().filter(|(_, kind)| pattern(name).of_kind(kind).is_some()) {
        for text in ack["positions"][kind].as_array().expect("positions were asked for") {
            let position: Position = text.as_str().expect("text").parse().expect("a position");
            cut.insert(Partition { topic, number: position.partition }, position.offset);
        }
        let waiting = ack["waiting"][kind].as_array();
        let of_topic = log.partitions.iter().filter(|(it, log)| it.topic == topic && !log.is_late);
        for (partition, _) in of_topic.filter(|(it, _)| !cut.contains_key(it)) {
            let is_named = |it: &Vec<Value>| it.is_empty() || it.contains(&json!(partition.number));
            assert!(waiting.is_some_and(is_named), "{partition:?} is not named: {ack}");
        }
    }
    cut
}
