//! Misplaced tokens: tokens seen in another partition than the one in which producers put them now. They decide whether a single
//! position of a token covers everything.
//!
//! It does only if all of the token's events are in the position's partition. They are not after a topic has grown (the
//! partitioner gives the token another partition), or if producers use different partitioners. A position alone does not show
//! that, and a client that resumed in one partition would silently lose the events of the others. So each owner judges every
//! single position by its own knowledge: how many partitions the topic has, and what it saw in its own ones.
//!
//! That suffices for all shards together. An event that would be lost is in a partition whose owner has already taken it. Before
//! that, the owner was told of the partition. So either it knows that the token belongs there and not to the position's
//! partition, or it has seen the token there although it does not belong there.
//!
//! Bounded: if a token finds no room, single positions of its topic are refused from then on.

use hashbrown::HashMap;
use protocol::Position;
use tracing::warn;

use super::last_values::LastValues;
use crate::event::frame::{Frame, Source};
use crate::event::partition::Partition;
use crate::event::partitioner::Partitioner;
use crate::limits;
use crate::log::throttle::LogThrottle;

/// The misplaced tokens by topic.
#[derive(Debug, Default)]
pub(crate) struct MisplacedTokens {
    partitioner: Partitioner,
    topics: Vec<Topic>,
    tokens: usize,
    records: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Topic {
    name: String,
    /// Number of partitions; 0 before it is known, when none is read.
    partitions: i32,
    /// Earlier numbers of partitions, from the time of tokens whose places are forgotten.
    partitions_before: Vec<i32>,
    tokens: HashMap<Box<str>, Sighting>,
    /// Whether a token found no room.
    is_overflowed: bool,
    complaints: LogThrottle,
}

/// Where a token was seen that did not belong there then, or after a change of the number of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sighting {
    In(i32),
    InSeveral,
}

impl MisplacedTokens {
    /// For the topics with these names, in order.
    pub(crate) fn new<'a>(partitioner: Partitioner, topics: impl Iterator<Item = &'a str>) -> Self {
        let topics = topics.map(|name| Topic {
            name: name.to_owned(),
            partitions: 0,
            partitions_before: Vec::new(),
            tokens: HashMap::new(),
            is_overflowed: false,
            complaints: LogThrottle::default(),
        });
        Self { partitioner, topics: topics.collect(), ..Self::default() }
    }

    /// Sets a topic's number of partitions. The last values show which tokens belong elsewhere now; if some of those were
    /// evicted, a token counts as seen wherever it belonged before.
    pub(crate) fn set_partitions(&mut self, topic: usize, partitions: i32, last_values: &LastValues) {
        let Some(of) = self.topics.get_mut(topic) else { return };
        let before = std::mem::replace(&mut of.partitions, partitions);
        if before == 0 || before == partitions {
            return;
        }
        if last_values.evicted() > 0 && !of.partitions_before.contains(&before) {
            if of.partitions_before.len() < limits::PARTITION_COUNTS_KEPT {
                of.partitions_before.push(before);
            } else {
                of.is_overflowed = true;
            }
        }
        for source in last_values.of_topic(topic).filter_map(Frame::source) {
            let expected = self.partitioner.partition(source.token.as_bytes(), partitions);
            if expected.is_some_and(|expected| expected != source.partition.number) {
                self.note(source);
            }
        }
    }

    /// Notes a record. Whether its token belongs to its partition takes a hash of the token and a comparison.
    pub(crate) fn observe(&mut self, frame: &Frame) {
        let Some(source) = frame.source() else { return };
        let Some(of) = self.topics.get(source.partition.topic) else { return };
        let Some(expected) = self.partitioner.partition(source.token.as_bytes(), of.partitions) else {
            return;
        };
        if expected == source.partition.number {
            return;
        }
        self.records += 1;
        let is_news = self.note(source);
        let of = &self.topics[source.partition.topic];
        if is_news && let Some(suppressed) = of.complaints.allow(frame.polled_at) {
            let position = source.partition.position(source.offset);
            warn!(topic = of.name, %position, expected, suppressed, "a record is in another partition than its key's");
        }
    }

    /// Whether one position covers all events of a token, as far as this owner knows. A position in a partition that does not
    /// exist passes, because that partition's owner refuses it.
    pub(crate) fn suffices(&self, topic: usize, token: &str, position: Position) -> bool {
        let Some(of) = self.topics.get(topic) else { return true };
        if self.partitioner == Partitioner::Unknown {
            return false;
        }
        let number = position.partition;
        if number >= of.partitions {
            return true;
        }
        let is_given = |partitions: i32| {
            self.partitioner.partition(token.as_bytes(), partitions).is_none_or(|given| given == number)
        };
        let is_nowhere_else = of.tokens.get(token).is_none_or(|seen| *seen == Sighting::In(number));
        is_given(of.partitions)
            && is_nowhere_else
            && !of.is_overflowed
            && of.partitions_before.iter().copied().all(is_given)
    }

    /// Forgets a partition whose topic was recreated.
    pub(crate) fn forget(&mut self, partition: Partition) {
        let Some(of) = self.topics.get_mut(partition.topic) else { return };
        let before = of.tokens.len();
        of.tokens.retain(|_, seen| *seen != Sighting::In(partition.number));
        self.tokens -= before - of.tokens.len();
    }

    /// The number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Records that do not belong to their partition.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Those of them whose token found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Stores a token's place. Whether it was new.
    fn note(&mut self, source: &Source) -> bool {
        let Source { token, partition, .. } = source;
        let Some(of) = self.topics.get_mut(partition.topic) else { return false };
        match of.tokens.get_mut(token) {
            Some(seen) if *seen == Sighting::InSeveral || *seen == Sighting::In(partition.number) => false,
            Some(seen) => {
                *seen = Sighting::InSeveral;
                true
            }
            None if self.tokens >= limits::STRAY_TOKENS_MAX => {
                self.dropped += 1;
                !std::mem::replace(&mut of.is_overflowed, true)
            }
            None => {
                self.tokens += 1;
                of.tokens.insert(token.clone(), Sighting::In(partition.number));
                true
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/misplaced_tokens.rs"]
mod tests;
