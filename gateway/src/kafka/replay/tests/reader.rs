//! The replay threads end to end, against librdkafka's mock cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use protocol::GapReason;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use testkit::{Cluster, PATIENCE, record};
use wire::{Driver, DriverOptions};

use super::super::{Replay, ReplaySender};
use crate::config::{Kafka, KafkaStart, Security, Topic};
use crate::event::partitioner::Partitioner;
use crate::event::pull::{Chunk, PullContinuation, PullId};
use crate::kafka::replay::waiting_cursor::tests::pull;
use crate::limits;

const TOPIC: &str = "odin.trades";

struct Rig {
    cluster: Cluster,
    replay: Option<Replay>,
    sender: ReplaySender,
    answers: Receiver<(PullId, Chunk)>,
}

/// Everything that a cursor received from its first pull to the end.
#[derive(Debug, Default)]
struct Got {
    offsets: Vec<i64>,
    lost: Option<(i64, GapReason)>,
}

impl Rig {
    /// One broker, and one topic with this many partitions.
    fn start(partitions: i32) -> Self {
        let cluster = Cluster::of(1, &[(TOPIC, partitions)]);
        let config = Kafka {
            brokers: vec![cluster.brokers()],
            group_id: "test".to_owned(),
            topics: vec![Topic { name: TOPIC.to_owned(), kind: "trade".to_owned() }],
            partitioner: Partitioner::default(),
            start: KafkaStart::Latest,
            security: Security::Plaintext,
            properties: Vec::new(),
            lag_max: None,
            rate_max: None,
        };
        let replay = Replay::start(config, 1 << 20, 1, None, &Arc::default()).unwrap();
        let sender = replay.sender();
        let driver = Driver::new(&DriverOptions { sockets: 16, ..DriverOptions::default() }).unwrap();
        let answers = sender.connect(0, driver.waker());
        Self { cluster, replay: Some(replay), sender, answers }
    }

    fn produce(&self, records: impl IntoIterator<Item = (String, String)>) {
        let of_partition = |(key, value): (String, String)| record(TOPIC, &key, value).in_partition(0);
        self.cluster.produce(&records.into_iter().map(of_partition).collect::<Vec<_>>());
    }

    fn answer(&self) -> (PullId, Chunk) {
        let readings = self.sender.readings();
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer: {readings:?}"))
    }

    /// Pulls for these cursors, each a pattern and its start, until all are at `until`.
    fn replay(&self, cursors: &[(String, i64)], until: i64) -> Vec<Got> {
        let mut under_way = BTreeMap::new();
        for (id, (pattern, from)) in (0..).zip(cursors) {
            self.sender.pull(0, pull(id, pattern, *from), until);
            under_way.insert(id, *from);
        }
        let mut got: Vec<Got> = cursors.iter().map(|_| Got::default()).collect();
        while !under_way.is_empty() {
            let (pull_id, chunk) = self.answer();
            let id = pull_id.cursor;
            assert_eq!(Some(chunk.from), under_way.remove(&id), "one answer to each pull");
            assert_eq!(chunk.then, PullContinuation::More);
            assert!(chunk.next > chunk.from && chunk.next <= until);
            let got = &mut got[id as usize];
            got.lost = got.lost.or(chunk.lost);
            got.offsets
                .extend(chunk.frames.iter().filter_map(|frame| frame.source()).map(|source| source.offset));
            if chunk.next < until {
                self.sender.pull(0, pull(id, &cursors[id as usize].0, chunk.next), until);
                under_way.insert(id, chunk.next);
            }
        }
        got
    }

    fn records_read(&self) -> u64 {
        self.sender.readings().records.load(Ordering::Relaxed)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(replay) = self.replay.take() {
            replay.stop(Duration::from_secs(5));
        }
    }
}

/// Records of this many tokens in rotation.
fn records(range: std::ops::Range<i64>, tokens: i64) -> impl Iterator<Item = (String, String)> {
    range.map(move |number| (format!("T{}", number % tokens), format!("{number}")))
}

#[test]
fn a_thousand_cursors_on_one_partition_cost_one_reading_of_it() {
    const RECORDS: i64 = 20_000;
    let rig = Rig::start(1);
    rig.produce(records(0..RECORDS, 1000));
    let cursors: Vec<_> = (0..1000).map(|token| (format!("T{token}.trade"), 0)).collect();
    let got = rig.replay(&cursors, RECORDS);
    for (token, got) in (0..).zip(&got) {
        let expected: Vec<i64> = (token..RECORDS).step_by(1000).collect();
        assert_eq!((&got.offsets, got.lost), (&expected, None));
    }
    let read = rig.records_read();
    // One pass, unless the machine stalls for longer than a scan keeps a cursor's place; never one pass for each cursor.
    assert!((RECORDS as u64..50 * RECORDS as u64).contains(&read), "{read} records were read");
    let readings = rig.sender.readings();
    assert_eq!(readings.frames.load(Ordering::Relaxed), RECORDS as u64);
    assert_eq!(readings.cursors.load(Ordering::Relaxed), 0);
}

#[test]
fn wildcards_and_channels_get_what_they_select_from_where_they_begin() {
    let rig = Rig::start(1);
    rig.produce(records(0..3000, 3));
    let cursors = [("T1.trade", 0), ("*.trade", 1500), ("T2.*", 10), ("*", 2999), ("T1.social", 0)];
    let got = rig.replay(&cursors.map(|(pattern, from)| (pattern.to_owned(), from)), 3000);
    let offsets: Vec<_> = got.into_iter().map(|got| got.offsets).collect();
    assert_eq!(offsets[0], (1..3000).step_by(3).collect::<Vec<_>>());
    assert_eq!(offsets[1], (1500..3000).collect::<Vec<_>>());
    assert_eq!(offsets[2], (11..3000).step_by(3).collect::<Vec<_>>());
    assert_eq!(offsets[3], [2999]);
    assert_eq!(offsets[4], [0; 0]);
}

