//! A topic that gets more partitions: whoever resumes a token afterwards gets all that it missed, or is told that it does not.

use std::collections::BTreeMap;

use protocol::Position;
use serde_json::{Value, json};

use crate::harness::{Brokers, Gateway, Launch, Offsets, Producer, Reader, Record, Topics, eventually};

const BEFORE: i32 = 2;
const AFTER: i32 = 12;
const TOKENS: usize = 24;

/// The records of some tokens, and where Kafka put them.
struct Feed {
    topic: String,
    produced: usize,
    /// By token.
    positions: BTreeMap<String, Vec<Position>>,
}

impl Feed {
    /// So many more of each token.
    fn produce(&mut self, producer: &Producer, count: usize) {
        let tokens: Vec<String> = (0..TOKENS).map(|number| format!("T{number}")).collect();
        let ids = self.produced..self.produced + count * TOKENS;
        let records: Vec<Record> =
            ids.map(|id| Record::new(id, &self.topic, &tokens[id % TOKENS], (id / TOKENS) as u64)).collect();
        let mut acked = producer.send_all(&records);
        acked.sort_unstable_by_key(|(id, _)| *id);
        for (id, position) in acked {
            self.positions.entry(tokens[id % TOKENS].clone()).or_default().push(position);
        }
        self.produced += count * TOKENS;
    }

    /// The positions of a token after its first so many.
    fn after(&self, token: &str, count: usize) -> Offsets {
        let mut offsets = Offsets::new();
        for Position { partition, offset } in &self.positions[token][count..] {
            offsets.entry(*partition).or_default().push(*offset);
        }
        offsets
    }

    /// Waits until the gateway has read it all.
    fn await_read(&self, gateway: &Gateway) {
        eventually("the gateway has read it all", || {
            let (_, ack) = Reader::subscribe(gateway, "*.trade", &Value::Null);
            let read: i64 = ack.positions["trade"].iter().map(|position| position.offset).sum();
            (read == self.produced as i64).then_some(())
        });
    }
}

/// What a client that has the first so many events of each token gets: those that it missed, or word that it does not get them. How
/// many were refused.
fn resume_each(gateway: &Gateway, feed: &Feed, had: usize) -> usize {
    let (mut refused, mut lost) = (0, Vec::new());
    for (token, positions) in &feed.positions {
        let channel = format!("{token}.trade");
        let missed = feed.after(token, had);
        let (mut reader, ack) = Reader::subscribe(gateway, &channel, &json!(positions[had - 1]));
        if let [refusal] = ack.not_resumed.as_slice() {
            assert_eq!(refusal.code, "partitions_changed", "{refusal}");
            refused += 1;
        } else {
            let (came, replayed) = reader.replay(&channel);
            if came != missed {
                lost.push(format!("{token}: {replayed} replayed of {missed:?}"));
            }
        }
        // What a list has is all there is.
        let next: Vec<Position> =
            feed.after(token, 0).keys().map(|&partition| first_after(positions, had, partition)).collect();
        let (mut reader, ack) = Reader::subscribe(gateway, &channel, &json!(next));
        assert!(ack.not_resumed.is_empty(), "{ack:?}");
        assert_eq!(reader.replay(&channel).0, missed, "{token}, by the list {next:?}");
    }
    assert!(lost.is_empty(), "{} of {TOKENS} were taken and lost events: {lost:?}", lost.len());
    refused
}

