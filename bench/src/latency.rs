//! How long events take from their `timestamp` to this process.
//!
//! The timestamp is in whole milliseconds, so a latency is known to 1 ms and no better. The publisher stamps the instant an event was
//! due (an open loop), so a late publisher counts as latency too. The receive instant is when the frame is read from its socket, by this
//! machine's clock: publisher and generator need clocks in step.

use hdrhistogram::Histogram;

/// Latencies above it count as it.
const LATENCY_MS_MAX: u64 = 3_600_000;

/// Timestamps are cut to milliseconds and the receive instant is shared by a few frames: this much is no clock ahead.
const ROUNDING_MS: u64 = 1;

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Percentiles {
    /// Half of the deliveries took at most this.
    pub p50: u64,
    /// 90%.
    pub p90: u64,
    /// 99%.
    pub p99: u64,
    /// 99.9%.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    in_the_future: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MS_MAX, 3).expect("1 is below half the bound");
        Self { histogram, in_the_future: 0 }
    }
}

impl Latency {
    /// One delivery.
    pub fn record(&mut self, timestamp_ms: u64, now_ms: u64) {
        self.in_the_future += u64::from(timestamp_ms > now_ms.saturating_add(ROUNDING_MS));
        self.histogram.saturating_record(now_ms.saturating_sub(timestamp_ms));
    }

    /// `None` before the first delivery.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.histogram.is_empty() {
            return None;
        }
        Some(Percentiles {
            p50: self.histogram.value_at_quantile(0.5),
            p90: self.histogram.value_at_quantile(0.9),
            p99: self.histogram.value_at_quantile(0.99),
            p999: self.histogram.value_at_quantile(0.999),
            max: self.histogram.max(),
        })
    }

    /// Deliveries whose timestamp was still to come: the publisher's clock is ahead of ours. They count as 0 ms.
    pub fn in_the_future(&self) -> u64 {
        self.in_the_future
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_deliveries() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles(), None);
        for milliseconds in 1..=1_000 {
            latency.record(5_000, 5_000 + milliseconds);
        }
        let expected = Percentiles { p50: 500, p90: 900, p99: 990, p999: 999, max: 1_000 };
        assert_eq!(latency.percentiles(), Some(expected));
    }

    #[test]
    fn a_clock_that_is_ahead_is_noticed_and_an_absurd_latency_is_bounded() {
        let mut latency = Latency::default();
        latency.record(2_000, 1_999);
        assert_eq!(latency.in_the_future(), 0);
        latency.record(2_000, 1_998);
        assert_eq!(latency.in_the_future(), 1);
        assert_eq!(latency.percentiles().map(|percentiles| percentiles.max), Some(0));
        latency.record(0, u64::MAX);
        // Three significant digits: the bound's bucket ends a little above it.
        assert!(latency.percentiles().is_some_and(|percentiles| percentiles.max < LATENCY_MS_MAX * 2));
    }
}
