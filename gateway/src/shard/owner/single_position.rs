//! Decides whether a `since` of single positions covers everything, as far as one owner knows ([`MisplacedTokens`]). Pure.

use std::sync::Arc;

use protocol::client::Since;
use protocol::{Pattern, Position, code};

use super::misplaced_tokens::MisplacedTokens;
use crate::event::partition::Partition;
use crate::shard::mesh::start::{StartRefusal, SubscriptionStart};

/// Why a subscription cannot begin after its single positions: the first insufficient one. `kinds` has each topic's kind.
/// `is_unread` tells whether the past of another partition of the topic is still being read, which may have the token too.
pub(crate) fn refusal(
    misplaced_tokens: &MisplacedTokens,
    kinds: &[Arc<str>],
    start: &SubscriptionStart,
    is_unread: impl Fn(usize, Position) -> bool,
) -> Option<StartRefusal> {
    positions(start).find_map(|(topic, token, position)| {
        if !misplaced_tokens.suffices(topic, token, position) {
            return Some(partitions_changed(token, &kinds[topic], position));
        }
        is_unread(topic, position).then(|| not_read_yet(token, &kinds[topic], position))
    })
}

/// Why a subscription cannot begin after its single positions if this partition started after they had been judged: its past is
/// unknown.
pub(crate) fn refusal_of_late(
    start: &SubscriptionStart,
    kinds: &[Arc<str>],
    partition: Partition,
) -> Option<StartRefusal> {
    let is_elsewhere =
        |topic, position: Position| topic == partition.topic && position.partition != partition.number;
    let (topic, token, position) = positions(start).find(|&(topic, _, it)| is_elsewhere(topic, it))?;
    Some(not_read_yet(token, &kinds[topic], position))
}

/// The single positions after which a subscription begins: topic, token and position.
fn positions(start: &SubscriptionStart) -> impl Iterator<Item = (usize, &str, Position)> {
    let token = match start.pattern() {
        Pattern::Exact { token, .. } | Pattern::Token(token) => Some(token),
        Pattern::Kind(_) | Pattern::All => None,
    };
    start.since().iter().filter_map(move |(topic, since)| {
        let Since::After(position) = since else { return None };
        Some((*topic, token?, *position))
    })
}

/// The refusal if the token's events are, or may be, in other partitions too.
fn partitions_changed(token: &str, kind: &str, position: Position) -> StartRefusal {
    let message = format!(
        "the events of {token}.{kind} are not, or may not be, all in partition {}: the topic got more partitions, or its \
         producers place keys in another way than KAFKA_PARTITIONER says: delivery begins with the next event; send a list \
         of positions, one of each partition, or load a snapshot",
        position.partition
    );
    StartRefusal { code: code::PARTITIONS_CHANGED, message }
}

/// The refusal if the gateway has just started.
fn not_read_yet(token: &str, kind: &str, position: Position) -> StartRefusal {
    let message = format!(
        "the gateway has just started and does not know yet whether partitions other than {} have events of {token}.{kind}: \
         delivery begins with the next event; send a list of positions, one of each partition, or load a snapshot",
        position.partition
    );
    StartRefusal { code: code::PARTITIONS_CHANGED, message }
}
