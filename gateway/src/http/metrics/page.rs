//! Turns metrics into text: the process's once, the shards' once per shard with its label.
//!
//! It does not know which metrics exist. Lives for one rendering.

use std::fmt::Error;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use crate::counters::{ByLabel, Counters, Histogram, Label};

/// A label's name and value.
pub(crate) type Text = (&'static str, &'static str);

/// The text so far, and its inputs.
pub(crate) struct Page<'a> {
    pub(crate) encoder: DescriptorEncoder<'a>,
    /// Each shard's label and counters.
    pub(crate) shards: Vec<(String, Counters)>,
}

impl Page<'_> {
    pub(crate) fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) -> Result<(), Error> {
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    /// A gauge of the process.
    pub(crate) fn gauge<V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: V,
    ) -> Result<(), Error> {
        self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A gauge of each shard.
    pub(crate) fn shard_gauge(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Counters) -> u64,
    ) -> Result<(), Error> {
        self.shard_gauge_in(name, help, None, of)
    }

    pub(crate) fn shard_gauge_in<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        of: impl Fn(&Counters) -> V,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (shard, counters) in &self.shards {
            metric.encode_family(&[("shard", shard)])?.encode_gauge(&of(counters))?;
        }
        Ok(())
    }

    /// Sessions of all shards.
    pub(crate) fn sessions(&self) -> u64 {
        self.shards.iter().map(|(_, counters)| counters.sessions).sum()
    }

    /// Gauges of the process, by a label.
    pub(crate) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        label: &'static str,
        values: &[(&'static str, f64)],
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?;
        for (text, value) in values {
            metric.encode_family(&[(label, *text)])?.encode_gauge(value)?;
        }
        Ok(())
    }

    /// A counter of the process.
    pub(crate) fn process_counter(&mut self, name: &str, help: &str, count: u64) -> Result<(), Error> {
        self.process_counter_in(name, help, None, &count)
    }

    pub(crate) fn process_counter_in<V: EncodeCounterValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        count: &V,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
        metric.encode_counter(count, no_exemplar)
    }

    /// A counter of each shard, with a unit.
    pub(crate) fn counter_in(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        of: impl Fn(&Counters) -> f64,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, Some(unit), MetricType::Counter)?;
        for (shard, counters) in &self.shards {
            let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
            metric.encode_family(&[("shard", shard)])?.encode_counter(&of(counters), no_exemplar)?;
        }
        Ok(())
    }

    pub(crate) fn counter(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Counters) -> u64,
    ) -> Result<(), Error> {
        self.counters(name, help, |counters| vec![([], of(counters))])
    }

    /// A counter of each shard, by its number; other threads count it.
    pub(crate) fn counter_of(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(usize) -> u64,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (number, (shard, _)) in self.shards.iter().enumerate() {
            let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
            metric.encode_family(&[("shard", shard)])?.encode_counter(&of(number), no_exemplar)?;
        }
        Ok(())
    }

    pub(crate) fn counters_by<L: Label<N>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        of: impl Fn(&Counters) -> &ByLabel<N>,
    ) -> Result<(), Error> {
        self.counters(name, help, |counters| {
            of(counters).iter::<L>().map(|(text, count)| ([(label, text)], count)).collect()
        })
    }

    pub(crate) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Counters) -> Vec<([Text; N], u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, counters) in &self.shards {
            for (labels, count) in of(counters) {
                let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
                metric.encode_family(&([("shard", shard)], labels))?.encode_counter(&count, no_exemplar)?;
            }
        }
        Ok(())
    }

    pub(crate) fn histograms<const N: usize, const M: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        bounds: &[f64],
        of: impl Fn(&Counters) -> [([Text; N], &Histogram); M],
    ) -> Result<(), Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (shard, counters) in &self.shards {
            for (labels, histogram) in of(counters) {
                encode_histogram(metric.encode_family(&([("shard", shard)], labels))?, bounds, histogram)?;
            }
        }
        Ok(())
    }
}

/// The library sums up the buckets, as the format requires.
fn encode_histogram(
    mut metric: MetricEncoder<'_>,
    bounds: &[f64],
    histogram: &Histogram,
) -> Result<(), Error> {
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(histogram.counts).collect();
    metric.encode_histogram::<NoLabelSet>(histogram.sum, histogram.total(), &buckets, None)
}
