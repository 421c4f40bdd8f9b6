//! Grafana's dashboards and Prometheus's rules against docs/METRICS.md, which `metrics_list` holds against a scrape: no panel
//! and no rule names a metric, a label or a label's value that is not exported. And what each is to tell its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::metrics_list::listed;
use crate::promql;

/// Labels that Prometheus adds to whatever it scrapes.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];
/// Series that Prometheus makes itself, with their labels.
const OWN_SERIES: [(&str, &[&str]); 2] = [("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity"])];
/// The labels of log lines, as the collector sets them.
const LOG_LABELS: [&str; 8] =
    ["service", "container_name", "container_id", "image", "instance", "environment", "job", "level"];
/// Of a dashboard.
const GRID_WIDTH: u64 = 24;

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Label -> values; none is any.
type Labels = BTreeMap<String, BTreeSet<String>>;

fn local(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deployments/local").join(folder)
}

fn texts(folder: &str, extension: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(local(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut texts: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    texts.sort();
    assert!(!texts.is_empty(), "{folder} has no .{extension}");
    texts
}

fn rules() -> Vec<Rule> {
    let files = texts("prometheus/rules", "yml");
    let files = files.iter().map(|(name, text)| {
        serde_saphyr::from_str::<RuleFile>(text).unwrap_or_else(|error| panic!("{name}: {error}"))
    });
    files.flat_map(|file| file.groups).flat_map(|group| group.rules).collect()
}

fn dashboards() -> Vec<(String, Value)> {
    let files = texts("grafana/dashboards", "json").into_iter();
    files.map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect()
}

/// The panels that show something, without the rows' titles.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Every name that a query may have, with its labels.
fn known() -> BTreeMap<String, Labels> {
    let mut known: BTreeMap<String, Labels> = BTreeMap::new();
    for (name, metric) in listed() {
        if metric.kind == "histogram" {
            let mut with_bounds = metric.labels.clone();
            with_bounds.insert("le".to_owned(), BTreeSet::new());
            known.insert(format!("{name}_bucket"), with_bounds);
            known.insert(format!("{name}_sum"), metric.labels.clone());
            known.insert(format!("{name}_count"), metric.labels);
        } else {
            known.insert(name, metric.labels);
        }
    }
    for (name, labels) in OWN_SERIES {
        known.insert(name.to_owned(), labels.iter().map(|label| ((*label).to_owned(), [].into())).collect());
    }
    for rule in rules() {
        let Some(record) = rule.record else { continue };
        // What it groups by is what is left; a recorded ratio has the labels of its target alone.
        let labels = known.entry(record).or_default();
        labels.extend(promql::read(&rule.expr).groupings.into_iter().map(|label| (label, [].into())));
        for (label, value) in rule.labels {
            labels.entry(label).or_default().insert(value);
        }
    }
    known
}

/// What of an expression nobody exports.
fn unknown(expression: &str, known: &BTreeMap<String, Labels>) -> Vec<String> {
    let asked = promql::read(expression);
    let mut found = Vec::new();
    let mut labels_there: BTreeSet<&str> = TARGET_LABELS.into();
    for metric in &asked.metrics {
        let Some(labels) = known.get(&metric.name) else {
            found.push(metric.name.clone());
            continue;
        };
        labels_there.extend(labels.keys().map(String::as_str));
        for [label, _, value] in &metric.matchers {
            match labels.get(label) {
                None if TARGET_LABELS.contains(&label.as_str()) => {}
                None => found.push(format!("{}{{{label}}}", metric.name)),
                Some(values) if values.is_empty() => {}
                Some(values) => found.extend(
                    value
                        .split('|')
                        .filter(|value| !values.contains(*value))
                        .map(|value| format!("{}{{{label}={value}}}", metric.name)),
                ),
            }
        }
    }
    let groupings = asked.groupings.iter().filter(|label| !labels_there.contains(label.as_str()));
    found.extend(groupings.map(|label| format!("by ({label})")));
    found
}

#[test]
fn what_is_not_exported_is_found() {
    let known = known();
    for (expression, expected) in [
        ("sum by (shard) (rate(ws_gaps_total{reason=\"lag\"}[1m]))", &[][..]),
        ("ws_gap_total", &["ws_gap_total"]),
        ("ws_gaps_total{cause=\"lag\"}", &["ws_gaps_total{cause}"]),
        ("ws_gaps_total{reason=~\"lag|late\"}", &["ws_gaps_total{reason=late}"]),
        ("sum by (client) (ws_gaps_total)", &["by (client)"]),
        ("ws_pass_seconds", &["ws_pass_seconds"]),
        ("ws_pass_seconds_bucket{le=\"1\"}", &[]),
    ] {
        assert_eq!(unknown(expression, &known), expected, "{expression}");
    }
}

#[test]
fn every_rule_asks_for_what_is_exported() {
    let known = known();
    for rule in rules() {
        let name = rule.record.or(rule.alert).expect("a rule records or alerts");
        assert_eq!(unknown(&rule.expr, &known), [""; 0], "{name}");
    }
}

#[test]
fn every_panel_asks_for_what_is_exported() {
    let known = known();
    let mut expressions = 0;
    for (file, dashboard) in dashboards() {
        let annotations = dashboard["annotations"]["list"].as_array().unwrap();
        let mut asked: Vec<(&Value, &str)> =
            annotations.iter().map(|it| (&it["datasource"], it["expr"].as_str().unwrap())).collect();
        for panel in panels(&dashboard) {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{file}: {} asks for nothing", panel["title"]);
            asked.extend(targets.iter().map(|it| (&panel["datasource"], it["expr"].as_str().unwrap())));
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let inside = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
                asked.push((&variable["datasource"], inside.split_once(',').unwrap().0));
            }
        }
        for (datasource, expression) in asked {
            expressions += 1;
            match datasource["uid"].as_str() {
                Some("prometheus") => {
                    assert_eq!(unknown(expression, &known), [""; 0], "{file}: {expression}");
                }
                Some("loki") => assert_selects_logs(expression, &file),
                other => panic!("{file}: nothing is provisioned under {other:?}: {expression}"),
            }
        }
    }
    assert!(expressions > 100, "{expressions} expressions");
}

/// The stream selectors of a LogQL expression name labels that lines have.
fn assert_selects_logs(expression: &str, file: &str) {
    let selectors: Vec<&str> =
        expression.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
    assert!(!selectors.is_empty(), "{file}: {expression}");
    for matcher in selectors.iter().flat_map(|selector| selector.split(", ")) {
        let label = matcher.split(['=', '!']).next().unwrap();
        assert!(LOG_LABELS.contains(&label), "{file}: no line has the label {label}: {expression}");
    }
}

#[test]
fn every_metric_of_the_list_is_on_a_dashboard_or_watched_by_a_rule() {
    let asked_by_panels = dashboards().into_iter().flat_map(|(_, dashboard)| {
        let targets = panels(&dashboard).flat_map(|panel| panel["targets"].as_array().unwrap());
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    });
    let all: Vec<String> = asked_by_panels.chain(rules().into_iter().map(|rule| rule.expr)).collect();
    let names: BTreeSet<String> =
        all.iter().flat_map(|it| promql::read(it).metrics).map(|metric| metric.name).collect();
    // A histogram by any of its series.
    let is_shown = |name: &str| {
        ["", "_bucket", "_sum", "_count"].iter().any(|it| names.contains(&format!("{name}{it}")))
    };
    let unseen: Vec<String> = listed().into_keys().filter(|name| !is_shown(name)).collect();
    assert_eq!(unseen, [""; 0], "nobody would ever see these");
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}: the uid is taken");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: the id of {title} is taken");
            let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            let [x, y, width, height] = place;
            assert!(x + width <= GRID_WIDTH, "{file}: {title} is too far right");
            for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{file}: {title} covers another panel");
            }
        }
        for panel in panels(&dashboard) {
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{file}: {} says nothing about itself", panel["title"]);
        }
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_made_to_fire_by_a_test() {
    let tests: String =
        texts("prometheus/tests", "yml").into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for rule in rules() {
        let Some(name) = rule.alert else { continue };
        assert!(
            matches!(rule.labels["severity"].as_str(), "critical" | "warning"),
            "{name}: {:?}",
            rule.labels
        );
        for annotation in ["summary", "description", "action"] {
            let text = rule.annotations.get(annotation).map_or("", String::as_str);
            assert!(text.len() > 20, "{name} has no {annotation}");
        }
        let runbook = format!("docs/OPERATING.md#alert-{}", name.to_lowercase());
        assert_eq!(rule.annotations["runbook"], runbook, "{name}");
        assert!(
            tests.contains(&format!("labels: '{{alertname=\"{name}\"}}', value: 1")),
            "{name} never fires"
        );
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
    assert!(names.len() > 30, "{} alerts", names.len());
}
