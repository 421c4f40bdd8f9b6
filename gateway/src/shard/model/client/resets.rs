//! What the model's clients learn of recreated topics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Client, FAR, Start, pattern, selects};
use crate::event::partition::Partition;
use crate::shard::model::log::{KINDS, Log};
use crate::shard::model::recreated::Life;

impl Client {
    /// The topic was recreated; or the position that it named is of no existing log, which nobody could tell in time. It gets
    /// everything that exists, also what it had already.
    pub(crate) fn begin_again(
        &mut self,
        name: &str,
        partition: Partition,
        (from, to): (i64, i64),
        log: &Log,
    ) {
        let Life { incarnation, view, first, resets, .. } = &log.partitions[&partition].life;
        let (view, first) = (*view, *first);
        assert!(from == FAR || *incarnation > 0, "no topic was recreated");
        self.clock += 1;
        let is_of = |channel: &str, of: Partition| of == partition && selects(name, channel);
        self.newest.retain(|(channel, of), _| !is_of(channel, *of));
        self.maybe_again.retain(|(channel, of), _| !is_of(channel, *of));
        self.gaps.retain(|gap| !is_of(&gap.channel, gap.partition));
        // For a position that it named itself, the following log is unknown. Then what another subscription delivered may not
        // come again.
        let is_named = self.named.contains(&(partition, to));
        if let Some(seen) = self.seen.get_mut(&partition).filter(|_| !is_named) {
            seen.retain(|_, (channel, ..)| !is_of(channel, partition));
        }
        let known = self.over_before.get(&(name.to_owned(), partition)).copied().unwrap_or(0);
        let next = resets.iter().find(|(it, from)| *it >= known && *from == to).filter(|_| !is_named);
        if let Some((next, _)) = next {
            self.over_before.insert((name.to_owned(), partition), *next);
        }
        let kind = KINDS[partition.topic];
        let is_told = |held: &str| pattern(held).of_kind(kind).is_some_and(|it| it.to_string() == name);
        for (_, promise) in self.subscriptions.iter_mut().filter(|(held, _)| is_told(held)) {
            let place = promise.from.entry(partition).or_insert(first);
            // Promises about an older log are about this one now. A cut may be about it already, although it overtook the gap.
            let is_older = promise.views.get(&partition).is_none_or(|it| *it < view);
            let is_its_own = is_named && promise.otherwise.is_some();
            *place =
                if is_its_own || is_older || promise.is_alone { first } else { later(first, *place, log) };
            promise.views.insert(partition, view);
        }
        for asked in &mut self.asked {
            let is_since =
                |(asked, start): &(String, Start)| matches!(start, Start::Since(_)) && is_told(asked);
            if asked.names.iter().any(is_since) {
                asked.resets.insert((name.to_owned(), partition));
            }
        }
    }

    /// Whether what it has of a partition, or was promised, is of a log that no longer exists.
    pub(crate) fn is_behind(&self, name: &str, partition: Partition, log: &Log) -> bool {
        let Life { incarnation, .. } = log.partitions[&partition].life;
        let mut seen = self.seen.get(&partition).into_iter().flat_map(BTreeMap::values);
        self.subscriptions[name].view(partition, log) < incarnation
            || seen.any(|(channel, _, it)| *it < incarnation && selects(name, channel))
    }
}

/// Where a resume begins whose recreated topics were announced before its acknowledgement came: with the new log, unless the gap
/// may have been on its way before the request.
pub(crate) fn since_resets(
    name: &str,
    since: &mut BTreeMap<Partition, i64>,
    resets: &BTreeSet<(String, Partition)>,
    is_alone: bool,
    log: &Log,
) {
    for (told, partition) in resets {
        let kind = KINDS[partition.topic];
        if pattern(name).of_kind(kind).is_none_or(|it| it.to_string() != *told) {
            continue;
        }
        let first = log.partitions[partition].life.first;
        let place = since.entry(*partition).or_insert(first);
        *place = if is_alone { first } else { later(first, *place, log) };
    }
}

/// The later of a log's beginning and of an offset, unless the offset is known to be of another log.
fn later(first: i64, place: i64, log: &Log) -> i64 {
    let is_of_another = log.topics.of_offset(place) != log.topics.of_offset(first);
    if is_of_another { first } else { first.max(place) }
}
