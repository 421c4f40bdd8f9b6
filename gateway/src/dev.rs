//! `--dev`: a broker inside the process and simulated events, so that one command shows the gateway at work.
//!
//! The broker is librdkafka's mock cluster: the real Kafka protocol over loopback, 3 brokers, the configured topics with 12
//! partitions. It keeps 5 MB per partition, cannot look offsets up by time, and does not wake a waiting fetch when a record
//! is produced: the consumer fetches again every 50 ms, so an event is up to 50 ms late. Measurements host it elsewhere.

use anyhow::Context;
use publisher::{Publisher, producer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::{Config, Property};

/// Brokers of the mock cluster.
const BROKERS: i32 = 3;
/// Partitions of each topic, as in production.
const PARTITIONS: i32 = 12;
/// Milliseconds between two fetches of an idle partition. Each costs CPU: with 5 ms an idle gateway used an eighth of a core.
const FETCH_WAIT_MS: &str = "50";
/// Tokens of the simulated events.
pub(crate) const TOKENS: [&str; 8] = ["BTC", "ETH", "SOL", "ODIN", "DOGE", "PEPE", "BONK", "WIF"];

/// The embedded broker and the simulation; both end when it is dropped.
pub(crate) struct Dev {
    // The publisher is dropped first, because it flushes to the broker.
    publisher: Option<Publisher>,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Dev {
    /// Starts the broker and sets its address in the configuration. [`Dev::simulate`] publishes events.
    ///
    /// # Errors
    /// librdkafka cannot make the cluster or a topic.
    pub(crate) fn start(config: &mut Config) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(BROKERS).context("the embedded broker could not be started")?;
        for topic in &config.kafka.topics {
            cluster
                .create_topic(&topic.name, PARTITIONS, BROKERS)
                .with_context(|| format!("the embedded broker could not make the topic {}", topic.name))?;
        }
        config.kafka.brokers = cluster.bootstrap_servers().split(',').map(str::to_owned).collect();
        let wait = Property { name: "fetch.wait.max.ms".into(), value: FETCH_WAIT_MS.into() };
        config.kafka.properties.insert(0, wait);
        Ok(Self { publisher: None, cluster })
    }

    /// The broker's addresses, for other programs that produce.
    pub(crate) fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Publishes `rate` events/s of [`TOKENS`] from now on; 0 publishes none.
    ///
    /// # Errors
    /// The publisher cannot be set up.
    pub(crate) fn simulate(&mut self, rate: u32) -> anyhow::Result<()> {
        if rate > 0 {
            let config = producer::client_config(&self.brokers(), &[]);
            let publisher = Publisher::connect(&config, u64::from(std::process::id()))?;
            publisher.start(rate, TOKENS.map(String::from).to_vec())?;
            self.publisher = Some(publisher);
        }
        Ok(())
    }
}
