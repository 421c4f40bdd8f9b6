//! A client that was away says what it has and gets the rest, each event once: from a gateway's history, from Kafka where
//! history is too short, from a gateway that was started meanwhile, and from another gateway.

use std::time::Instant;

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::{Brokers, Gateway, Launch, Offsets, Producer, Reader, Record, Topics, eventually};

const PARTITIONS: i32 = 4;
const SHARDS: &str = "4";
const ALL: &str = "*.trade";

fn launch(brokers: &Brokers, topic: &str) -> testkit::Launch {
    Launch::new(brokers).env("KAFKA_TOPICS", topic).env("WS_SHARDS", SHARDS)
}

/// A topic of this test, a producer to it, and how much it has: the same in each partition.
struct Feed {
    topic: String,
    producer: Producer,
    per_partition: i64,
}

impl Feed {
    fn new(brokers: &Brokers, topics: &Topics) -> Self {
        let topic = topics.create("trade", PARTITIONS);
        Self { topic, producer: Producer::new(brokers, "lz4"), per_partition: 0 }
    }

    /// So many more in each partition; returns once Kafka has them.
    fn produce(&mut self, count: i64) {
        let ids = self.per_partition..self.per_partition + count;
        for id in ids {
            for partition in 0..PARTITIONS {
                let record = Record::new(id as usize, &self.topic, &format!("T{partition}"), id as u64);
                self.producer.send(&Record { partition: Some(partition), ..record });
            }
        }
        self.producer.acked();
        self.per_partition += count;
    }

    /// Offsets of every partition, from these on.
    fn from(&self, first: i64) -> Offsets {
        (0..PARTITIONS).map(|partition| (partition, (first..self.per_partition).collect())).collect()
    }
}

/// `since` of [`ALL`], for a client that has so many of each partition.
fn after(count: i64) -> Value {
    let list: Vec<_> = (0..PARTITIONS).map(|partition| Position { partition, offset: count }).collect();
    json!({ "trade": list })
}

/// Waits until a new subscription would begin with what is not yet produced.
fn await_head(gateway: &Gateway, feed: &Feed) {
    eventually("the gateway has read it all", || {
        let (_, ack) = Reader::subscribe(gateway, ALL, &Value::Null);
        let is_there = |position: &Position| position.offset == feed.per_partition;
        ack.positions["trade"].iter().all(is_there).then_some(())
    });
}

/// Resumes after so many events of each partition, and sees that the rest comes, each once, and then what is new.
fn resume(gateway: &Gateway, feed: &mut Feed, had: i64) {
    let asked_at = Instant::now();
    let (mut reader, ack) = Reader::subscribe(gateway, ALL, &after(had));
    assert_eq!((ack.subscribed.as_slice(), ack.not_resumed.len()), (&[ALL.to_owned()][..], 0), "{ack:?}");
    let (offsets, replayed) = reader.replay(ALL);
    println!("{replayed} events resumed in {:.1} ms", asked_at.elapsed().as_secs_f64() * 1_000.0);
    assert!(offsets == feed.from(had), "each once, in order: {}", shape(&offsets));
    assert_eq!(replayed, ((feed.per_partition - had) * i64::from(PARTITIONS)) as u64);
    let live_from = feed.per_partition;
    feed.produce(10);
    assert_eq!(reader.events(10 * PARTITIONS as usize), feed.from(live_from), "then what is new");
}

