//! A consumer that reads one partition at a time, from a given offset.
//!
//! It belongs to a replay thread; every call may block. It keeps its connections from one pass to the next.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use topic_ids::TopicId;
use tracing::debug;

use super::waiting_cursor::Extent;
use crate::config::Kafka;
use crate::event::frame::Record;
use crate::event::partition::Partition;
use crate::kafka::control::{answering, replay_config};
use crate::kafka::polled::Ignored;
use crate::kafka::record;
use crate::limits;

/// A consumer and the partition that it reads.
pub(crate) struct Reader {
    native: BaseConsumer<QuietContext>,
}

/// The result of a read.
pub(crate) enum Read<'a> {
    /// A record of the partition.
    Record(FetchedRecord<'a>),
    /// The end of the log, for now.
    End,
    /// The brokers do not have the next offset.
    Refused,
    /// Nothing arrived in time.
    Nothing,
}

/// Why a partition cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// A call failed, in librdkafka's words.
    #[error("{0}")]
    Call(String),
    /// The brokers do not have the next offset.
    #[error("the brokers do not hold the next offset any more")]
    Refused,
    /// The topic's id is not the known one: its records are not those that were asked for.
    #[error("the topic was deleted and created again")]
    Recreated,
    /// The log has more, but no record arrives.
    #[error("nothing comes, though the log has more")]
    Silence,
}

impl From<KafkaError> for ReadError {
    fn from(error: KafkaError) -> Self {
        Self::Call(error.to_string())
    }
}

/// A record, in librdkafka's memory.
pub(crate) struct FetchedRecord<'a>(BorrowedMessage<'a>);

impl Reader {
    /// Without connections.
    pub(crate) fn new(config: &Kafka) -> Result<Self, ReadError> {
        Ok(Self { native: replay_config(config).create_with_context(QuietContext)? })
    }

    /// The offsets that the partition's leader has.
    pub(crate) fn extent(&self, topic: &str, number: i32) -> Result<Extent, ReadError> {
        let (low, high) = self.native.fetch_watermarks(topic, number, limits::KAFKA_CALL_TIMEOUT)?;
        Ok(Extent { low, high })
    }

    /// The first offset whose record is not older than this time; `None` if there is none.
    pub(crate) fn first_since(
        &self,
        topic: &str,
        number: i32,
        since_ms: i64,
    ) -> Result<Option<i64>, ReadError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, number, Offset::Offset(since_ms))?;
        let answer = self.native.offsets_for_times(list, limits::KAFKA_CALL_TIMEOUT)?;
        let Some(found) = answer.find_partition(topic, number) else {
            return Err(ReadError::Call("the brokers did not answer for the partition".to_owned()));
        };
        found.error()?;
        Ok(if let Offset::Offset(offset) = found.offset() { Some(offset) } else { None })
    }

    /// The topic's present id; `None` if the brokers give none.
    pub(crate) fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, ReadError> {
        let metadata = self.native.fetch_metadata(Some(topic), limits::KAFKA_CALL_TIMEOUT)?;
        let Some(broker) = answering(&metadata) else { return Ok(None) };
        let answer = topic_ids::describe(self.native.client(), broker, &[topic], limits::KAFKA_CALL_TIMEOUT);
        let topics = answer.map_err(|error| ReadError::Call(error.to_string()))?;
        Ok(topics.first().and_then(|topic| topic.id))
    }

    /// Begins to read this partition, and no other, from this offset on.
    pub(crate) fn begin(&self, topic: &str, number: i32, offset: i64) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, number, Offset::Offset(offset))?;
        self.native.unassign()?;
        Ok(self.native.assign(&list)?)
    }

    /// Stops reading.
    pub(crate) fn end(&self) {
        if let Err(error) = self.native.unassign() {
            debug!(%error, "a replayed partition could not be unassigned; the next assignment replaces it");
        }
    }

    /// Reads the next record.
    pub(crate) fn read(&self, timeout: Duration) -> Read<'_> {
        match self.native.poll(timeout) {
            Some(Ok(message)) => Read::Record(FetchedRecord(message)),
            Some(Err(KafkaError::PartitionEOF(_))) => Read::End,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => Read::Refused,
            // librdkafka retries; if that fails, the scan notices that no record arrives.
            Some(Err(error)) => {
                debug!(%error, "a replay waits");
                Read::Nothing
            }
            None => Read::Nothing,
        }
    }
}

impl FetchedRecord<'_> {
    /// Its offset.
    pub(crate) fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Its contents.
    pub(crate) fn record<'a>(&'a self, kind: &'a str, partition: Partition) -> Result<Record<'a>, Ignored> {
        record::record(&self.0, kind, partition)
    }

    /// Whether it is of this partition.
    pub(crate) fn is_of(&self, topic: &str, number: i32) -> bool {
        self.0.partition() == number && self.0.topic() == topic
    }
}

/// Reports nothing: the shards' consumers already report the brokers' errors to the operator.
struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, detail = message, "librdkafka, for a replay");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, detail = reason, "Kafka, for a replay");
    }
}

impl ConsumerContext for QuietContext {}

#[cfg(test)]
#[path = "tests/reader.rs"]
mod tests;
