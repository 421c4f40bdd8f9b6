//! Several shards of one process, against librdkafka's mock cluster.

use std::collections::{BTreeMap, BTreeSet};

use protocol::GapReason;
use protocol::channel::TOPICS;

use super::rig::{Rig, numbers, position, topic};
use super::{Control, Request};
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::polled::{OffsetJump, Polled};

const SHARDS: usize = 3;
const PARTITIONS: i32 = 12;

/// Three shards that read these topics.
fn join(existing: &[&str]) -> Rig {
    let topics: Vec<_> = existing.iter().map(|name| (*name, PARTITIONS)).collect();
    Rig::join(&topics, SHARDS, |config| config.topics = TOPICS.iter().map(|name| topic(name)).collect())
}

fn all(topics: std::ops::Range<usize>) -> BTreeSet<Partition> {
    topics.flat_map(|topic| (0..PARTITIONS).map(move |number| Partition { topic, number })).collect()
}

/// Produces one record for each partition; returns the shard that received each event.
fn read_one_of_each(rig: &mut Rig, partitions: &BTreeSet<Partition>) -> BTreeMap<Partition, usize> {
    for &Partition { topic, number } in partitions {
        rig.produce_to(TOPICS[topic], number, ["1".to_owned()]);
    }
    let mut read = BTreeMap::new();
    while read.len() < partitions.len() {
        let (shard, partition) = rig.until_some_shard("an event arrives", |shard, polled, _| {
            let Polled::Event(frame) = polled else { return None };
            let text = String::from_utf8_lossy(&frame.bytes);
            let (_, rest) = text.split_once(r#""channel":"BTC."#).unwrap();
            let kind = rest.split_once('"').unwrap().0;
            let topic = TOPICS.iter().position(|name| protocol::kind_of_topic(name) == kind).unwrap();
            Some((shard, Partition { topic, number: position(&frame.bytes).partition }))
        });
        assert_eq!(read.insert(partition, shard), None, "{partition:?} is read twice");
    }
    read
}

fn assert_owners(read: &BTreeMap<Partition, usize>) {
    for (partition, shard) in read {
        assert_eq!(*shard, partition.number as usize % SHARDS, "{partition:?}");
        assert_eq!(*shard, partition.owner(SHARDS));
    }
}

#[test]
fn every_partition_of_every_topic_is_read_by_its_owner_and_by_no_other() {
    let mut rig = join(&TOPICS);
    rig.until("every partition is read", |_, status| status.read().warm.then_some(()));
    let partitions = all(0..TOPICS.len());
    assert_eq!(rig.status.read().partitions, partitions.len());
    let read = read_one_of_each(&mut rig, &partitions);
    assert_owners(&read);
}

#[test]
fn a_topic_created_later_reaches_its_owners_from_its_first_record() {
    let (later, existing) = TOPICS.split_last().unwrap();
    let mut rig = join(existing);
    rig.until("the others are read", |_, status| status.read().assigned.then_some(()));
    assert_eq!(rig.status.read().topics_missing, [*later]);
    rig.cluster.mock.create_topic(later, PARTITIONS, 1).unwrap();
    let last = TOPICS.len() - 1;
    let read = read_one_of_each(&mut rig, &all(last..TOPICS.len()));
    assert_owners(&read);
    // Partitions that existed before continue to be read.
    let mut others = all(0..last);
    others.retain(|partition| partition.topic == 0);
    assert_owners(&read_one_of_each(&mut rig, &others));
}

#[test]
fn a_recreated_topic_is_a_reset_and_is_read_from_its_first_record() {
    let mut rig = join(&TOPICS);
    rig.until("every partition is read", |_, status| status.read().warm.then_some(()));
    let partition = Partition { topic: 0, number: 4 };
    rig.produce_to(TOPICS[0], 4, numbers(0..3));
    let read_three = |rig: &mut Rig| {
        for offset in 0..3 {
            let found = rig.until_some_shard("an event arrives", |shard, polled, _| match polled {
                Polled::Event(frame) => Some((shard, position(&frame.bytes).offset)),
                Polled::OffsetJump(jump) => panic!("{jump:?}"),
                _ => None,
            });
            assert_eq!(found, (1, offset));
        }
    };
    read_three(&mut rig);
    // The mock cannot delete a topic. A recreated topic ends below the shard's position, which this request simulates.
    let requests = rig.control.as_ref().map(Control::requests).unwrap();
    requests
        .send(Request::Check { shard: 1, positions: vec![PartitionOffset { partition, next: 50 }] })
        .unwrap();
    let jump = rig.until_some_shard("the reset is told", |shard, polled, _| match polled {
        Polled::OffsetJump(jump) => Some((shard, *jump)),
        Polled::Event(_) => panic!("an event before the gap"),
        _ => None,
    });
    assert_eq!(jump, (1, OffsetJump { partition, from: 3, to: 3, reason: GapReason::Reset, next: 0 }));
    read_three(&mut rig);
}
