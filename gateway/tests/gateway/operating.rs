//! `docs/OPERATING.md` tells operators what is so: what it calls the same as in the Go server is the same, the variables and metrics
//! that it names exist, and every alert has its section.

use std::collections::BTreeSet;

use gateway::config::VARIABLES;

use crate::harness::{Cluster, Launch, program};
use crate::tidy::{files, page};

/// What is below a heading, up to the next one of its level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap()
}

/// A row of a table of the migration: the names it is about, what became of them, and what to know.
struct Row {
    names: Vec<String>,
    fate: String,
    remark: String,
}

fn rows(page: &str, heading: &str) -> Vec<Row> {
    let rows = section(page, heading).lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Row> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [names, fate, remark] = cells.as_slice() else { panic!("three cells: {row}") };
            Row { names: quoted(names), fate: (*fate).to_owned(), remark: (*remark).to_owned() }
        })
        .collect();
    assert!(rows.len() > 5, "{heading} has a table");
    rows
}

/// What stands between backquotes, labels and values aside.
fn quoted(text: &str) -> Vec<String> {
    let names = text.split('`').skip(1).step_by(2);
    names.map(|name| name.split(['{', '=']).next().unwrap().to_owned()).collect()
}

/// Variables of the Go server, with the values of its production host.
const OF_THE_GO_SERVER: [(&str, &str); 27] = [
    ("WS_ADDR", ":3002"),
    ("KAFKA_BROKERS", "10.0.0.5:9092"),
    ("KAFKA_CONSUMER_GROUP", "ws-server-group"),
    ("WS_CPU_LIMIT", "1"),
    ("WS_MEMORY_LIMIT", "15569256448"),
    ("WS_MAX_CONNECTIONS", "12000"),
    ("WS_WORKER_POOL_SIZE", "256"),
    ("WS_WORKER_QUEUE_SIZE", "25600"),
    ("WS_MAX_KAFKA_RATE", "25"),
    ("WS_MAX_BROADCAST_RATE", "25"),
    ("WS_MAX_GOROUTINES", "30000"),
    ("WS_CPU_REJECT_THRESHOLD", "75.0"),
    ("WS_CPU_PAUSE_THRESHOLD", "80.0"),
    ("CONN_RATE_LIMIT_ENABLED", "true"),
    ("CONN_RATE_LIMIT_IP_BURST", "10"),
    ("CONN_RATE_LIMIT_IP_RATE", "1.0"),
    ("CONN_RATE_LIMIT_GLOBAL_BURST", "300"),
    ("CONN_RATE_LIMIT_GLOBAL_RATE", "50.0"),
    ("TCP_LISTEN_BACKLOG", "2048"),
    ("HTTP_READ_TIMEOUT", "15s"),
    ("HTTP_WRITE_TIMEOUT", "15s"),
    ("HTTP_IDLE_TIMEOUT", "60s"),
    ("METRICS_INTERVAL", "15s"),
    ("LOG_LEVEL", "info"),
    ("LOG_FORMAT", "json"),
    ("ENVIRONMENT", "production"),
    ("GOMAXPROCS", "1"),
];

#[test]
fn every_variable_of_the_go_server_is_told_of_once_and_is_what_it_is_called() {
    let page = page("docs/OPERATING.md");
    let rows = rows(&page, "### Variables");
    let mut told: Vec<&str> = rows.iter().flat_map(|row| &row.names).map(String::as_str).collect();
    told.sort_unstable();
    let mut all: Vec<&str> = OF_THE_GO_SERVER.iter().map(|(name, _)| *name).collect();
    all.sort_unstable();
    assert_eq!(told, all);
    // One warning names those that the program has no use for; what it does not know at all it does not look at.
    let checked = program().arg("--check-config").envs(OF_THE_GO_SERVER).output().unwrap();
    let warnings = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(0), "the production host's values work as they are: {warnings}");
    for Row { names, fate, .. } in &rows {
        for name in names {
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            match fate.as_str() {
                "same" | "changed" => assert!(variable.is_some(), "{name} is called {fate}"),
                "no effect" => assert!(warnings.contains(name.as_str()), "{name} is warned of: {warnings}"),
                "gone" => assert!(variable.is_none() && !warnings.contains(name.as_str()), "{name}"),
                other => panic!("{name}: {other}"),
            }
        }
    }
}

