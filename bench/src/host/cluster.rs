//! The Kafka cluster of a run: librdkafka's mock in this process (the real protocol over loopback), or a real
//! cluster.
//!
//! The mock keeps 5 MB per partition and does not answer a waiting fetch when a record is produced: consumers
//! fetch again after [`FETCH_WAIT_MS`]. Its threads inherit the CPU affinity of the thread that starts it.

use std::time::Duration;

use futures_lite::future::block_on;
use protocol::channel::TOPICS;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaErrorCode;

use super::HostError;

/// Partitions of each topic, as in production.
pub const PARTITIONS: i32 = 12;
/// How long a consumer of the mock waits between two empty fetches. Each fetch costs a server about 0.1 ms of
/// CPU: more frequent fetches would add to the measured cost of deliveries, and with less frequent ones the
/// wait would be most of the latency.
pub const FETCH_WAIT_MS: u32 = 20;
const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A cluster that has the gateway's topics.
pub struct Cluster {
    bootstrap: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Cluster {
    /// Starts a mock with this number of brokers.
    pub fn host(brokers: i32) -> Result<Self, HostError> {
        let because = |what: &str| {
            let what = what.to_owned();
            move |error| HostError::Kafka { what, error }
        };
        let mock = MockCluster::new(brokers).map_err(because("the mock cluster could not be started"))?;
        for topic in TOPICS {
            let what = format!("the mock cluster could not make the topic {topic}");
            mock.create_topic(topic, PARTITIONS, brokers).map_err(because(&what))?;
        }
        Ok(Self { bootstrap: mock.bootstrap_servers(), mock: Some(mock) })
    }

    /// Uses a running cluster; missing topics are created.
    pub fn at(bootstrap: &str) -> Result<Self, HostError> {
        let because =
            |error| HostError::Kafka { what: format!("cannot create topics at {bootstrap}"), error };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("client.id", "odin-bench");
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(because)?;
        let metadata =
            admin.inner().fetch_metadata(None, ADMIN_TIMEOUT).map_err(|error| HostError::Kafka {
                what: format!("{bootstrap} does not answer: give --brokers of a cluster that runs"),
                error,
            })?;
        let is_missing = |name: &&str| metadata.topics().iter().all(|topic| topic.name() != *name);
        let topics: Vec<_> = TOPICS.into_iter().filter(is_missing).collect();
        let topics: Vec<_> =
            topics.iter().map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))).collect();
        if topics.is_empty() {
            return Ok(Self { bootstrap: bootstrap.to_owned(), mock: None });
        }
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        for outcome in block_on(admin.create_topics(&topics, &options)).map_err(because)? {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let what = format!("cannot create the topic {topic} at {bootstrap}");
                    return Err(HostError::Kafka { what, error: KafkaError::AdminOp(code) });
                }
            }
        }
        Ok(Self { bootstrap: bootstrap.to_owned(), mock: None })
    }

    /// The bootstrap address for clients.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether the cluster is the mock, whose consumers have to poll frequently.
    pub fn is_mock(&self) -> bool {
        self.mock.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mock cannot create topics: it does not answer such requests.
    #[test]
    fn a_cluster_that_has_the_topics_is_not_asked_to_create_any() {
        let hosted = Cluster::host(1).expect("a mock cluster");
        let found = Cluster::at(hosted.bootstrap()).expect("the same cluster");
        assert_eq!((found.bootstrap(), found.is_mock()), (hosted.bootstrap(), false));
    }
}