/// First and last and how many, for a message that can be read.
fn shape(offsets: &Offsets) -> String {
    let shape = |(partition, offsets): (&i32, &Vec<i64>)| {
        format!("{partition}: {:?} to {:?}, {} of them", offsets.first(), offsets.last(), offsets.len())
    };
    offsets.iter().map(shape).collect::<Vec<_>>().join("; ")
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn ten_thousand_events_are_resumed_from_history() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let mut feed = Feed::new(&brokers, &topics);
    let gateway = launch(&brokers, &feed.topic).start_ready();
    feed.produce(2_600);
    await_head(&gateway, &feed);
    resume(&gateway, &mut feed, 100);
    resume(&gateway, &mut feed, 110);
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn what_history_does_not_reach_is_resumed_from_kafka() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let mut feed = Feed::new(&brokers, &topics);
    // Of 20,000 events it holds some hundreds.
    let gateway = launch(&brokers, &feed.topic).env("WS_HISTORY_BYTES", "256KiB").start_ready();
    feed.produce(5_000);
    await_head(&gateway, &feed);
    resume(&gateway, &mut feed, 0);
    resume(&gateway, &mut feed, 2_500);
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_gateway_that_was_started_meanwhile_resumes_what_was_before_it() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let mut feed = Feed::new(&brokers, &topics);
    for warmup in ["60s", "0"] {
        let first = launch(&brokers, &feed.topic).start_ready();
        let (mut reader, _) = Reader::subscribe(&first, ALL, &Value::Null);
        let had = feed.per_partition + 500;
        feed.produce(500);
        reader.events(500 * PARTITIONS as usize);
        drop(first);
        feed.produce(1_000);
        let second = launch(&brokers, &feed.topic).env("WS_HISTORY_WARMUP", warmup).start_ready();
        resume(&second, &mut feed, had);
    }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn what_cannot_be_resumed_is_said_and_live() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let mut feed = Feed::new(&brokers, &topics);
    let gateway = launch(&brokers, &feed.topic).start_ready();
    feed.produce(20);
    await_head(&gateway, &feed);
    let cases = [
        (ALL, after(1_000), "unknown_position"),
        // One partition is enough: a client that is told so does not get the others' past without a word.
        (ALL, json!({ "trade": ["0:1000", "1:0", "2:0", "3:0"] }), "unknown_position"),
        (ALL, json!({ "trade": [Position { partition: PARTITIONS + 5, offset: 0 }] }), "unknown_position"),
        ("T1.trade", json!(["1:1000"]), "unknown_position"),
        // The producer's hash would put it elsewhere: that this one partition has it all is no more than a claim.
        ("T1.trade", json!("1:10"), "partitions_changed"),
        (ALL, json!("1:10"), "bad_position"),
        ("T1.trade", json!("a position"), "bad_position"),
    ];
    for (channel, since, code) in cases {
        println!("{channel} since {since}");
        // A case of one channel does not wait for what the other partitions got.
        await_head(&gateway, &feed);
        let (mut reader, ack) = Reader::subscribe(&gateway, channel, &since);
        assert_eq!(ack.subscribed, [channel]);
        let [refusal] = ack.not_resumed.as_slice() else { panic!("{ack:?}") };
        assert_eq!((refusal.channel.as_str(), refusal.code.as_str()), (channel, code), "{}", refusal.message);
        let live_from = feed.per_partition;
        feed.produce(10);
        let mut expected = feed.from(live_from);
        if channel != ALL {
            expected.retain(|&partition, _| partition == 1);
        }
        assert_eq!(reader.events(expected.values().map(Vec::len).sum()), expected, "live from the cut");
    }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_client_that_moves_between_gateways_gets_each_event_once() {
    const MOVES: usize = 20;
    const PER_STAY: usize = 400;
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let mut feed = Feed::new(&brokers, &topics);
    let gateways = [(); 2].map(|()| launch(&brokers, &feed.topic).start_ready());
    let (_, ack) = Reader::subscribe(&gateways[0], ALL, &Value::Null);
    let mut positions = ack.positions;
    let mut got = Offsets::new();
    for stay in 0..MOVES {
        // Half of it perhaps comes before the client, to one of the gateways.
        feed.produce((PER_STAY / 2) as i64 / i64::from(PARTITIONS));
        let (mut reader, ack) = Reader::subscribe(&gateways[stay % 2], ALL, &json!(positions));
        assert_eq!(ack.not_resumed.len(), 0, "{ack:?}");
        feed.produce((PER_STAY / 2) as i64 / i64::from(PARTITIONS));
        // Leaves some behind, which the next gateway brings.
        let left_behind = if stay + 1 == MOVES { 0 } else { PER_STAY / 4 };
        let had: usize = got.values().map(Vec::len).sum();
        let produced = feed.per_partition as usize * PARTITIONS as usize;
        for _ in had..produced - left_behind {
            let Position { partition, offset } = reader.event_of_any_age();
            got.entry(partition).or_default().push(offset);
            let list = positions.get_mut("trade").unwrap();
            list.iter_mut().find(|next| next.partition == partition).unwrap().offset = offset + 1;
        }
    }
    assert!(got == feed.from(0), "each once, in order: {}", shape(&got));
}