/// Metrics of the Go server.
const METRICS_OF_THE_GO_SERVER: [&str; 39] = [
    "ws_connections_total",
    "ws_connections_failed_total",
    "ws_disconnects_total",
    "ws_messages_sent_total",
    "ws_messages_received_total",
    "ws_bytes_sent_total",
    "ws_bytes_received_total",
    "ws_slow_clients_disconnected_total",
    "ws_rate_limited_messages_total",
    "ws_replay_requests_total",
    "ws_connection_rate_limited_total",
    "ws_dropped_broadcasts_detailed_total",
    "ws_kafka_messages_received_total",
    "ws_kafka_messages_dropped_total",
    "ws_capacity_rejections_total",
    "ws_errors_total",
    "ws_cpu_throttled_seconds_total",
    "ws_cpu_throttle_events_total",
    "ws_connections_active",
    "ws_connections_max",
    "ws_dropped_broadcasts_total",
    "ws_worker_queue_depth",
    "ws_worker_queue_capacity",
    "ws_worker_queue_utilization_percent",
    "ws_memory_bytes",
    "ws_memory_limit_bytes",
    "ws_cpu_usage_percent",
    "ws_cpu_container_percent",
    "ws_cpu_host_percent",
    "ws_cpu_allocation_cores",
    "ws_goroutines_active",
    "ws_kafka_connected",
    "ws_capacity_max_connections",
    "ws_capacity_cpu_threshold_percent",
    "ws_capacity_headroom_percent",
    "ws_connection_duration_seconds",
    "ws_client_send_buffer_size",
    "ws_slow_client_attempts_before_disconnect",
    "ws_nats_connected",
];

#[test]
fn every_metric_of_the_go_server_is_told_of_once_and_those_called_the_same_are_in_a_scrape() {
    let page = page("docs/OPERATING.md");
    let rows = rows(&page, "### Metrics");
    let mut told: Vec<&str> = rows.iter().flat_map(|row| &row.names).map(String::as_str).collect();
    told.sort_unstable();
    let mut all = METRICS_OF_THE_GO_SERVER.to_vec();
    all.sort_unstable();
    assert_eq!(told, all);
    let cluster = Cluster::start();
    let metrics = Launch::new(&cluster).start_ready().metrics();
    let scraped = metrics.names();
    let mut wrong = Vec::new();
    for Row { names, fate, remark } in &rows {
        for name in names {
            let is_there = scraped.contains(name.as_str());
            let is_right = match fate.as_str() {
                "same" | "changed" => is_there,
                "gone" => !is_there && !remark.is_empty(),
                other => panic!("{name}: {other}"),
            };
            if !is_right {
                wrong.push(format!("{name} is called {fate}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_metric_that_the_page_names_is_in_a_scrape() {
    let page = page("docs/OPERATING.md");
    let gone: BTreeSet<String> = rows(&page, "### Metrics")
        .into_iter()
        .filter(|row| row.fate == "gone")
        .flat_map(|row| row.names)
        .collect();
    let cluster = Cluster::start();
    let metrics = Launch::new(&cluster).start_ready().metrics();
    let scraped = metrics.names();
    let words = page.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let missing: BTreeSet<&str> = words
        .filter(|word| word.starts_with("ws_") && !word.ends_with('_') && !gone.contains(*word))
        .filter(|word| {
            !["", "_bucket"].iter().any(|suffix| scraped.contains(format!("{word}{suffix}").as_str()))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_variable_that_the_page_names_is_one() {
    let page = page("docs/OPERATING.md");
    let words = page.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let known = |word: &str| {
        VARIABLES.iter().any(|variable| variable.name == word)
            || OF_THE_GO_SERVER.iter().any(|(name, _)| *name == word)
    };
    let unknown: BTreeSet<&str> = words
        .filter(|word| ["WS_", "KAFKA_", "CONN_RATE_"].iter().any(|prefix| word.starts_with(prefix)))
        .filter(|word| !known(word) && !word.ends_with('_'))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = files(&["alerts.yml"]);
    let alerts: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rules| rules.text.lines())
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(!alerts.is_empty(), "the rules are elsewhere");
    let page = page("docs/OPERATING.md");
    let sections: BTreeSet<&str> =
        section(&page, "## Alerts").lines().filter_map(|line| line.strip_prefix("### alert-")).collect();
    assert_eq!(sections, alerts);
}

#[test]
fn every_link_of_the_page_leads_somewhere() {
    let page = page("docs/OPERATING.md");
    let anchors: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|heading| {
            let words = heading.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-");
            words
                .chars()
                .filter(|character| character.is_alphanumeric() || "-_".contains(*character))
                .collect()
        })
        .collect();
    let links = page.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    let broken: Vec<&str> = links.filter(|link| !anchors.contains(*link)).collect();
    assert_eq!(broken, [""; 0]);
}
