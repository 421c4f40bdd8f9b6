//! docs/METRICS.md against what a running gateway exports: nothing is missing in either, and names, types, units, labels and
//! their values are the same. The dashboards' test stands on this list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Launch};

/// Labels whose values depend on the machine, the version or the configuration.
const FREE_LABELS: [&str; 4] = ["shard", "version", "topic", "le"];

/// A metric, as it stands in the list or in a scrape.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// counter, gauge, histogram or info.
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    /// With their values, unless they are free.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

/// Every metric of docs/METRICS.md, by the name that a query has; a histogram's without `_bucket` and the like.
pub(crate) fn listed() -> BTreeMap<String, Listed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let text = fs::read_to_string(path).unwrap();
    let mut metrics = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').splitn(4, '|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("not four cells: {row}") };
        assert!(meaning.ends_with('.'), "says what it means: {row}");
        let (kind, unit) = kind.split_once(", ").map_or((kind, None), |(kind, unit)| (kind, Some(unit)));
        let listed = Listed { kind: kind.into(), unit: unit.map(str::to_owned), labels: labels_of(labels) };
        assert!(metrics.insert(quoted(name).to_owned(), listed).is_none(), "twice: {row}");
    }
    assert!(metrics.len() > 80, "the tables are elsewhere");
    metrics
}

/// Of a cell such as "`shard`; `reason` (`lag`, `replay`)".
fn labels_of(cell: &str) -> BTreeMap<String, BTreeSet<String>> {
    let labels = cell.split("; ").filter(|label| !label.is_empty());
    labels
        .map(|label| {
            let (name, values) = label.split_once(" (").unwrap_or((label, ""));
            let values = values.trim_end_matches(')').split(", ").filter(|value| !value.is_empty());
            (quoted(name).to_owned(), values.map(|value| quoted(value).to_owned()).collect())
        })
        .collect()
}

fn quoted(text: &str) -> &str {
    let inside = text.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
    inside.unwrap_or_else(|| panic!("{text} is not in backticks"))
}

/// Every metric of a scrape, under the names of the list.
fn scraped(text: &str) -> BTreeMap<String, Listed> {
    let mut metrics: BTreeMap<String, Listed> = BTreeMap::new();
    let mut units = BTreeMap::new();
    let mut newest = (String::new(), String::new());
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["#", "TYPE", family, kind] => newest = (family.to_owned(), kind.to_owned()),
            ["#", "UNIT", family, unit] => drop(units.insert(family.to_owned(), unit.to_owned())),
            ["#", ..] => {}
            _ => {
                let (family, kind) = &newest;
                let suffix = match kind.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let metric = metrics.entry(format!("{family}{suffix}")).or_default();
                (metric.kind, metric.unit) = (kind.clone(), units.get(family).cloned());
                let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (name, value) = label.split_once('=').unwrap();
                    let values = metric.labels.entry(name.to_owned()).or_default();
                    if !FREE_LABELS.contains(&name) {
                        values.insert(value.trim_matches('"').to_owned());
                    }
                }
                metric.labels.remove("le");
            }
        }
    }
    metrics
}

#[test]
fn the_list_of_metrics_is_what_a_running_gateway_exports() {
    let cluster = Cluster::start();
    // What is left out where it is not known is known here.
    let gateway = Launch::new(&cluster)
        .env("WS_CPU_LIMIT", "2")
        .env("WS_MEMORY_LIMIT", "1GiB")
        .env("CONN_RATE_LIMIT_ENABLED", "true")
        .start_ready();
    let exported = scraped(&gateway.get("/metrics").body);
    let mut listed = listed();
    listed.retain(|name, _| name.starts_with("ws_"));
    let names = |of: &BTreeMap<String, Listed>| of.keys().cloned().collect::<BTreeSet<_>>();
    let (in_list, in_scrape) = (names(&listed), names(&exported));
    let missing: Vec<_> = in_scrape.difference(&in_list).collect();
    let extra: Vec<_> = in_list.difference(&in_scrape).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/METRICS.md lacks {missing:?}, and has {extra:?} that no scrape has"
    );
    for (name, mut listed) in listed {
        let exported = &exported[&name];
        // The format declares a unit only where it is the end of the name.
        if exported.unit.is_none() {
            listed.unit = None;
        }
        assert_eq!(&listed, exported, "{name}: the list, and the scrape");
    }
}
