//! An open-loop producer: records at an even pace, each stamped with the instant at which it was due.
//!
//! A record's value is `{"timestamp":ms,"seq":n,"pad":"xxx"}`: the millisecond at which it was due, and a
//! count from 1 per token. The schedule does not depend on the cluster: a late producer increases the
//! latencies and does not lower the rate. One thread paces the records and librdkafka's threads send them.
//! The producer waits for room in a full queue and never skips a record: a missing seq is therefore a loss in
//! another component.

mod delivery;
mod pacer;
mod value;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::producer::ThreadedProducer;

use super::HostError;
use super::cluster::PARTITIONS;
use delivery::DeliveryCounter;
use pacer::Pacer;
pub use value::{gateway_value_bytes, payload_bytes_min};

/// The topic of all records.
pub const TOPIC: &str = "odin.trades";
/// The kind of the topic: the part of a channel's name after the dot.
pub const KIND: &str = "trade";
/// How long records wait to share a request: at most 2,000 requests per second, whatever the rate and the
/// number of tokens. More requests would make the generator, or the broker in the same process, the
/// bottleneck.
const LINGER_MS_PER_PARTITION: f64 = 0.5;
/// The records to produce.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Records per second of all tokens together, above zero.
    pub rate_per_s: f64,
    /// The keys, in turn; each is published on the channel `TOKEN.trade`.
    pub tokens: Vec<String>,
    /// The header that names a record's channel, for a server that needs one.
    pub channel_header: Option<&'static str>,
    /// The partition of all records, whatever their key; `None` chooses the partition by key.
    pub partition: Option<i32>,
    /// Length of a value. If it is shorter than the required fields, the value has the minimum length.
    pub value_bytes: usize,
}

/// Counts of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Produced {
    /// Records passed to librdkafka.
    pub sent: u64,
    /// Sent records that Kafka acknowledged.
    pub acknowledged: u64,
    /// Records that Kafka did not accept.
    pub failed: u64,
}

/// Produces until it is stopped or dropped.
pub struct Producer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    /// Records to send at once, in addition to the rate.
    burst_wanted: AtomicU64,
    rate_wanted: Mutex<Option<f64>>,
    complaint: Mutex<Option<String>>,
}

impl Produced {
    /// The sum of the counts of two producers.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acknowledged: self.acknowledged + other.acknowledged,
            failed: self.failed + other.failed,
        }
    }
}

impl Producer {
    /// Connects and starts immediately.
    pub fn start(bootstrap: &str, plan: ProducerPlan) -> Result<Self, HostError> {
        let shared = Arc::new(Shared::default());
        let config = client_config(bootstrap, plan.tokens.len());
        let client = ThreadedProducer::from_config_and_context(&config, DeliveryCounter(Arc::clone(&shared)));
        let client = client
            .map_err(|error| HostError::Kafka { what: format!("cannot produce to {bootstrap}"), error })?;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("producer".to_owned())
            .spawn(move || Pacer::new(plan, client, of_thread).run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes the rate, which must be above zero.
    pub fn set_rate(&self, rate_per_s: f64) {
        *self.shared.rate_wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate_per_s);
    }

    /// Sends this number of records at once, in addition to the rate.
    pub fn burst(&self, records: u64) {
        self.shared.burst_wanted.fetch_add(records, Relaxed);
    }

    /// The counts so far.
    pub fn produced(&self) -> Produced {
        let Shared { sent, acknowledged, failed, .. } = &*self.shared;
        Produced {
            sent: sent.load(Relaxed),
            acknowledged: acknowledged.load(Relaxed),
            failed: failed.load(Relaxed),
        }
    }

    /// The last error of librdkafka.
    pub fn complaint(&self) -> Option<String> {
        self.shared.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, waits for the delivery reports of all records, and returns the counts.
    pub fn stop(mut self) -> Produced {
        self.end();
        self.produced()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; the counts up to it are valid.
            let _ = thread.join();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.end();
    }
}

fn client_config(bootstrap: &str, tokens: usize) -> ClientConfig {
    // librdkafka sends one request for each partition that has records.
    let linger_ms = LINGER_MS_PER_PARTITION * tokens.min(PARTITIONS as usize) as f64;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "odin-bench")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", linger_ms.to_string())
        .set("socket.nagle.disable", "true")
        .set("message.timeout.ms", "30000");
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    use crate::host::cluster::Cluster;
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Headers as _;
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

    /// All produced records, by key: the seq and the timestamp of each.
    fn consume(cluster: &Cluster, until: u64) -> Vec<(String, u64, u64)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap())
            .set("group.id", "test")
            .set("fetch.wait.max.ms", "5")
            .create()
            .expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..12 {
            partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&partitions).expect("an assignment");
        let mut records = Vec::new();
        let began = Instant::now();
        while (records.len() as u64) < until {
            assert!(began.elapsed() < Duration::from_secs(30), "{} of {until} records", records.len());
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            let key = String::from_utf8(message.key().expect("a key").to_vec()).expect("UTF-8");
            let value: serde_json::Value =
                serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
            let header = message.headers().expect("one header").get(0);
            let channel = format!("{key}.{KIND}");
            assert_eq!((header.key, header.value), ("channel", Some(channel.as_bytes())));
            let number = |name: &str| value[name].as_u64().expect("a number");
            records.push((key, number("seq"), number("timestamp")));
        }
        records
    }

    #[test]
    fn records_are_paced_by_their_due_instants_counted_per_token_and_name_their_channel() {
        let cluster = Cluster::host(1).expect("a mock cluster");
        let tokens = vec!["A".to_owned(), "B".to_owned()];
        let plan = ProducerPlan {
            rate_per_s: 400.0,
            tokens,
            partition: None,
            channel_header: Some("channel"),
            value_bytes: 128,
        };
        let producer = Producer::start(cluster.bootstrap(), plan).expect("a producer");
        while producer.produced().acknowledged < 100 {
            thread::sleep(Duration::from_millis(5));
        }
        producer.set_rate(200.0);
        let before = producer.produced().sent;
        while producer.produced().acknowledged < before + 100 {
            thread::sleep(Duration::from_millis(5));
        }
        let produced = producer.stop();
        assert_eq!((produced.acknowledged, produced.failed), (produced.sent, 0));
        let records = consume(&cluster, produced.sent);
        for token in ["A", "B"] {
            let of_token: Vec<_> = records.iter().filter(|(key, ..)| key == token).collect();
            let seqs: Vec<u64> = of_token.iter().map(|(_, seq, _)| *seq).collect();
            assert_eq!(seqs, (1..=of_token.len() as u64).collect::<Vec<_>>(), "{token}");
            // 400/s over two tokens: 5 ms between two records of a token by their timestamps, however late
            // they were sent.
            let (first, later) = (of_token[0].2, of_token[40].2);
            assert_eq!((later - first).div_ceil(10), 20, "{first} to {later}");
        }
        let last_two: Vec<_> = records.iter().filter(|(key, ..)| key == "A").rev().take(2).collect();
        assert!((9..=11).contains(&(last_two[0].2 - last_two[1].2)), "{last_two:?}");
    }
}
