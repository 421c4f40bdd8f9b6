//! Limits of reading Kafka.

use std::time::Duration;

/// Interval of looks at the cluster's topics and partitions: how soon a new partition is read.
pub const KAFKA_METADATA_INTERVAL: Duration = Duration::from_secs(10);
/// Interval of librdkafka's statistics: how soon the gateway notices that a log ends in offsets without a record.
pub const KAFKA_STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of looks at the ends of partitions with WS_MAX_LAG: the precision of the lag.
pub const LAG_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A partition is stuck if its log grows for this long while its fetch position stands still. Time in which records wait for the
/// shard does not count.
pub const KAFKA_STUCK_AFTER: Duration = Duration::from_secs(20);
/// Ends of one partition that are kept to tell how long its oldest undelivered record has waited: a minute of looks.
pub const LAG_ENDS_MAX: usize = 64;
/// Timeout of a blocking call to the brokers (metadata, watermarks); then the call has failed and is repeated.
pub const KAFKA_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of readings while Kafka is paused for CPU: every event waits for the end of the pause, and the idle CPU that the
/// pause causes shows at once. With two readings of 100 ms, a single pause in ten seconds already showed in the p99 of all
/// clients.
pub const PAUSED_READING_INTERVAL: Duration = Duration::from_millis(25);
/// Number of such readings (30 s) after which a pause ends whatever the CPU: a neighbour that keeps the CPU must not keep every
/// event from every client, and librdkafka's statistics (some 100 KiB each) wait in its queue meanwhile.
pub const KAFKA_PAUSE_READINGS_MAX: u32 = 1200;
/// Minimum duration of a pause for WS_MAX_KAFKA_RATE: tokens accumulate, so that a high rate does not wake the shard for each
/// record.
pub const KAFKA_RATE_PAUSE_LEAST: Duration = Duration::from_millis(5);
/// The burst of WS_MAX_KAFKA_RATE, as time at that rate: small, so that a limited rate is an even flow.
pub const KAFKA_RATE_BURST: Duration = Duration::from_millis(100);
/// Addresses in KAFKA_BROKERS; librdkafka learns the others from any of them.
pub const BROKERS_MAX: usize = 64;
/// Topics in KAFKA_TOPICS, hence kinds.
pub const TOPICS_MAX: usize = 64;
/// Entries of KAFKA_PROPERTIES; librdkafka knows about 150.
pub const PROPERTIES_MAX: usize = 128;
/// Kafka's limit for the length of a topic's name.
pub const TOPIC_NAME_BYTES: usize = 249;
/// How far back KAFKA_START reaches.
pub const START_AGO_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
