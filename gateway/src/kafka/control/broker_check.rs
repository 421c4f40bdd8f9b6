//! Checks whether the brokers answer, have the topics and let the gateway read them; once, for `--check`.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::client;
use super::cluster::Cluster;
use super::context::{Context, NativeConsumer};
use crate::config::Kafka;
use crate::kafka::status::SharedStatus;

/// Interval and number of polls for an error of a connection: two seconds in all, for two consumers.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const POLLS_MAX: u32 = 10;

/// Problems of the brokers or of the configured topics, in sentences. Blocks until the brokers answer, and up to 5 s per question
/// if they do not.
pub fn check_brokers(config: &Kafka) -> Vec<String> {
    let status = Arc::new(SharedStatus::default());
    let (requests, _inbox) = channel();
    let consumer = |config: rdkafka::ClientConfig| {
        let context = Context::new(None, Arc::clone(&status), requests.clone(), Arc::default());
        config.create_with_context::<_, NativeConsumer>(context)
    };
    let clients = consumer(client::client_config(config))
        .and_then(|asker| Ok((asker, consumer(client::observer_config(config))?)));
    let (asker, observer) = match clients {
        Ok(clients) => clients,
        Err(error) => return vec![format!("no Kafka consumer could be made: {error}")],
    };
    let mut cluster = Cluster::new(asker, observer, config.clone(), Duration::ZERO);
    // The errors of connections wait in the consumers' queues.
    let because = |cluster: &Cluster, fallback: String| {
        for _ in 0..POLLS_MAX {
            if let Some(reason) = status.read().error {
                return reason;
            }
            cluster.poll_errors(POLL_TIMEOUT);
        }
        fallback
    };
    if let Err(error) = cluster.refresh() {
        return vec![format!("Kafka cannot be reached: {}", because(&cluster, error.to_string()))];
    }
    let mut problems = Vec::new();
    let missing = cluster.missing_topics();
    if !missing.is_empty() {
        problems.push(format!(
            "Kafka does not have the topics {}: create them or correct KAFKA_TOPICS",
            missing.join(", ")
        ));
    }
    let forbidden: Vec<&str> =
        cluster.forbidden.iter().map(|&topic| config.topics[topic].name.as_str()).collect();
    if !forbidden.is_empty() {
        problems.push(format!(
            "the gateway may not read the topics {}: its user lacks the ACL READ",
            forbidden.join(", ")
        ));
    }
    problems.extend(cluster.layout.trouble.clone());
    // The brokers that lead partitions are asked at the addresses that they advertise.
    let led = cluster.layout.leaders.keys().copied();
    let led: Vec<_> = led.filter(|partition| !cluster.forbidden.contains(&partition.topic)).collect();
    let unanswered = led.len() - cluster.ends_of(led.iter().copied()).len();
    if unanswered > 0 {
        let reason = because(&cluster, "their brokers do not answer".to_owned());
        problems.push(format!("{unanswered} of {} partitions cannot be read: {reason}", led.len()));
    }
    problems
}
