//! Latency of events, from their `timestamp` to their arrival in this process.
//!
//! The timestamp is in whole milliseconds, so latencies are accurate to 1 ms at best. The publisher stamps
//! the instant at which an event was due (an open loop), so a late publisher counts as latency too. The
//! receive instant is the moment when the frame is read from its socket, by this machine's clock: the clocks
//! of publisher and generator must be synchronized.

use hdrhistogram::Histogram;

pub use crate::series::Percentiles;
use crate::series::{LatencyDistribution, LatencyPoint};

/// Higher latencies count as this value.
const LATENCY_MS_MAX: u64 = 3_600_000;

/// Timestamps are truncated to milliseconds, and a few frames share a receive instant: a difference of this
/// much does not mean that a clock is ahead.
const ROUNDING_MS: u64 = 1;

/// Points of a plotted distribution for each halving of the distance to 100%.
const QUANTILE_TICKS: u32 = 5;

/// Latencies of a window, with those of the current second kept separately.
///
/// A delivery is recorded once, in the current second; [`Latency::settle`] adds the second to the total.
#[derive(Clone, Debug)]
pub struct Latency {
    current: Histogram<u64>,
    settled: Histogram<u64>,
    in_the_future: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MS_MAX, 3).expect("1 is below half the bound");
        Self { current: histogram.clone(), settled: histogram, in_the_future: 0 }
    }
}

impl Latency {
    /// Records one delivery.
    pub fn record(&mut self, timestamp_ms: u64, now_ms: u64) {
        self.in_the_future += u64::from(timestamp_ms > now_ms.saturating_add(ROUNDING_MS));
        self.current.saturating_record(now_ms.saturating_sub(timestamp_ms));
    }

    /// Ends the current second and returns its percentiles.
    pub fn settle(&mut self) -> Option<Percentiles> {
        let percentiles = percentiles(&self.current);
        if percentiles.is_some() {
            self.settled.add(&self.current).expect("both have the same bounds");
            self.current.reset();
        }
        percentiles
    }

    /// Adds the latencies of another window.
    pub fn add(&mut self, other: &Self) {
        self.settled.add(other.histogram()).expect("both have the same bounds");
        self.in_the_future += other.in_the_future;
    }

    /// Percentiles of the current second; `None` before its first delivery.
    pub fn current(&self) -> Option<Percentiles> {
        percentiles(&self.current)
    }

    /// Percentiles of all deliveries; `None` before the first.
    pub fn percentiles(&self) -> Option<Percentiles> {
        percentiles(&self.histogram())
    }

    /// The histogram of all deliveries.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut all = self.settled.clone();
        all.add(&self.current).expect("both have the same bounds");
        all
    }

    /// Number of deliveries whose timestamp was in the future: the publisher's clock is ahead of this
    /// machine's. Their latency counts as 0 ms.
    pub fn in_the_future(&self) -> u64 {
        self.in_the_future
    }
}

/// The percentiles of a histogram; `None` if it is empty.
pub fn percentiles(histogram: &Histogram<u64>) -> Option<Percentiles> {
    if histogram.is_empty() {
        return None;
    }
    Some(Percentiles {
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    })
}

/// The plotted points of a histogram: five for each halving of the remaining share.
pub fn distribution(histogram: &Histogram<u64>) -> LatencyDistribution {
    let steps = histogram.iter_quantiles(QUANTILE_TICKS);
    let points = steps.map(|step| LatencyPoint {
        quantile: step.quantile_iterated_to(),
        latency_ms: step.value_iterated_to() as f64,
    });
    points.collect()
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
        // Three significant digits: the bucket of the limit ends slightly above it.
        assert!(latency.percentiles().is_some_and(|percentiles| percentiles.max < LATENCY_MS_MAX * 2));
    }

    #[test]
    fn a_second_is_told_apart_and_kept_in_the_whole() {
        let mut latency = Latency::default();
        (1..=100).for_each(|_| latency.record(1_000, 1_005));
        assert_eq!(latency.settle().map(|second| second.max), Some(5));
        assert_eq!((latency.settle(), latency.current()), (None, None));
        (1..=100).for_each(|_| latency.record(1_000, 1_050));
        assert_eq!(latency.current().map(|second| (second.p50, second.max)), Some((50, 50)));
        assert_eq!(latency.percentiles().map(|all| (all.p50, all.max)), Some((5, 50)));
        let mut both = latency.clone();
        both.add(&latency);
        assert_eq!((both.histogram().len(), both.percentiles()), (400, latency.percentiles()));
        let points = distribution(&latency.histogram());
        assert!(points.windows(2).all(|pair| pair[0].quantile <= pair[1].quantile));
        assert_eq!(points.last().map(|point| (point.quantile, point.latency_ms)), Some((1.0, 50.0)));
    }
}
