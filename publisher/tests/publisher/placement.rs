//! Tests that keys are assigned the same partitions as by Java's producer (and kafkajs).

use rdkafka::message::Message;

use crate::cluster::{Cluster, PARTITIONS, tokens};

/// The hash of Kafka's Java clients, implemented independently from its definition.
fn murmur2(key: &[u8]) -> i32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    for (i, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)) as i32
}

fn partition_of(key: &[u8]) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % PARTITIONS
}

#[test]
fn the_reference_hash_agrees_with_kafka_s_published_vectors() {
    let vectors = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (key, hash) in vectors {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

#[test]
fn a_token_is_in_the_partition_that_java_would_choose_in_every_topic() {
    let names = ["21", "foobar", "abc", "BTC", "ETH", "SOL", "ODIN", "DOGE", "a", "a.b:c/d-e_f"];
    let cluster = Cluster::start();
    let publisher = cluster.publisher(&[]);
    publisher.start(2_000, tokens(&names)).unwrap();
    crate::cluster::wait_until(&publisher, "2,000 records", |status| status.delivered >= 2_000);
    let status = publisher.stop();
    let records = cluster.read(status.delivered);
    for record in &records {
        let key = record.key().unwrap();
        assert_eq!(record.partition(), partition_of(key), "{:?}", String::from_utf8_lossy(key));
    }
    let mut partitions: Vec<i32> = records.iter().map(Message::partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert!(partitions.len() > 3, "the tokens spread over partitions: {partitions:?}");
}
