//! Parses a metrics page (the Prometheus text format): the few metrics of the gateway that a run reports.
//! Pure.
//!
//! Values of all shards are summed; the flush window is the widest of all shards. A page without these
//! metrics is not an error.

use serde::Serialize;

use crate::client::refusal::CPU_OVERLOAD;

/// Counts of a server since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// The current flush window, in seconds.
    pub flush_window_s: Option<f64>,
    /// Event frames per send.
    pub frames_per_send: Buckets,
    /// From the poll of a record to its frame in a socket, in seconds.
    pub latency_from_poll: Buckets,
    /// From the timestamp of a record to its frame in a socket, in seconds.
    pub latency_from_record: Buckets,
    /// Completed handshakes.
    pub sessions_opened: u64,
    /// Whether the server refuses new sessions for lack of CPU or memory; `None` if the server does not
    /// report it.
    pub is_overloaded: Option<bool>,
    /// Current number of sessions; `None` if the server does not report it.
    pub sessions_active: Option<u64>,
    /// Connections refused by the connection rate limit.
    pub connections_rate_limited: u64,
    /// X-Forwarded-For headers from peers that are not trusted proxies.
    pub forwarded_headers_ignored: u64,
    /// Counts of slow sessions, of replays and of overload.
    pub counters: Counters,
}

/// Counts of a server; counts that the server does not report are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct Counters {
    pub slow_clients_disconnected: u64,
    pub slow_consumer_gaps: u64,
    pub frames_queued: u64,
    pub frames_sent: u64,
    pub frames_discarded: u64,
    pub frames_conflated: u64,
    pub replay_records: u64,
    pub sessions_refused_for_cpu: u64,
    pub kafka_pauses: u64,
}

/// A histogram with cumulative buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds with cumulative counts, ascending; the last bound is infinite.
    cumulative: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Exposition {
    /// Parses the known metrics and skips the others.
    pub fn parse(page: &str) -> Self {
        let mut found = Self::default();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        for (name, labels, value) in lines.filter_map(sample) {
            match name {
                "ws_flush_window_seconds" => {
                    found.flush_window_s = Some(found.flush_window_s.unwrap_or(0.0).max(value));
                }
                "ws_connections_total" => found.sessions_opened += value as u64,
                "ws_connection_rate_limited_total" => found.connections_rate_limited += value as u64,
                "ws_forwarded_headers_ignored_total" => found.forwarded_headers_ignored += value as u64,
                "ws_connections_active" => {
                    found.sessions_active = Some(found.sessions_active.unwrap_or(0) + value as u64);
                }
                "ws_overloaded" => found.is_overloaded = Some(value != 0.0),
                _ if found.counters.take(name, labels, value as u64) => {}
                _ => found.take_histogram(name, labels, value),
            }
        }
        found
    }

    fn take_histogram(&mut self, name: &str, labels: &str, value: f64) {
        let Some((metric, part)) = name.rsplit_once('_') else { return };
        let buckets = match (metric, label(labels, "from")) {
            ("ws_frames_per_send", _) => &mut self.frames_per_send,
            ("ws_delivery_latency_seconds", Some("poll")) => &mut self.latency_from_poll,
            ("ws_delivery_latency_seconds", Some("record")) => &mut self.latency_from_record,
            _ => return,
        };
        match part {
            "sum" => buckets.sum += value,
            "count" => buckets.count += value,
            "bucket" => {
                let Some(bound) = label(labels, "le").and_then(|bound| bound.parse().ok()) else { return };
                buckets.add(bound, value);
            }
            _ => {}
        }
    }
}

