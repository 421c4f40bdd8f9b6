//! What is made of the brokers' answers.

use std::sync::Arc;
use std::sync::mpsc::channel;

use super::super::client::{client_config, observer_config};
use super::super::context::Context;
use super::super::rig::{Rig, TOPIC, kafka, numbers};
use super::*;

fn cluster(config: Kafka) -> Cluster {
    let context = || Context::new(None, Arc::default(), channel().0, Arc::default());
    let asker = client_config(&config).create_with_context(context()).expect("a client");
    let observer = observer_config(&config).create_with_context(context()).expect("a client");
    Cluster::new(asker, observer, config, Duration::ZERO)
}

#[test]
fn a_topic_without_id_is_known_by_the_last_records_of_its_partitions() {
    let rig = Rig::start(2);
    rig.produce(0, numbers(0..5));
    rig.produce(1, numbers(0..3));
    let at = |number| Partition { topic: 0, number };
    let mut cluster = cluster(rig.config.clone());
    cluster.look().expect("a broker");
    assert!(cluster.topic_ids().is_empty(), "the mock gives none");
    let positions = Offsets::from([(at(0), 5), (at(1), 3)]);
    for look in 0..3 {
        cluster.look_at_last_records(positions.clone());
        assert_eq!(cluster.incarnation(0), 0, "look {look}");
    }
    let remembered = cluster.incarnations.remembered(&positions);
    assert_eq!(remembered, Offsets::from([(at(0), 4), (at(1), 2)]));
    assert!(cluster.is_at_start(&at(0)));
    // The mock cannot delete a topic: another record is claimed to have stood there.
    let other = LastRecord::new(4, None, Some(b"BTC"), Some(b"another"));
    cluster.incarnations.remember(BTreeMap::from([(at(0), other)]));
    cluster.look_at_last_records(positions.clone());
    assert_eq!(cluster.incarnation(0), 1);
    assert!(!cluster.is_at_start(&at(0)), "the new topic is read from its first record");
    cluster.look_at_last_records(positions);
    assert_eq!(cluster.incarnation(0), 1, "once");
}

#[test]
fn a_broker_that_does_not_answer_keeps_no_partition_of_another_from_its_beginning() {
    let brokers = testkit::Cluster::of(2, &[(TOPIC, 2)]);
    for number in [0, 1] {
        brokers.mock.partition_leader(TOPIC, number, Some(number + 1)).expect("a leader");
    }
    let mut cluster = cluster(kafka(&brokers.brokers()));
    cluster.look().expect("a broker");
    brokers.mock.broker_down(2).expect("a broker");
    let partitions = [0, 1].map(|number| Partition { topic: 0, number });
    let mut found = cluster.look_up_start(&partitions);
    assert!(found.pop().expect("two").is_err(), "nobody can tell");
    let owned = Owned { partition: partitions[0], next: 0 };
    assert_eq!(found, [Ok(Began { owned, live_from: 0 })]);
}

#[test]
fn partitions_added_later_have_one_owner_each_and_are_read_from_their_first_record() {
    let mut cluster = cluster(kafka("127.0.0.1:1"));
    let see = |cluster: &mut Cluster, count| {
        cluster.saw(Layout { counts: BTreeMap::from([(0, count)]), ..Layout::default() });
        (0..3).map(|shard| cluster.layout.of_shard(shard, 3).collect()).collect::<Vec<Vec<_>>>()
    };
    let at = |numbers: &[i32]| -> Vec<_> {
        numbers.iter().map(|&number| Partition { topic: 0, number }).collect()
    };
    assert_eq!(see(&mut cluster, 4), [at(&[0, 3]), at(&[1]), at(&[2])]);
    assert_eq!(see(&mut cluster, 8), [at(&[0, 3, 6]), at(&[1, 4, 7]), at(&[2, 5])]);
    for number in 0..8 {
        assert_eq!(cluster.is_at_start(&Partition { topic: 0, number }), number < 4, "{number}");
    }
}

#[test]
fn what_is_read_since_a_time_begins_no_later_than_at_the_end_that_was_there_before() {
    assert_eq!(since(Some(3), 9), 3);
    assert_eq!(since(None, 9), 9, "nothing is young enough");
    assert_eq!(since(Some(9), 9), 9);
    assert_eq!(since(Some(11), 9), 9, "10 is older, by its time, and arrived in between");
}
