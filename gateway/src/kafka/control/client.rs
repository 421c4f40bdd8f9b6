//! The configurations of librdkafka: for new records, for the ends of logs, and for replays.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::Kafka;
use crate::limits;

/// For a shard's consumer: latency first.
pub(crate) fn client_config(config: &Kafka) -> ClientConfig {
    with_properties(base_config(config), config)
}

/// For the client that sees the actual ends of logs, open transactions included.
pub(crate) fn observer_config(config: &Kafka) -> ClientConfig {
    let mut client = client_config(config);
    client
        .set("client.id", "odin-gateway-observer")
        .set("isolation.level", "read_uncommitted")
        // It reads only for moments.
        .set("statistics.interval.ms", "0");
    client
}

/// For a consumer that replays one partition: throughput first, and the end of the log is reported. Limits of a broker's response
/// stay as they are, so that configured properties that suit the other consumers suit this one.
pub(crate) fn replay_config(config: &Kafka) -> ClientConfig {
    let mut client = base_config(config);
    client
        .set("client.id", "odin-gateway-replay")
        .set("enable.partition.eof", "true")
        // A question waits behind a fetch at the end of the log.
        .set("fetch.wait.max.ms", "10")
        // As far ahead of the scan as memory allows; the only partition may fill a response.
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "8192")
        .set("max.partition.fetch.bytes", "1048576")
        // The scan itself notices silence.
        .set("statistics.interval.ms", "0");
    with_properties(client, config)
}

/// Each value that is not librdkafka's default has its reason here.
fn base_config(config: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", &config.group_id)
        .set("client.id", "odin-gateway")
        // Clients keep positions; the group keeps none.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The gateway itself handles a position outside the log, with a gap.
        .set("auto.offset.reset", "error")
        // Latency: a fetch returns with its first byte, and a full local queue is checked again soon.
        .set("fetch.min.bytes", "1")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "50")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true")
        // For `passed_offsets`, `stalled_fetchers` and `lag`.
        .set("statistics.interval.ms", limits::KAFKA_STATISTICS_INTERVAL.as_millis().to_string())
        // Memory: limits of what waits in librdkafka, and of a response. A larger record is still delivered (KIP-74).
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.max.bytes", "1048576")
        .set("message.max.bytes", "1000000")
        .set("max.partition.fetch.bytes", "262144");
    client.set("security.protocol", config.security.protocol());
    if let Some(sasl) = config.security.sasl() {
        client
            .set("sasl.mechanism", sasl.mechanism)
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.reveal());
    }
    client
}

/// Configured properties come last, so that they take precedence.
fn with_properties(mut client: ClientConfig, config: &Kafka) -> ClientConfig {
    for property in &config.properties {
        client.set(&property.name, &property.value);
    }
    client
}

/// How often the lag is looked up.
pub(crate) fn look_interval(config: &Kafka) -> Duration {
    if config.lag_max.is_some() { limits::LAG_LOOK_INTERVAL } else { limits::KAFKA_METADATA_INTERVAL }
}

/// Context of [`check_config`]'s consumer, which may try to connect before it is dropped: the control thread reports the brokers'
/// errors.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Silent {}

/// Checks that librdkafka accepts the configuration.
///
/// # Errors
/// librdkafka's sentence about the property that it refuses, without the value of a secret one.
pub fn check_config(config: &Kafka) -> Result<(), String> {
    let Err(error) = client_config(config).create_with_context::<_, BaseConsumer<_>>(Silent) else {
        return Ok(());
    };
    let sentence = match error {
        // Its display contains the property's value.
        KafkaError::ClientConfig(_, sentence, ..) => sentence,
        error => error.to_string(),
    };
    Err(config.properties.iter().fold(sentence, |sentence, property| property.mask_in(&sentence)))
}
