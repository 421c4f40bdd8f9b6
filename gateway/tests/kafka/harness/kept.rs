//! What Kafka has, read by a consumer of the test's own: right even where a producer was not told what became of a record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::kind_of_topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::audit::Truth;
use super::lane::{Lane, kind_number};
use super::{Brokers, PATIENCE};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Every record of these topics, by lane.
pub(crate) fn kept(brokers: &Brokers, topics: &[String]) -> Truth {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers.addresses)
        .set("group.id", "truth")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let mut left = BTreeMap::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (first, end) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).unwrap();
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            if first < end {
                left.insert((topic.clone(), partition.id()), end);
            }
        }
    }
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut truth = Truth::new();
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "not read to the end: {left:?}");
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = record.unwrap();
        let place = (record.topic().to_owned(), record.partition());
        if left.get(&place).is_some_and(|&end| record.offset() + 1 >= end) {
            left.remove(&place);
        }
        let token = std::str::from_utf8(record.key().unwrap()).unwrap();
        let token = token.strip_prefix('T').unwrap().parse().unwrap();
        let kind = kind_number(kind_of_topic(record.topic())).unwrap();
        let lane = Lane { token, kind, partition: record.partition() };
        truth.entry(lane).or_default().push(record.offset());
    }
    truth
}