impl Counters {
    /// Adds the value if it is one of these counters; returns whether it is.
    fn take(&mut self, name: &str, labels: &str, value: u64) -> bool {
        let counter = match name {
            "ws_slow_clients_disconnected_total" => &mut self.slow_clients_disconnected,
            "ws_gaps_total" if label(labels, "reason") == Some("slow_consumer") => {
                &mut self.slow_consumer_gaps
            }
            "ws_frames_queued_total" => &mut self.frames_queued,
            "ws_frames_sent_total" => &mut self.frames_sent,
            "ws_frames_discarded_total" => &mut self.frames_discarded,
            "ws_frames_conflated_total" => &mut self.frames_conflated,
            "ws_replay_records_total" => &mut self.replay_records,
            "ws_capacity_rejections_total" if label(labels, "reason") == Some(CPU_OVERLOAD) => {
                &mut self.sessions_refused_for_cpu
            }
            "ws_kafka_pauses_total" => &mut self.kafka_pauses,
            _ => return false,
        };
        *counter += value;
        true
    }

    /// The counts since `before`, a reading of the same server.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            slow_clients_disconnected: self
                .slow_clients_disconnected
                .saturating_sub(before.slow_clients_disconnected),
            slow_consumer_gaps: self.slow_consumer_gaps.saturating_sub(before.slow_consumer_gaps),
            frames_queued: self.frames_queued.saturating_sub(before.frames_queued),
            frames_sent: self.frames_sent.saturating_sub(before.frames_sent),
            frames_discarded: self.frames_discarded.saturating_sub(before.frames_discarded),
            frames_conflated: self.frames_conflated.saturating_sub(before.frames_conflated),
            replay_records: self.replay_records.saturating_sub(before.replay_records),
            sessions_refused_for_cpu: self
                .sessions_refused_for_cpu
                .saturating_sub(before.sessions_refused_for_cpu),
            kafka_pauses: self.kafka_pauses.saturating_sub(before.kafka_pauses),
        }
    }
}

