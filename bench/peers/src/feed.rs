//! Reads Kafka: every partition of one topic from its end on, each record encoded once in the gateway's
//! envelope.

use std::time::Duration;

use protocol::{Position, kind_of_topic, token_is_valid, write_event};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::arguments::Arguments;
use crate::channels::Channels;

const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// A consumer with a manual assignment of all partitions and without a group, as in the gateway. Blocks until
/// the brokers answer.
pub fn connect(arguments: &Arguments) -> Result<StreamConsumer, KafkaError> {
    let mut config = ClientConfig::new();
    // The gateway's settings: records are passed on as soon as they arrive.
    config
        .set("bootstrap.servers", &arguments.brokers)
        .set("group.id", "odin-bench-peer")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.min.bytes", "1")
        .set("fetch.queue.backoff.ms", "5")
        .set("socket.nagle.disable", "true");
    for (name, value) in &arguments.kafka_property {
        config.set(name, value);
    }
    let consumer: StreamConsumer = config.create()?;
    let topic = &arguments.topic;
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT)?;
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), BROKER_TIMEOUT)?;
        assignment.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
    }
    if assignment.count() == 0 {
        return Err(KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

/// Publishes records until the consumer fails. A record without a usable key, or with a value that is not
/// UTF-8, is skipped.
pub async fn run(consumer: StreamConsumer, channels: &Channels) -> KafkaError {
    let mut channel = String::new();
    loop {
        let record = match consumer.recv().await {
            Ok(record) => record,
            // librdkafka reconnects by itself.
            Err(KafkaError::MessageConsumption(error)) if is_passing(error) => continue,
            Err(error) => return error,
        };
        let Some(token) = record.key().filter(|key| token_is_valid(key)) else { continue };
        let token = str::from_utf8(token).expect("a valid token is UTF-8");
        let kind = kind_of_topic(record.topic());
        channel.clear();
        channel.extend([token, ".", kind]);
        let position = Position { partition: record.partition(), offset: record.offset() };
        let timestamp_ms = record.timestamp().to_millis().unwrap_or_default();
        let _not_utf8 = channels.publish(&channel, || {
            let mut event = Vec::with_capacity(record.payload_len() + protocol::envelope::ENVELOPE_BYTES_MAX);
            write_event(&mut event, position, timestamp_ms, token, kind, record.payload())?;
            Ok::<_, protocol::EnvelopeError>(Utf8Bytes::try_from(event).expect("an event is UTF-8"))
        });
        // A backlog must not keep the sessions from sending.
        tokio::task::coop::consume_budget().await;
    }
}

fn is_passing(error: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error, AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
}
