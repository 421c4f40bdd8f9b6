//! A reader of OpenMetrics text that is stricter than the format requires: a page that it accepts is
//! well-formed.

use std::collections::{BTreeMap, BTreeSet};

/// A page of `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    /// By name and labels as written in the page, `name{a="b"}`.
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Parses a page.
    ///
    /// # Panics
    /// Panics if the page is not well-formed.
    pub fn parse(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let mut families: BTreeMap<&str, &str> = BTreeMap::new();
        let mut described = BTreeSet::new();
        let mut samples = BTreeMap::new();
        for line in lines.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (keyword, family, rest) =
                    (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                assert!(["HELP", "TYPE", "UNIT"].contains(&keyword), "{line}");
                assert!(described.insert((keyword, family)), "twice: {line}");
                if keyword == "TYPE" {
                    families.insert(family, rest);
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let name = series.split('{').next().unwrap();
            assert!(is_of_a_family(name, &families), "no TYPE: {line}");
            assert!(!series.contains('{') || series.ends_with("\"}"), "labels: {line}");
            let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
        Self { samples }
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.labelled(name, "")
    }

    /// The sum over the series whose labels contain this text.
    pub fn labelled(&self, name: &str, label: &str) -> f64 {
        let matching: Vec<f64> = self
            .samples
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label))
            .map(|(_, value)| *value)
            .collect();
        assert!(!matching.is_empty(), "no metric {name} with {label}");
        matching.into_iter().sum()
    }

    /// The sum over the series with this `reason`.
    pub fn reason(&self, name: &str, reason: &str) -> f64 {
        self.labelled(name, &format!("reason=\"{reason}\""))
    }

    /// The names of all samples.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().filter_map(|series| series.split('{').next()).collect()
    }
}

/// A counter's sample is `name_total`, a histogram's `name_bucket`, `name_sum` or `name_count`.
fn is_of_a_family(sample: &str, families: &BTreeMap<&str, &str>) -> bool {
    let of = |suffix: &str, kind: &str| {
        sample.strip_suffix(suffix).is_some_and(|family| families.get(family) == Some(&kind))
    };
    of("", "gauge")
        || of("_total", "counter")
        || of("_info", "info")
        || ["_bucket", "_sum", "_count"].iter().any(|suffix| of(suffix, "histogram"))
}
