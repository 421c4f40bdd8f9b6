//! A shard's consumer and the control thread together, against librdkafka's mock cluster, which can inject errors.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use protocol::{GapReason, Position};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::client::client_config;
use super::context::Context;
use super::rig::{PATIENCE, Rig, TOPIC, WARMUP, kafka, numbers, position, waker};
use super::shard_assignment::ShardAssignment;
use super::{Control, ControlReply, Request, check_config};
use crate::config::Property;
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::consumer::Consumer;
use crate::kafka::polled::{OffsetJump, Polled, ReadStart};

#[test]
fn a_partition_refused_at_a_position_that_exists_is_read_on_without_loss() {
    let mut rig = Rig::start(2);
    rig.produce(0, numbers(0..3));
    (0..3).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    rig.cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[refused; 2]);
    // Long enough for fetches to be refused; a shorter time proves less.
    std::thread::sleep(Duration::from_millis(100));
    rig.produce(0, numbers(3..6));
    (3..6).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    rig.produce(1, numbers(0..3));
    (0..3).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 1, offset }));
}

#[test]
fn a_check_that_the_brokers_do_not_answer_is_made_again() {
    let mut rig = Rig::start(1);
    rig.produce(0, numbers(0..1));
    rig.next_event();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    rig.cluster.mock.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 3]);
    rig.cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[refused]);
    std::thread::sleep(Duration::from_millis(100));
    rig.produce(0, numbers(1..2));
    assert_eq!(rig.next_event(), Position { partition: 0, offset: 1 });
}