#[test]
fn nothing_at_or_above_until_is_read_out_and_a_record_without_a_token_is_passed_over() {
    let rig = Rig::start(1);
    rig.produce(records(0..10, 1).chain([("no token".to_owned(), "1".to_owned())]).chain(records(0..10, 1)));
    let got = rig.replay(&[("*".to_owned(), 5)], 15);
    assert_eq!(got[0].offsets, [5, 6, 7, 8, 9, 11, 12, 13, 14]);
}

#[test]
fn deleted_records_are_reported_as_lost_and_the_rest_replayed() {
    // The mock keeps 5 MB of a partition.
    const RECORDS: i64 = 600;
    let rig = Rig::start(1);
    rig.produce((0..RECORDS).map(|number| ("BTC".to_owned(), format!("{number:050000}"))));
    let got = rig.replay(&[("BTC.trade".to_owned(), 3), ("ETH.trade".to_owned(), 0)], RECORDS);
    let (last, reason) = got[0].lost.expect("the begin is gone");
    assert_eq!(reason, GapReason::Retention);
    assert_eq!(got[0].offsets, (last + 1..RECORDS).collect::<Vec<_>>());
    assert_eq!(got[1].lost, got[0].lost);
    // All records are deleted.
    let got = rig.replay(&[("BTC.trade".to_owned(), 3)], 10);
    assert_eq!((got[0].lost, got[0].offsets.len()), (Some((9, GapReason::Retention)), 0));
}

#[test]
fn a_log_that_ends_below_the_cursor_was_made_anew_and_its_records_are_not_taken_for_the_old_ones() {
    let rig = Rig::start(1);
    rig.produce(records(0..100, 1));
    let got = rig.replay(&[("*".to_owned(), 50), ("*".to_owned(), 500)], 1000);
    for got in got {
        assert_eq!((got.lost, got.offsets.len()), (Some((999, GapReason::Replay)), 0));
    }
}

#[test]
fn a_pull_at_or_above_history_comes_back_at_once() {
    let rig = Rig::start(1);
    rig.sender.pull(0, pull(7, "*", 20), 20);
    let (pull_id, chunk) = rig.answer();
    assert_eq!((pull_id.cursor, chunk.from, chunk.next, chunk.then), (7, 20, 20, PullContinuation::More));
    assert_eq!(rig.records_read(), 0);
}

#[test]
fn a_broker_that_is_down_or_refuses_for_a_while_costs_no_record() {
    let rig = Rig::start(1);
    rig.produce(records(0..2000, 1));
    rig.cluster.mock.broker_down(1).unwrap();
    rig.sender.pull(0, pull(0, "T0.trade", 0), 2000);
    // Long enough for an attempt to fail; a shorter time proves less.
    assert!(rig.answers.recv_timeout(Duration::from_millis(300)).is_err());
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    rig.cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[refused]);
    rig.cluster.mock.broker_up(1).unwrap();
    let (pull_id, chunk) = rig.answer();
    assert_eq!((pull_id.cursor, chunk.lost), (0, None));
    assert_eq!(chunk.frames[0].source().map(|source| source.offset), Some(0));
    let got = rig.replay(&[("T0.trade".to_owned(), chunk.next)], 2000);
    assert_eq!(got[0].offsets, (chunk.next..2000).collect::<Vec<_>>());
}

#[test]
fn more_cursors_than_a_scan_serves_and_more_partitions_than_scans_are_all_served() {
    let rig = Rig::start(5);
    rig.produce(records(0..500, 5));
    let cursors = limits::REPLAY_CURSORS_PER_SCAN + 100;
    for number in 1..5 {
        rig.cluster.produce_one(record(TOPIC, "T0", "1").in_partition(number));
    }
    for number in 1..5 {
        let mut pull = pull(1_000_000 + number as u32, "*", 0);
        pull.partition.number = number;
        rig.sender.pull(0, pull, 1);
    }
    for id in 0..cursors as u32 {
        rig.sender.pull(0, pull(id, "T3.trade", 0), 5);
    }
    for _ in 0..cursors + 4 {
        let (_, chunk) = rig.answer();
        assert_eq!((chunk.frames.len(), chunk.lost), (1, None));
    }
}

/// A measurement to run by hand with `--release --ignored --nocapture`. The mock keeps 5 MB of a partition, so the records
/// are small.
#[test]
#[ignore = "a measurement, not a test"]
fn how_fast_one_scan_reads() {
    const RECORDS: i64 = 60_000;
    let rig = Rig::start(1);
    rig.produce(records(0..RECORDS, 1000));
    for (name, cursors) in [
        ("one wildcard", vec![("*".to_owned(), 0)]),
        ("1000 channels", (0..1000).map(|token| (format!("T{token}.trade"), 0)).collect()),
        ("100 wildcards", vec![("*.trade".to_owned(), 0); 100]),
    ] {
        let read_before = rig.records_read();
        let started_at = Instant::now();
        rig.replay(&cursors, RECORDS);
        let seconds = started_at.elapsed().as_secs_f64();
        let read = rig.records_read() - read_before;
        println!("{name}: {read} records in {seconds:.3} s, {:.0} records/s", read as f64 / seconds);
    }
}
