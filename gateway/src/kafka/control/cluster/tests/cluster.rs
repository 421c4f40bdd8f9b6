//! How the brokers' answers are interpreted.

use std::sync::Arc;
use std::sync::mpsc::channel;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::super::client::{client_config, observer_config};
use super::super::context::Context;
use super::super::rig::{Rig, TOPIC, kafka, numbers};
use super::*;

fn cluster(config: Kafka) -> Cluster {
    let (asker, observer) = clients(&config);
    Cluster::new(asker, observer, config, Duration::ZERO)
}

fn clients(config: &Kafka) -> (NativeConsumer, NativeConsumer) {
    let context = || Context::new(None, Arc::default(), channel().0, Arc::default());
    let asker = client_config(config).create_with_context(context()).expect("a client");
    let observer = observer_config(config).create_with_context(context()).expect("a client");
    (asker, observer)
}

const PARTITION: Partition = Partition { topic: 0, number: 0 };

/// One topic of one partition with this many records.
fn brokers(values: std::ops::Range<u64>) -> testkit::Cluster {
    let brokers = testkit::Cluster::of(1, &[(TOPIC, 1)]);
    let record = |value| testkit::record(TOPIC, "BTC", value).in_partition(0);
    brokers.produce(&numbers(values).map(record).collect::<Vec<_>>());
    brokers
}

/// Simulates a deleted topic, which the mock cannot delete: a topic of the same name on other brokers replaces it.
fn make_anew(cluster: &mut Cluster, successor: &testkit::Cluster) {
    (cluster.asker, cluster.observer) = clients(&kafka(&successor.brokers()));
    cluster.refresh().expect("a broker");
}

/// A cluster that remembers record 4 of a topic with five records.
fn remembering(brokers: &testkit::Cluster) -> Cluster {
    let mut cluster = cluster(kafka(&brokers.brokers()));
    cluster.refresh().expect("a broker");
    let positions = Offsets::from([(PARTITION, 5)]);
    cluster.look_at_last_records(positions.clone());
    assert_eq!(cluster.incarnations.remembered(&positions), Offsets::from([(PARTITION, 4)]));
    cluster
}

fn id(low: i64) -> TopicId {
    TopicId::new(0x4000, i64::MIN | low).expect("version 4")
}

/// The id that is accepted if the brokers return these ids of a topic one after another, and the number of requests.
fn believed(known: &Incarnations, answers: &[i64]) -> (Option<TopicId>, usize) {
    let mut asked = 0;
    let ask = || {
        let ids = BTreeMap::from([(0, id(answers[asked]))]);
        asked += 1;
        Ok::<_, DescribeError>(Described { ids, ..Described::default() })
    };
    let described = Described::confirmed(known, ask).expect("an answer");
    (described.ids.get(&0).copied(), asked)
}

#[test]
fn an_id_is_believed_if_two_answers_have_it_and_a_known_one_at_once() {
    let mut known = Incarnations::default();
    assert_eq!(believed(&known, &[1, 2]), (None, 2), "a first id");
    assert_eq!(believed(&known, &[1, 1]), (Some(id(1)), 2), "a first id");
    known.saw_ids(BTreeMap::from([(0, id(1))]));
    assert_eq!(believed(&known, &[2, 3]), (None, 2), "another id");
    assert_eq!(believed(&known, &[2, 2]), (Some(id(2)), 2), "another id");
    assert_eq!(believed(&known, &[1]), (Some(id(1)), 1), "the known one");
}

#[test]
fn a_recreated_topic_whose_log_does_not_answer_at_first_is_noticed_later() {
    let (before, after) = (brokers(0..5), brokers(100..120));
    let mut cluster = remembering(&before);
    make_anew(&mut cluster, &after);
    // A failed fetch is repeated after 50 ms: the first read gets nothing, the next one gets a record.
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    after.mock.request_errors(RDKafkaApiKey::Fetch, &[refused; 24]);
    for position in [12, 13, 14] {
        cluster.look_at_last_records(Offsets::from([(PARTITION, position)]));
    }
    assert_eq!(cluster.incarnation(0), 1);
}

#[test]
fn a_topic_recreated_before_its_first_id_was_seen_is_noticed() {
    let (before, after) = (brokers(0..5), brokers(100..120));
    let mut cluster = remembering(&before);
    cluster.incarnations.saw_ids(BTreeMap::from([(0, id(1))]));
    make_anew(&mut cluster, &after);
    let positions = Offsets::from([(PARTITION, 12)]);
    for look in 0..2 {
        cluster.look_at_last_records(positions.clone());
        assert_eq!(cluster.incarnation(0), 1, "look {look}");
    }
    assert_eq!(cluster.incarnations.remembered(&positions), Offsets::new());
}

#[test]
fn a_topic_without_id_is_known_by_the_last_records_of_its_partitions() {
    let rig = Rig::start(2);
    rig.produce(0, numbers(0..5));
    rig.produce(1, numbers(0..3));
    let at = |number| Partition { topic: 0, number };
    let mut cluster = cluster(rig.config.clone());
    cluster.refresh().expect("a broker");
    assert!(cluster.topic_ids().is_empty(), "the mock gives none");
    let positions = Offsets::from([(at(0), 5), (at(1), 3)]);
    for look in 0..3 {
        cluster.look_at_last_records(positions.clone());
        assert_eq!(cluster.incarnation(0), 0, "look {look}");
    }
    let remembered = cluster.incarnations.remembered(&positions);
    assert_eq!(remembered, Offsets::from([(at(0), 4), (at(1), 2)]));
    assert!(cluster.is_at_start(&at(0)));
    let successor = testkit::Cluster::of(1, &[(TOPIC, 2)]);
    let record = |value| testkit::record(TOPIC, "BTC", value).in_partition(0);
    successor.produce(&numbers(100..120).map(record).collect::<Vec<_>>());
    make_anew(&mut cluster, &successor);
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
    cluster.refresh().expect("a broker");
    brokers.mock.broker_down(2).expect("a broker");
    let partitions = [0, 1].map(|number| Partition { topic: 0, number });
    let (found, told) = cluster.look_up_start(&partitions);
    assert!(told.is_err(), "nobody can tell of the other");
    let owned = PartitionOffset { partition: partitions[0], next: 0 };
    assert_eq!(found, [ReadStart { owned, live_from: 0 }]);
}

#[test]
fn partitions_added_later_have_one_owner_each_and_are_read_from_their_first_record() {
    let mut cluster = cluster(kafka("127.0.0.1:1"));
    let see = |cluster: &mut Cluster, count| {
        cluster.update(TopicLayout { counts: BTreeMap::from([(0, count)]), ..TopicLayout::default() });
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
