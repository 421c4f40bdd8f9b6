//! An open-loop producer: records at an even pace, each stamped with the instant it was due.
//!
//! A record's value is `{"timestamp":ms,"seq":n,"pad":"xxx"}`: the millisecond it was due, and a count from 1 per token. The
//! schedule waits for nobody; a producer that is late makes latencies larger and the rate no lower. One thread paces, and
//! librdkafka's send. A full queue is waited out, never skipped: a seq that is missing is a loss of somebody else.

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

/// The topic of all that is produced.
pub const TOPIC: &str = "odin.trades";
/// Its kind: the part of a channel after the dot.
pub const KIND: &str = "trade";
/// How long records wait to share a request: 2,000 requests a second at most, whatever the rate and the number of tokens. More of them
/// would make the generator, or the broker beside it, the busy side.
const LINGER_MS_PER_PARTITION: f64 = 0.5;
/// What is produced.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Records per second of all tokens together, above zero.
    pub rate_per_s: f64,
    /// The keys, in turn; each is a channel `TOKEN.trade`.
    pub tokens: Vec<String>,
    /// The header that names a record's channel, for a server that needs one.
    pub channel_header: Option<&'static str>,
    /// Where all records go, whatever their key; `None` leaves it to the key.
    pub partition: Option<i32>,
    /// Length of a value. Shorter than what has to be in it, the value is as short as can be.
    pub value_bytes: usize,
}

/// What became of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Produced {
    /// Records handed to librdkafka.
    pub sent: u64,
    /// Of these, those that Kafka acknowledged.
    pub acknowledged: u64,
    /// Those that it did not take.
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
    /// Records to be sent at once, besides the rate.
    burst_wanted: AtomicU64,
    rate_wanted: Mutex<Option<f64>>,
    complaint: Mutex<Option<String>>,
}

impl Produced {
    /// Of two producers.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acknowledged: self.acknowledged + other.acknowledged,
            failed: self.failed + other.failed,
        }
    }
}

impl Producer {
    /// Connects and begins at once.
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

    /// Goes on at this rate, above zero, from now on.
    pub fn set_rate(&self, rate_per_s: f64) {
        *self.shared.rate_wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate_per_s);
    }

    /// So many records at once, besides the rate.
    pub fn burst(&self, records: u64) {
        self.shared.burst_wanted.fetch_add(records, Relaxed);
    }

    /// What became of the records so far.
    pub fn produced(&self) -> Produced {
        let Shared { sent, acknowledged, failed, .. } = &*self.shared;
        Produced {
            sent: sent.load(Relaxed),
            acknowledged: acknowledged.load(Relaxed),
            failed: failed.load(Relaxed),
        }
    }

    /// What librdkafka last complained about.
    pub fn complaint(&self) -> Option<String> {
        self.shared.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, waits until every record has its fate, and tells it.
    pub fn stop(mut self) -> Produced {
        self.end();
        self.produced()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed; what it produced is counted.
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
    // librdkafka makes a request of each partition that has something to send.
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

    /// Everything that was produced, by key: the seq and the timestamp of each record.
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
            // 400/s over two tokens: 5 ms between two records of one, by their stamps, however late they were sent.
            let (first, later) = (of_token[0].2, of_token[40].2);
            assert_eq!((later - first).div_ceil(10), 20, "{first} to {later}");
        }
        let last_two: Vec<_> = records.iter().filter(|(key, ..)| key == "A").rev().take(2).collect();
        assert!((9..=11).contains(&(last_two[0].2 - last_two[1].2)), "{last_two:?}");
    }
}