#[test]
fn what_the_broker_dropped_is_one_gap_and_every_other_record_an_event() {
    // The mock keeps 5 MB of a partition; librdkafka's prefetched records (4 MB) are not lost.
    const RECORDS: i64 = 600;
    let mut rig = Rig::start(1);
    rig.produce(0, (0..RECORDS).map(|number| format!("{number:050000}")));
    let mut next = 0;
    let mut gaps = 0;
    while next < RECORDS {
        next = rig.until("a record or a gap arrives", |polled, _| match polled {
            Polled::Event(frame) => {
                assert_eq!(position(&frame.bytes), Position { partition: 0, offset: next });
                Some(next + 1)
            }
            Polled::OffsetJump(OffsetJump { from, to, reason, .. }) => {
                gaps += 1;
                assert_eq!((*from, *reason), (next, GapReason::Retention));
                assert!(*to > next, "{to}");
                Some(to + 1)
            }
            Polled::Nothing | Polled::Partitions(..) | Polled::Began(_) => None,
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(gaps, 1);
}

#[test]
#[ignore = "librdkafka 2.3 crashes on a topic's metadata with an error and partitions at once, which only its mock answers"]
fn a_topic_of_which_the_brokers_cannot_tell_at_first_is_read_from_where_kafka_start_says() {
    let mut rig = Rig::join(&[(TOPIC, 1)], 1, |_| ());
    let unclear = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    rig.restart(|rig| {
        rig.produce(0, numbers(0..10));
        rig.cluster.mock.topic_error(TOPIC, unclear).unwrap();
    });
    rig.until("the refusal is told", |_, status| status.read().error.filter(|error| error.contains(TOPIC)));
    assert_eq!(rig.status.read().partitions, 0);
    rig.cluster.mock.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    rig.until("the partition is read", |_, status| (status.read().partitions == 1).then_some(()));
    rig.produce(0, numbers(10..11));
    assert_eq!(rig.next_event(), Position { partition: 0, offset: 10 }, "latest: not the ten old ones");
}

#[test]
fn a_partition_without_a_leader_delays_no_other_and_is_read_once_it_has_one() {
    let mut rig = Rig::start(2);
    rig.restart(|rig| rig.cluster.mock.partition_leader(TOPIC, 1, None).unwrap());
    rig.until("the gateway is ready", |_, status| status.read().warm.then_some(()));
    let status = rig.status.read();
    assert_eq!(status.partitions, 1);
    assert!(status.error.is_some_and(|error| error.contains("no broker leads partition 1")));
    rig.produce(0, numbers(0..1));
    assert_eq!(rig.next_event(), Position { partition: 0, offset: 0 });
    rig.cluster.mock.partition_leader(TOPIC, 1, Some(1)).unwrap();
    rig.until("the other is read", |_, status| (status.read().partitions == 2).then_some(()));
    rig.produce(1, numbers(0..1));
    assert_eq!(rig.next_event(), Position { partition: 1, offset: 0 });
}

#[test]
fn a_gateway_whose_topics_do_not_exist_yet_is_ready_and_reads_them_from_their_first_record() {
    let mut rig = Rig::join(&[], 1, |_| ());
    rig.until("the gateway is ready", |_, status| status.read().warm.then_some(()));
    assert_eq!(rig.status.read().topics_missing, [TOPIC]);
    rig.cluster.mock.create_topic(TOPIC, 1, 1).unwrap();
    rig.produce(0, numbers(0..2));
    (0..2).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
}

#[test]
fn properties_that_librdkafka_does_not_take_end_the_start() {
    let mut config = kafka("127.0.0.1:1");
    config.properties.push(Property { name: "fetch.wait.max.mss".into(), value: "5".into() });
    assert!(check_config(&config).is_err());
    let error = Control::start(config, WARMUP, Arc::default()).err().expect("an error").to_string();
    assert!(error.contains("KAFKA_PROPERTIES") && error.contains("fetch.wait.max.mss"), "{error}");
}

/// The existing records, and where delivery begins.
const PAST: ReadStart = ReadStart {
    owned: PartitionOffset { partition: Partition { topic: 0, number: 0 }, next: 3 },
    live_from: 5,
};

#[test]
fn a_gateway_with_nothing_to_read_before_it_is_ready_is_warm_without_a_word_of_its_shard() {
    let mut rig = Rig::start(2);
    rig.until("it is warm", |_, status| status.read().warm.then_some(()));
}

#[test]
fn a_shard_with_a_past_to_read_is_warm_when_it_says_so_and_for_good() {
    let (requests, inbox) = channel();
    let config = kafka("127.0.0.1:1");
    let context = Context::new(None, Arc::default(), requests.clone(), Arc::default());
    let native = Arc::new(client_config(&config).create_with_context(context).unwrap());
    let (replies, replies_seen) = channel();
    let mut assignment = ShardAssignment::new(0, 1, native, replies, waker());
    assignment.tell_begun(vec![ReadStart { live_from: 3, ..PAST }]);
    assert!(assignment.is_warm(), "nothing is before its start");
    assignment.tell_begun(vec![PAST]);
    assert!(!assignment.is_warm());
    let consumer = Consumer::join(0, 1, &config.topics, 1 << 20, waker(), requests);
    consumer.report_warm();
    assert!(inbox.try_iter().any(|request| matches!(request, Request::Warm { shard: 0 })));
    assignment.note_warm();
    assert!(assignment.is_warm());
    assignment.tell_begun(vec![PAST]);
    assert!(assignment.is_warm(), "a partition whose leader was late keeps nobody waiting again");
    assert_eq!(replies_seen.try_iter().filter(|reply| matches!(reply, ControlReply::Begin(_))).count(), 3);
}

#[test]
fn a_shard_learns_where_reading_and_where_delivery_begin_and_asks_for_the_first() {
    let (requests, inbox) = channel();
    let mut consumer = Consumer::join(0, 1, &kafka("127.0.0.1:1").topics, 1 << 20, waker(), requests);
    let Ok(Request::Join { replies, .. }) = inbox.try_recv() else { panic!("it joins first") };
    replies.send(ControlReply::Partitions(vec![(0, 12)])).unwrap();
    replies.send(ControlReply::Begin(vec![PAST])).unwrap();
    consumer.begin_turn();
    let told = consumer.poll(Instant::now());
    assert!(matches!(told, Polled::Partitions(0, 12)), "how many there are comes first: {told:?}");
    let Polled::Began(began) = consumer.poll(Instant::now()) else { panic!("no news") };
    assert_eq!(began, [PAST]);
    let Ok(Request::Read { owned, .. }) = inbox.try_recv() else { panic!("no answer") };
    assert_eq!(owned, [PAST.owned]);
    let first = consumer.owned().first().map(|owned| owned.partition.position(owned.next));
    assert_eq!(first, Some(Position { partition: 0, offset: 3 }));
}

#[test]
fn each_question_for_an_end_is_answered_in_its_order() {
    let mut rig = Rig::start(2);
    rig.produce(1, numbers(0..7));
    let at = |number| Partition { topic: 0, number };
    // The last one is not a partition of the topic.
    for number in [1, 0, 1, 5] {
        rig.consumers[0].ask_end(at(number));
    }
    let mut answers = Vec::new();
    while answers.len() < 4 {
        answers.push(rig.until("an end is told", |polled, _| match polled {
            Polled::End(partition, end) => Some((*partition, *end)),
            _ => None,
        }));
    }
    assert_eq!(answers, [(at(1), Some(7)), (at(0), Some(0)), (at(1), Some(7)), (at(5), None)]);
}

#[test]
fn an_end_lookup_that_no_broker_answers_returns_none() {
    let mut rig = Rig::start(1);
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    rig.cluster.mock.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 20]);
    let partition = Partition { topic: 0, number: 0 };
    rig.consumers[0].ask_end(partition);
    let end = |polled: &Polled| match polled {
        Polled::End(of, end) => {
            assert_eq!(*of, partition);
            Some(*end)
        }
        _ => None,
    };
    assert_eq!(rig.until("there is an answer", |polled, _| end(polled)), None);
}

#[test]
fn a_partition_that_the_brokers_refuse_to_let_read_is_named_and_its_consumer_is_not_replaced() {
    let mut rig = Rig::start(1);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let refuse = |rig: &Rig| rig.cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[refused; 500]);
    refuse(&rig);
    rig.produce(0, numbers(0..3));
    // Two check intervals, and one for the first check.
    let deadline = Instant::now() + 3 * PATIENCE;
    let named = |rig: &Rig| rig.status.read().topics_forbidden == [TOPIC];
    let mut refuse_at = Instant::now();
    let is_told = |rig: &Rig| {
        let sentence = rig.status.read().stuck;
        named(rig) && sentence.is_some_and(|sentence| sentence.contains("the ACL READ is missing"))
    };
    while !is_told(&rig) {
        assert!(Instant::now() < deadline, "{:?}", rig.status.read());
        if Instant::now() >= refuse_at {
            refuse(&rig);
            refuse_at += Duration::from_secs(5);
        }
        rig.consumers[0].begin_turn();
        assert!(matches!(
            rig.consumers[0].poll(Instant::now()),
            Polled::Nothing | Polled::Partitions(..) | Polled::Began(_)
        ));
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = rig.status.read();
    assert_eq!((status.consumers_replaced, status.partitions_stuck), (0, 1), "{status:?}");
    assert!(status.lag_s > 10.0, "{status:?}");
    // The permission is granted.
    rig.cluster.mock.clear_request_errors(RDKafkaApiKey::Fetch);
    (0..3).for_each(|offset| assert_eq!(rig.next_event(), Position { partition: 0, offset }));
    let deadline = Instant::now() + 3 * PATIENCE;
    while named(&rig) {
        assert!(Instant::now() < deadline, "{:?}", rig.status.read());
        rig.consumers[0].begin_turn();
        rig.consumers[0].poll(Instant::now());
        std::thread::sleep(Duration::from_millis(5));
    }
}
