//! Limits of reading Kafka.

use std::time::Duration;

/// Between two looks at the cluster's topics and partitions: how soon a new partition is read.
pub const KAFKA_METADATA_INTERVAL: Duration = Duration::from_secs(10);
/// Between two reports of librdkafka on its fetching: how soon it is seen that a log ends in what is no record.
pub const KAFKA_STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at the ends of partitions with WS_MAX_LAG: how exact it is.
pub const LAG_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A partition is stuck whose log goes on for this long while its fetching does not. While records wait for the shard is no such time.
pub const KAFKA_STUCK_AFTER: Duration = Duration::from_secs(20);
/// Ends of one partition that are remembered to tell how long its oldest undelivered record waits: a minute's looks.
pub const LAG_ENDS_MAX: usize = 64;
/// One blocking call to the brokers (metadata, watermarks); after it the call counts as failed and is tried again.
pub const KAFKA_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two readings while Kafka is paused for CPU: every event waits for the end of the pause, and the idle CPU that it brings
/// shows at once. With two readings of 100 ms a single pause in ten seconds already showed in the p99 of all clients.
pub const PAUSED_READING_INTERVAL: Duration = Duration::from_millis(25);
/// Such readings (30 s) after which a pause ends whatever the CPU says: a neighbour that takes the CPU for good must not
/// keep every event from every client, and what librdkafka tells meanwhile (statistics, some 100 KiB each) waits in its queue.
pub const KAFKA_PAUSE_READINGS_MAX: u32 = 1200;
/// How long a pause for WS_MAX_KAFKA_RATE lasts at least: tokens gather, so that a high rate wakes nobody for each record.
pub const KAFKA_RATE_PAUSE_LEAST: Duration = Duration::from_millis(5);
/// The burst of WS_MAX_KAFKA_RATE, as time at that rate: a bound that is set is felt as an even flow.
pub const KAFKA_RATE_BURST: Duration = Duration::from_millis(100);
/// Addresses in KAFKA_BROKERS; librdkafka learns the others from any of them.
pub const BROKERS_MAX: usize = 64;
/// Topics in KAFKA_TOPICS, hence kinds.
pub const TOPICS_MAX: usize = 64;
/// Entries of KAFKA_PROPERTIES; librdkafka knows about 150.
pub const PROPERTIES_MAX: usize = 128;
/// Kafka's own bound on the length of a topic's name.
pub const TOPIC_NAME_BYTES: usize = 249;
/// How far back KAFKA_START reaches.
pub const START_AGO_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