/// What a client with the first so many of these wants next of a partition.
fn first_after(positions: &[Position], had: usize, partition: i32) -> Position {
    let of_partition = positions[..had].iter().filter(|it| it.partition == partition);
    Position { partition, offset: of_partition.map(|it| it.offset + 1).max().unwrap_or(0) }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_token_of_a_grown_topic_is_resumed_completely_or_refused_before_and_after_a_restart() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", BEFORE);
    let launch = || Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "2");
    let gateway = launch().start_ready();
    let mut feed = Feed { topic: topic.clone(), produced: 0, positions: BTreeMap::new() };
    feed.produce(&Producer::new(&brokers, "none"), 4);
    feed.await_read(&gateway);
    assert_eq!(resume_each(&gateway, &feed, 3), 0, "of a topic as it was made every position is enough");

    topics.grow(&topic, AFTER);
    // One that knows all of the partitions.
    let producer = Producer::new(&brokers, "none");
    feed.produce(&producer, 2);
    let moved = feed.positions.values().filter(|it| it[0].partition != it[4].partition).count();
    println!("{moved} of {TOKENS} tokens moved");
    assert!(moved > TOKENS / 2 && moved < TOKENS);
    // The gateway looks each 10 s.
    feed.await_read(&gateway);
    assert_eq!(
        resume_each(&gateway, &feed, 4),
        moved,
        "after the last event in the partition that was theirs"
    );
    assert_eq!(resume_each(&gateway, &feed, 5), moved, "after the first in the one that is");
    drop(gateway);

    for warmup in ["0", "60s"] {
        let gateway = launch().env("WS_HISTORY_WARMUP", warmup).start_ready();
        assert_eq!(
            resume_each(&gateway, &feed, 4),
            moved,
            "{warmup}: to what was theirs no other gateway gives more"
        );
        let refused = resume_each(&gateway, &feed, 5);
        println!(
            "WS_HISTORY_WARMUP={warmup}: {refused} of {moved} are refused in the partition that is theirs"
        );
        feed.produce(&producer, 1);
        feed.await_read(&gateway);
        resume_each(&gateway, &feed, 6);
    }
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn who_resumes_while_a_topic_grows_gets_the_events_of_its_new_partitions_or_is_refused() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", BEFORE);
    let gateway = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "2").start_ready();
    let mut feed = Feed { topic: topic.clone(), produced: 0, positions: BTreeMap::new() };
    feed.produce(&Producer::new(&brokers, "none"), 2);
    feed.await_read(&gateway);
    topics.grow(&topic, AFTER);
    feed.produce(&Producer::new(&brokers, "none"), 3);
    // The gateway knows nothing of it yet, or is just learning it.
    let (mut sessions, mut refused) = (Vec::new(), 0);
    // It looks each 10 s.
    for round in 0..6 {
        for (token, positions) in &feed.positions {
            let channel = format!("{token}.trade");
            let (reader, ack) = Reader::subscribe(&gateway, &channel, &json!(positions[1]));
            match ack.not_resumed.as_slice() {
                [] => sessions.push((round, token.clone(), reader)),
                [refusal] => {
                    assert_eq!(refusal.code, "partitions_changed", "{refusal}");
                    refused += 1;
                }
                more => panic!("{more:?}"),
            }
        }
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
    println!("{} sessions were resumed, {refused} refused", sessions.len());
    for (round, token, mut reader) in sessions {
        let (mut came, expected) = (Offsets::new(), feed.after(&token, 2));
        while came.values().map(Vec::len).sum::<usize>() < 3 {
            let Position { partition, offset } = reader.event_of_any_age();
            came.entry(partition).or_default().push(offset);
        }
        assert_eq!(came, expected, "{token} in round {round}");
    }
    assert!(refused > 0, "in the end it knows of the new partitions");
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_snapshot_of_a_token_in_two_shards_partitions_is_in_the_order_of_the_records_times() {
    let brokers = Brokers::of_the_script();
    let topics = Topics::new(&brokers);
    let topic = topics.create("trade", BEFORE);
    let gateway = Launch::new(&brokers).env("KAFKA_TOPICS", &topic).env("WS_SHARDS", "2").start_ready();
    let producer = Producer::new(&brokers, "none");
    let mut wrong = Vec::new();
    for attempt in 0..24 {
        let token = format!("T{attempt}");
        // In either partition the older; and what is produced last is the older, or the newer.
        let (older, is_late) = (attempt as i32 % 2, attempt % 4 < 2);
        let at = |partition, timestamp_ms| Record {
            partition: Some(partition),
            timestamp_ms: Some(timestamp_ms),
            ..Record::new(partition as usize, &topic, &token, 0)
        };
        let mut records = [at(older, 1_700_000_000_000), at(1 - older, 1_700_000_000_001)];
        if is_late {
            records.reverse();
        }
        let placed: BTreeMap<usize, Position> = producer.send_all(&records).into_iter().collect();
        let expected = [placed[&(older as usize)], placed[&(1 - older as usize)]];
        eventually("the gateway has both", || {
            let (_, ack) = Reader::subscribe(&gateway, "*.trade", &Value::Null);
            let read: i64 = ack.positions["trade"].iter().map(|position| position.offset).sum();
            (read == 2 * (attempt + 1)).then_some(())
        });
        let mut reader = Reader::snapshot(&gateway, &format!("{token}.trade"));
        if [reader.event(), reader.event()] != expected {
            wrong.push(attempt);
        }
    }
    assert!(wrong.is_empty(), "the older value came last in {} of 24 tries: {wrong:?}", wrong.len());
}
