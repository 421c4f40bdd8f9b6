//! Every session gets exactly what it subscribed to, whatever codec the producers use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::thread;

use protocol::{Position, kind_of_topic};

use crate::harness::{Brokers, Event, FENCES, Launch, Producer, Record, Session, TOPICS, eventually, random};

const RECORDS: usize = 100_000;
const TOKENS: usize = 500;
const SESSIONS: usize = 200;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Produced at a time; the next ones follow when a session that takes all has got these, so that no outbox overflows on a
/// machine however slow.
const WAVE: usize = 5_000;

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn every_session_gets_exactly_what_it_subscribed_to() {
    let mut random = random();
    let brokers = Brokers::of_the_script();
    let gateway =
        Launch::new(&brokers).env("WS_OUTBOX_FRAMES", "65536").env("WS_OUTBOX_BYTES", "256MiB").start_ready();
    let mut records = random_records(&mut random);
    let sessions: Vec<Session> = (0..SESSIONS)
        .map(|index| {
            let patterns = random_patterns(&mut random, index);
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            Session::subscribe(&gateway, &patterns)
        })
        .collect();
    let received = sessions[0].received();
    let readers: Vec<_> = sessions.into_iter().map(|session| session.read_to_fences(FENCES)).collect();

    let mut positions = produce(&brokers, &records, |so_far| {
        eventually("a session has got all so far", || {
            (received.load(Ordering::Relaxed) == so_far).then_some(())
        });
    });
    positions.extend(Producer::new(&brokers, "none").fence(&mut records));
    assert_eq!(positions.len(), RECORDS + FENCES, "each record is acknowledged once");

    let mut deliveries = 0;
    for (index, reader) in readers.into_iter().enumerate() {
        let (session, mut log) = reader.join().unwrap();
        assert_eq!(log.gaps, []);
        log.assert_in_order(&records);
        deliveries += log.count();
        // In order they are, so sorted they are the same.
        log.events.values_mut().for_each(|events| events.sort_unstable());
        let expected = expected(&session, &records, &positions);
        assert_eq!(
            log.events.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "session {index}"
        );
        for (kind, expected) in &expected {
            let got = &log.events[kind];
            let first = (0..).find(|&at| got.get(at) != expected.get(at) || at >= expected.len()).unwrap();
            assert!(
                got == expected,
                "session {index}, {kind}: event {first} is {:?} instead of {:?}",
                got.get(first),
                expected.get(first)
            );
        }
    }
    println!("{RECORDS} records, {deliveries} deliveries to {SESSIONS} sessions");
    assert!(deliveries > 10 * RECORDS, "the subscriptions hardly overlap");
}

/// Tokens and kinds by chance; `seq` counts up by one per channel.
fn random_records(random: &mut fastrand::Rng) -> Vec<Record> {
    let mut seqs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let records = (0..RECORDS).map(|id| {
        let (topic, token) = (random.usize(..TOPICS.len()), random.usize(..TOKENS));
        let seq = seqs.entry((topic, token)).or_default();
        *seq += 1;
        Record::new(id, TOPICS[topic], &token_name(token), *seq)
    });
    records.collect()
}

fn token_name(token: usize) -> String {
    format!("T{token}")
}

/// Ten sessions take all; of the others each has a few channels and some have wildcards, which overlap.
fn random_patterns(random: &mut fastrand::Rng, index: usize) -> BTreeSet<String> {
    let mut patterns = BTreeSet::new();
    if index < 10 {
        patterns.insert("*".to_owned());
    }
    if index < 60 {
        patterns.insert(format!("*.{}", kind_of_topic(TOPICS[random.usize(..TOPICS.len())])));
    }
    for _ in 0..random.usize(1..40) {
        let token = token_name(random.usize(..TOKENS));
        patterns.insert(match random.u8(..4) {
            0 => format!("{token}.*"),
            _ => format!("{token}.{}", kind_of_topic(TOPICS[random.usize(..TOPICS.len())])),
        });
    }
    patterns
}

/// One producer per codec, and one codec per token: so the order of each channel is that of its records.
fn produce(brokers: &Brokers, records: &[Record], await_wave: impl Fn(usize)) -> Vec<(usize, Position)> {
    let producers = CODECS.map(|codec| Producer::new(brokers, codec));
    let codec_of = |record: &Record| record.token[1..].parse::<usize>().unwrap() % CODECS.len();
    let mut positions = Vec::with_capacity(records.len());
    for (number, wave) in records.chunks(WAVE).enumerate() {
        let acked = thread::scope(|scope| {
            let acked: Vec<_> = producers
                .iter()
                .enumerate()
                .map(|(codec, producer)| {
                    scope.spawn(move || {
                        wave.iter()
                            .filter(|record| codec_of(record) == codec)
                            .for_each(|record| producer.send(record));
                        producer.acked()
                    })
                })
                .collect();
            acked.into_iter().flat_map(|acked| acked.join().unwrap()).collect::<Vec<_>>()
        });
        positions.extend(acked);
        await_wave(number * WAVE + wave.len());
    }
    positions
}

fn expected(
    session: &Session,
    records: &[Record],
    positions: &[(usize, Position)],
) -> BTreeMap<String, Vec<Event>> {
    let mut expected: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for &(id, position) in positions {
        let record = &records[id];
        if record.is_fence() || session.selects(record) {
            let events = expected.entry(record.kind().to_owned()).or_default();
            events.push(Event { position, id, seq: record.seq });
        }
    }
    expected.values_mut().for_each(|events| events.sort_unstable());
    expected
}
