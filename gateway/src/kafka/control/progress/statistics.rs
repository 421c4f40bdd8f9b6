//! The fetch positions in librdkafka's statistics.
//!
//! Pure: librdkafka's JSON in.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::stalled_fetchers::Offsets;
use crate::config::Kafka;
use crate::event::partition::Partition;

/// One report of a shard's consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// When librdkafka wrote it: microseconds of the monotonic clock.
    pub(crate) at_us: i64,
    pub(crate) fetchers: BTreeMap<Partition, Fetcher>,
}

/// How far a partition is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetcher {
    /// Where the next fetch begins, control records counted.
    pub(crate) next: i64,
    /// No record waits for the shard. All partitions share one queue, and librdkafka counts that.
    pub(crate) is_empty: bool,
    /// librdkafka fetches the partition, or is about to.
    pub(crate) is_active: bool,
    /// The broker from which it is fetched.
    pub(crate) broker: i32,
    /// Fetches sent to that broker so far, for any partition.
    pub(crate) fetches: u64,
}

impl Statistics {
    /// Parses a report for the configured partitions; `None` if it is not valid.
    pub(crate) fn parse(config: &Kafka, json: &[u8]) -> Option<Self> {
        let report: Report<'_> = serde_json::from_slice(json).ok()?;
        let mut fetches: BTreeMap<i32, u64> = BTreeMap::new();
        for broker in report.brokers.values() {
            *fetches.entry(broker.nodeid).or_default() += broker.req.fetch;
        }
        let mut fetchers = BTreeMap::new();
        for (topic, configured) in config.topics.iter().enumerate() {
            let Some(of_topic) = report.topics.get(configured.name.as_str()) else { continue };
            for (number, state) in &of_topic.partitions {
                // librdkafka's internal partition -1 is skipped.
                let Some(number) = number.parse().ok().filter(|number: &i32| *number >= 0) else { continue };
                let fetcher = Fetcher {
                    next: state.next_offset,
                    is_empty: state.fetchq_cnt == 0,
                    is_active: state.fetch_state == "active",
                    broker: state.broker,
                    fetches: fetches.get(&state.broker).copied().unwrap_or_default(),
                };
                fetchers.insert(Partition { topic, number }, fetcher);
            }
        }
        Some(Self { at_us: report.ts, fetchers })
    }

    /// The next fetch offset of each partition, unless records wait for the shard, because librdkafka may then hold fetches back.
    pub(crate) fn next_fetches(&self) -> Offsets {
        let taken = self.fetchers.iter().filter(|(_, fetcher)| fetcher.is_empty);
        taken.map(|(&partition, fetcher)| (partition, fetcher.next)).collect()
    }
}

#[derive(Deserialize)]
struct Report<'a> {
    ts: i64,
    #[serde(borrow)]
    brokers: BTreeMap<&'a str, BrokerReport>,
    #[serde(borrow)]
    topics: BTreeMap<&'a str, TopicReport<'a>>,
}

#[derive(Deserialize)]
struct BrokerReport {
    nodeid: i32,
    req: RequestCounts,
}

#[derive(Deserialize)]
struct RequestCounts {
    #[serde(rename = "Fetch", default)]
    fetch: u64,
}

#[derive(Deserialize)]
struct TopicReport<'a> {
    #[serde(borrow)]
    partitions: BTreeMap<&'a str, PartitionReport<'a>>,
}

#[derive(Deserialize)]
struct PartitionReport<'a> {
    broker: i32,
    /// Records that wait for the shard, those of its other partitions included.
    fetchq_cnt: u64,
    fetch_state: &'a str,
    next_offset: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::control::rig::kafka;

    #[test]
    fn a_report_tells_of_configured_partitions_and_of_the_fetches_of_their_brokers() {
        let partitions = r#"{"-1":{"broker":-1,"fetchq_cnt":0,"fetch_state":"none","next_offset":0},
            "2":{"broker":7,"fetchq_cnt":4,"fetch_state":"active","next_offset":9},
            "3":{"broker":8,"fetchq_cnt":0,"fetch_state":"stopped","next_offset":7,"state":"x"}}"#;
        let brokers =
            r#"{"a:1/7":{"nodeid":7,"req":{"Fetch":5,"Metadata":1}},"b:1/bootstrap":{"nodeid":-1,"req":{}}}"#;
        let json = format!(
            r#"{{"name":"x","ts":12,"brokers":{brokers},"topics":{{"other":{{"partitions":{{}}}},"odin.trades":{{"partitions":{partitions}}}}}}}"#
        );
        let config = kafka("127.0.0.1:1");
        let statistics = Statistics::parse(&config, json.as_bytes()).expect("a report");
        let at = |number| Partition { topic: 0, number };
        let busy = Fetcher { next: 9, is_empty: false, is_active: true, broker: 7, fetches: 5 };
        let idle = Fetcher { next: 7, is_empty: true, is_active: false, broker: 8, fetches: 0 };
        let fetchers = BTreeMap::from([(at(2), busy), (at(3), idle)]);
        assert_eq!(statistics, Statistics { at_us: 12, fetchers });
        assert_eq!(statistics.next_fetches(), Offsets::from([(at(3), 7)]));
        assert_eq!(Statistics::parse(&config, b"{"), None);
    }
}
