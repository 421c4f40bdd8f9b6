//! How a shard's assignment interprets statistics, ends and refusals. No broker is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::*;
use crate::config::Kafka;
use crate::kafka::control::NativeConsumer;
use crate::kafka::control::client::client_config;
use crate::kafka::control::context::Context;
use crate::kafka::control::progress::statistics::Fetcher;
use crate::kafka::control::rig::{kafka, waker};

const PARTITION: Partition = Partition { topic: 0, number: 0 };
const OTHER: Partition = Partition { topic: 1, number: 0 };
const PATIENCE: Duration = limits::KAFKA_STUCK_AFTER;
const NONE: [i64; 0] = [];

fn client(config: &Kafka) -> NativeConsumer {
    let context = Context::new(None, Arc::default(), channel().0, Arc::default());
    client_config(config).create_with_context(context).expect("a client")
}

/// A shard that reads the partition.
fn assignment() -> ShardAssignment {
    let mut assignment =
        ShardAssignment::new(0, 1, Arc::new(client(&kafka("127.0.0.1:1"))), channel().0, waker());
    assignment.partitions.insert(PARTITION, ReadState::Reading);
    assignment
}

/// Brokers that have this many partitions of the topic.
fn cluster(partitions: i32) -> Cluster {
    let config = kafka("127.0.0.1:1");
    let mut cluster = Cluster::new(client(&config), client(&config), config, Duration::ZERO);
    cluster.layout.counts.insert(PARTITION.topic, partitions);
    cluster
}

/// The partition is fetched up to this offset; the flag says whether nothing waits for the shard.
fn report(next: i64, is_empty: bool) -> Statistics {
    let fetcher = Fetcher { next, is_empty, is_active: true, broker: 1, fetches: 0 };
    Statistics { at_us: 0, fetchers: BTreeMap::from([(PARTITION, fetcher)]) }
}

fn at(offset: i64) -> Offsets {
    Offsets::from([(PARTITION, offset)])
}

fn stuck(assignment: &ShardAssignment, now: Instant) -> Vec<i64> {
    assignment.stuck(now).map(|stuck| stuck.fetched).collect()
}

#[test]
fn a_partition_with_an_unknown_end_is_neither_stuck_nor_late() {
    let (mut assignment, start) = (assignment(), Instant::now());
    let mut leaderless = cluster(1);
    leaderless.layout.leaderless.insert(PARTITION);
    for (cluster, expected) in [(cluster(1), vec![5]), (cluster(0), vec![]), (leaderless, vec![])] {
        assignment.saw_statistics(&report(5, true), start);
        assignment.saw_positions(&[PartitionOffset { partition: PARTITION, next: 5 }]);
        assignment.saw_ends(&at(7), &at(9), start);
        assignment.forget_untold(&cluster);
        assert_eq!(stuck(&assignment, start + PATIENCE), expected);
        let lag = if expected.is_empty() { Duration::ZERO } else { PATIENCE };
        assert_eq!(assignment.lag(start + PATIENCE), lag);
    }
}

#[test]
fn a_partition_is_not_stuck_while_records_wait_for_the_shard() {
    let (mut assignment, start) = (assignment(), Instant::now());
    for look in 0..9 {
        let now = start + look * PATIENCE;
        assignment.saw_statistics(&report(5, false), now);
        assignment.saw_ends(&at(9), &at(9), now);
        assert_eq!(stuck(&assignment, now), NONE, "look {look}");
    }
    let taken_at = start + 9 * PATIENCE;
    assignment.saw_statistics(&report(5, true), taken_at);
    assignment.saw_ends(&at(9), &at(9), taken_at);
    assert_eq!(stuck(&assignment, taken_at), NONE, "it begins now");
    assert_eq!(stuck(&assignment, taken_at + PATIENCE), [5]);
}

#[test]
fn a_stall_near_a_refusal_is_a_refusal_only_where_brokers_do_not_tell_rights() {
    let (mut assignment, now) = (assignment(), Instant::now());
    assignment.refused();
    let both = Offsets::from([(PARTITION, 5), (OTHER, 6)]);
    let mut stalled = both.clone();
    assignment.take_refused(&mut stalled, &BTreeSet::from([PARTITION.topic]), now);
    assert_eq!(stalled, at(5), "it may be read: a new consumer helps");
    assert_eq!(assignment.refused_topics(), &BTreeSet::from([OTHER.topic]));
    let mut stalled = at(5);
    assignment.take_refused(&mut stalled, &BTreeSet::from([PARTITION.topic]), now);
    assert_eq!(stalled, at(5));
    assert_eq!(assignment.refused_topics(), &BTreeSet::new(), "what was refused is fetched again");
    let mut stalled = both.clone();
    assignment.take_refused(&mut stalled, &BTreeSet::new(), now);
    assert_eq!(stalled, both, "the refusal is over");
}

#[test]
fn a_topic_that_may_be_read_again_is_not_stalled_for_the_time_in_which_it_might_not() {
    let (mut assignment, mut cluster) = (assignment(), cluster(1));
    (0..3).for_each(|_| _ = assignment.stalls.observe(&at(5), &at(6)));
    cluster.forbidden.insert(PARTITION.topic);
    assignment.next_fetches = Some(Offsets::new());
    assert_eq!(assignment.look_for_stalls(&cluster), None);
    assert_eq!(assignment.stalls.observe(&at(5), &at(6)), Offsets::new(), "its count begins again");
}