impl Buckets {
    fn add(&mut self, bound: f64, count: f64) {
        match self.cumulative.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
            Ok(index) => self.cumulative[index].1 += count,
            Err(index) => self.cumulative.insert(index, (bound, count)),
        }
    }

    /// The counts since `before`, a reading of the same server.
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| {
            let found = before.cumulative.iter().find(|(known, _)| *known == bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        Self {
            cumulative: self
                .cumulative
                .iter()
                .map(|(bound, count)| (*bound, count - earlier(*bound)))
                .collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    /// `None` if the histogram is empty.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// Interpolates linearly within a bucket; above the last finite bound it returns that bound. `None` if
    /// the histogram is empty.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.cumulative.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = quantile * total;
        let index = self.cumulative.iter().position(|(_, count)| *count >= rank)?;
        let (below_bound, below_count) = if index == 0 { (0.0, 0.0) } else { self.cumulative[index - 1] };
        let (bound, count) = self.cumulative[index];
        if bound.is_infinite() || count <= below_count {
            return Some(if bound.is_infinite() { below_bound } else { bound });
        }
        Some(below_bound + (bound - below_bound) * (rank - below_count) / (count - below_count))
    }
}

/// Name, labels (without braces) and value of a line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        None => ("", rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The gateway's label values are constants without quotes, commas or braces.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
# HELP ws_frames_per_send Frames of one send.
# TYPE ws_frames_per_send histogram
ws_frames_per_send_sum{shard="0"} 30.0
ws_frames_per_send_count{shard="0"} 10
ws_frames_per_send_bucket{le="1.0",shard="0"} 4
ws_frames_per_send_bucket{le="+Inf",shard="0"} 10
ws_frames_per_send_sum{shard="1"} 10.0
ws_frames_per_send_count{shard="1"} 10
ws_delivery_latency_seconds_bucket{le="0.001",shard="0",from="poll"} 50
ws_delivery_latency_seconds_bucket{le="0.005",shard="0",from="poll"} 90
ws_delivery_latency_seconds_bucket{le="0.005",shard="1",from="poll"} 10
ws_delivery_latency_seconds_bucket{le="+Inf",shard="0",from="poll"} 100
ws_delivery_latency_seconds_bucket{le="+Inf",shard="0",from="record"} 7
ws_flush_window_seconds{shard="0"} 0.04
ws_flush_window_seconds{shard="1"} 0.08
ws_connections_total{shard="0"} 12
ws_connections_active{shard="0"} 4
ws_connections_active{shard="1"} 5
ws_slow_clients_disconnected_total{shard="0"} 3
ws_slow_clients_disconnected_total{shard="1"} 4
ws_gaps_total{shard="0",reason="slow_consumer"} 5
ws_gaps_total{shard="0",reason="lag"} 9
ws_replay_records_total 1000
ws_connection_rate_limited_total{shard="0",type="per_ip"} 20
ws_connection_rate_limited_total{shard="1",type="global"} 1
ws_forwarded_headers_ignored_total{shard="0"} 30
ws_forwarded_headers_ignored_total{shard="1"} 1
ws_overloaded 1
ws_capacity_rejections_total{shard="0",reason="cpu_overload"} 6
ws_capacity_rejections_total{shard="1",reason="cpu_overload"} 2
ws_capacity_rejections_total{shard="1",reason="memory_limit"} 100
ws_kafka_pauses_total{shard="0",reason="cpu"} 2
ws_kafka_pauses_total{shard="1",reason="rate"} 1
ws_uptime_seconds 3.5
nonsense
# EOF
"#;

    #[test]
    fn shards_are_added_up_and_the_widest_window_is_told() {
        let found = Exposition::parse(PAGE);
        assert_eq!(found.frames_per_send.mean(), Some(2.0));
        assert_eq!((found.flush_window_s, found.sessions_opened), (Some(0.08), 12));
        assert_eq!(found.sessions_active, Some(9));
        assert_eq!((found.connections_rate_limited, found.forwarded_headers_ignored), (21, 31));
        assert_eq!(found.is_overloaded, Some(true));
        let Counters { sessions_refused_for_cpu, kafka_pauses, .. } = found.counters;
        assert_eq!((sessions_refused_for_cpu, kafka_pauses), (8, 3));
        let Counters { slow_clients_disconnected, slow_consumer_gaps, replay_records, .. } = found.counters;
        assert_eq!((slow_clients_disconnected, slow_consumer_gaps, replay_records), (7, 5, 1_000));
        assert_eq!(found.counters.since(&found.counters), Counters::default());
        assert_eq!(
            found.latency_from_poll.cumulative,
            [(0.001, 50.0), (0.005, 100.0), (f64::INFINITY, 100.0)]
        );
        assert_eq!(found.latency_from_record.cumulative, [(f64::INFINITY, 7.0)]);
    }

    #[test]
    fn a_quantile_is_linear_within_its_bucket_and_bounded_by_the_last() {
        let found = Exposition::parse(PAGE).latency_from_poll;
        let median = found.quantile(0.5).expect("values");
        assert!((median - 0.001).abs() < 1e-12, "{median}");
        let p75 = found.quantile(0.75).expect("values");
        assert!((p75 - 0.003).abs() < 1e-12, "{p75}");
        let beyond = Buckets { cumulative: vec![(1.0, 1.0), (f64::INFINITY, 2.0)], sum: 0.0, count: 2.0 };
        assert_eq!(beyond.quantile(0.99), Some(1.0));
        assert_eq!(Buckets::default().quantile(0.5), None);
    }

    #[test]
    fn only_what_came_since_counts() {
        let now = Exposition::parse(PAGE).latency_from_poll;
        let none = now.since(&now);
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        assert_eq!(now.since(&Buckets::default()), now);
        let page = "ws_frames_per_send_sum 100\nws_frames_per_send_count 20\n";
        let before = Exposition::parse("ws_frames_per_send_sum 60\nws_frames_per_send_count 16\n");
        assert_eq!(Exposition::parse(page).frames_per_send.since(&before.frames_per_send).mean(), Some(10.0));
    }

    #[test]
    fn a_page_of_another_server_is_no_error() {
        for page in ["", "<html>", "a{b=\"}\"} x", "up 1", "{} 1", "ws_frames_per_send_bucket{le=\"x\"} 1"] {
            assert_eq!(Exposition::parse(page), Exposition::default(), "{page}");
        }
    }
}
