//! Whether a `since` of single positions tells all of where its client stands, as far as one owner knows ([`Strays`]). Pure.

use std::sync::Arc;

use protocol::client::Since;
use protocol::{Pattern, Position, code};

use super::begin::Refusal;
use crate::ingest::strays::Strays;

/// Why a subscription cannot begin after its single positions: the first of them that is not enough. `kinds`: by topic.
pub fn refusal(
    strays: &Strays,
    kinds: &[Arc<str>],
    pattern: Pattern<'_>,
    since: &[(Box<str>, Since)],
) -> Option<Refusal> {
    let (Pattern::Exact { token, .. } | Pattern::Token(token)) = pattern else { return None };
    since.iter().find_map(|(kind, since)| {
        let Since::After(position) = since else { return None };
        let topic = kinds.iter().position(|known| **known == **kind)?;
        let is_enough = strays.suffices(topic, token, *position);
        (!is_enough).then(|| partitions_changed(token, kind, *position))
    })
}

/// A position of one partition, and the token's events are, or may be, in others too.
fn partitions_changed(token: &str, kind: &str, position: Position) -> Refusal {
    let message = format!(
        "the events of {token}.{kind} are not, or may not be, all in partition {}: the topic got more partitions, or its \
         producers place keys in another way than KAFKA_PARTITIONER says: delivery begins with the next event; send a list \
         of positions, one of each partition, or load a snapshot",
        position.partition
    );
    Refusal { code: code::PARTITIONS_CHANGED, message }
}
