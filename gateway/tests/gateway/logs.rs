//! The log is what `docs/LOGS.md` says: every line of the code stands there, a running gateway's lines have that shape, and
//! nothing that comes from outside makes it long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Bystander, Client, Cluster, Ended, Gateway, Launch, PARTITIONS, Raw, Record, eventually, record,
};
use crate::tidy::{Source, files, page};

/// A kind of line: who says it at which level, and its message.
type Line = (String, String);
type Lines = BTreeMap<Line, BTreeSet<String>>;

/// The rows of a table of `docs/LOGS.md`, below its heading, with their fields.
fn listed(heading: &str) -> Lines {
    let page = page("docs/LOGS.md");
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let table = rest.split("\n## ").next().unwrap();
    let mut lines = Lines::new();
    for row in table.lines().filter(|row| row.starts_with("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [level, message, fields, _] = cells.as_slice() else { panic!("four cells: {row}") };
        let Some(message) = message.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else {
            continue;
        };
        let fields = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let line = (level.trim_start_matches("| ").to_owned(), message.to_owned());
        assert!(lines.insert(line, fields).is_none(), "twice: {row}");
    }
    assert!(lines.len() > 5, "{heading} has a table");
    lines
}

/// What the macros of `tracing` say in these sources, tests aside.
fn said(folder: &str) -> Lines {
    let mut lines = Lines::new();
    let mut sources = files(&[".rs"]);
    sources.retain(|source| source.is_below(&[folder]) && !source.path.ends_with("_tests.rs"));
    for Source { path, text } in sources {
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for level in ["trace", "debug", "info", "warn", "error"] {
            for (place, call) in text.match_indices(&format!("{level}!(")) {
                let is_whole =
                    !text[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_');
                if is_whole {
                    let (message, fields) = parts(&text[place + call.len()..], &path);
                    lines.entry((level.to_owned(), message)).or_default().extend(fields);
                }
            }
        }
    }
    lines
}

/// The message and the names of the fields of a macro's arguments.
fn parts(rest: &str, path: &str) -> (String, Vec<String>) {
    let (mut message, mut fields) = (None, Vec::new());
    for argument in arguments(rest) {
        let argument = argument.trim();
        if let Some(literal) = argument.strip_prefix('"') {
            let literal = literal.strip_suffix('"').expect("a literal ends with its quote");
            assert!(
                !literal.contains('{'),
                "{path}: a message is constant, what varies is a field: {literal}"
            );
            message = Some(literal.to_owned());
        } else if !argument.is_empty() {
            let name = argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
            fields.push(name.to_owned());
        }
    }
    (message.unwrap_or_else(|| panic!("{path}: no message: {}", &rest[..rest.len().min(80)])), fields)
}

/// What stands between commas, up to the parenthesis that closes the call.
fn arguments(rest: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut is_text, mut is_escaped) = (Vec::new(), 0, 0, false, false);
    for (place, character) in rest.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                found.push(&rest[start..place]);
                return found;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&rest[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    panic!("the call does not end");
}

fn assert_same(said: &Lines, listed: &Lines) {
    let missing: Vec<_> = said.keys().filter(|line| !listed.contains_key(*line)).collect();
    assert!(missing.is_empty(), "docs/LOGS.md does not list {missing:#?}");
    let stale: Vec<_> = listed.keys().filter(|line| !said.contains_key(*line)).collect();
    assert!(stale.is_empty(), "nobody says what docs/LOGS.md lists: {stale:#?}");
    for (line, fields) in said {
        assert_eq!(fields, &listed[line], "the fields of {line:?}");
    }
}

#[test]
fn every_line_of_the_code_is_listed_with_its_fields_and_no_other() {
    assert_same(&said("gateway/src/"), &listed("The gateway's lines"));
    assert_same(&said("publisher/src/"), &listed("The publisher's lines"));
}

#[test]
fn every_field_is_explained() {
    let page = page("docs/LOGS.md");
    let (_, fields) = page.split_once("\n## Fields\n").unwrap();
    let fields = fields.split("\n## ").next().unwrap();
    let explained: BTreeSet<&str> = fields
        .lines()
        .filter_map(|row| row.strip_prefix("| "))
        .flat_map(|row| row.split(" | ").next().unwrap().split('`').skip(1).step_by(2))
        .collect();
    let mut used: BTreeSet<String> = [listed("The gateway's lines"), listed("The publisher's lines")]
        .into_iter()
        .flat_map(|lines| lines.into_values().flatten())
        .collect();
    used.extend(["timestamp", "level", "target", "message"].map(str::to_owned));
    assert_eq!(explained, used.iter().map(String::as_str).collect());
}

#[test]
fn a_line_of_the_code_is_read_as_tracing_reads_it() {
    let (message, fields) = parts(
        "\n    shard = self.shard,\n    %error, ?cause, next = f(1, \"a, )\"), suppressed,\n    \"it \\\"happened\\\", so\"\n) rest",
        "",
    );
    assert_eq!(message, "it \\\"happened\\\", so");
    assert_eq!(fields, ["shard", "error", "cause", "next", "suppressed"]);
}

/// Each line, which has to be JSON.
fn lines_of(ended: &Ended) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.output.lines().map(parse).collect()
}

fn unusable_records(count: usize) -> Vec<Record> {
    let no_key = Record { key: None, ..record("odin.trades", "", "1") };
    // In the partitions of their keys: what is elsewhere makes a line of its own.
    let not_utf8 = |index| record("odin.trades", &format!("T{}", index % 20), &b"\xff"[..]);
    (0..count)
        .map(|index| match index % 2 {
            0 => no_key.clone().in_partition(index as i32 % PARTITIONS),
            _ => not_utf8(index),
        })
        .collect()
}

fn knock_badly(gateway: &Gateway, times: usize) {
    for _ in 0..times {
        let mut raw = Raw::connect(gateway.address);
        raw.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(raw.response().status, 426);
    }
}

#[test]
fn every_line_of_a_running_gateway_has_the_listed_shape() {
    let cluster = Cluster::start();
    // A variable that is none makes a line, too.
    let gateway = Launch::new(&cluster).env("LOG_LEVEL", "debug").env("WS_ADDRESS", "1").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    cluster.produce(&unusable_records(24));
    bystander.hears(&cluster);
    knock_badly(&gateway, 3);
    drop(Client::subscribed(&gateway, &["BTC.trade"]));
    // The brokers hang up, and librdkafka speaks.
    cluster.stop_brokers();
    gateway.metrics_when("Kafka is gone", |metrics| metrics.sum("ws_kafka_connected") == 0.0);
    cluster.start_brokers();
    bystander.hears(&cluster);
    gateway.signal(Signal::TERM);
    let lines = lines_of(&gateway.end());
    let listed = listed("The gateway's lines");
    let mut seen = BTreeSet::new();
    for line in &lines {
        let text =
            |field: &str| line[field].as_str().unwrap_or_else(|| panic!("no {field}: {line}")).to_owned();
        let timestamp = text("timestamp");
        assert!(timestamp.ends_with('Z'), "UTC: {line}");
        humantime::parse_rfc3339(&timestamp).unwrap();
        let (target, kind) = (text("target"), (text("level").to_lowercase(), text("message")));
        if !target.starts_with("gateway") && !target.starts_with("odin_gateway") {
            continue;
        }
        let fields = listed.get(&kind).unwrap_or_else(|| panic!("not listed: {line}"));
        for field in line.as_object().unwrap().keys() {
            let is_common = ["timestamp", "level", "target", "message"].contains(&field.as_str());
            assert!(is_common || fields.contains(field), "{field} is not listed: {line}");
        }
        seen.insert(kind.1);
    }
    for message in [
        "configuration warning",
        "serving",
        "reading",
        "a record was skipped",
        "a record became a gap",
        "a request was refused",
        "session ended",
        "librdkafka",
        "Kafka is in trouble",
        "stopped",
    ] {
        assert!(seen.contains(message), "{message} is not among {seen:#?}");
    }
}

#[test]
fn a_flood_from_outside_leaves_a_few_lines_a_second_which_say_how_many_were_left_out() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let lines_before = gateway.output().lines().count();
    let started_at = Instant::now();
    let records = unusable_records(20_000);
    cluster.produce(&records);
    knock_badly(&gateway, 300);
    (0..300).for_each(|_| drop(Client::connect(&gateway)));
    let metrics = gateway.metrics_when("all are read", |metrics| {
        metrics.sum("ws_kafka_records_skipped_total") == records.len() as f64
            && metrics.reason("ws_disconnects_total", "client_gone")
                + metrics.reason("ws_disconnects_total", "connection_lost")
                == 300.0
    });
    let seconds = started_at.elapsed().as_secs() as usize + 1;
    let suppressed = metrics.sum("ws_log_lines_suppressed_total");
    // What was written before an answer may be read after it.
    let lines = eventually("each record made a line or was left out", || {
        let lines: Vec<Value> = gateway
            .output()
            .lines()
            .skip(lines_before)
            .map(|line| serde_json::from_str(line).unwrap())
            // What was said at the start may come late.
            .filter(|line: &Value| {
                !["accepting", "reading"].iter().any(|message| line["message"] == *message)
            })
            .collect();
        (suppressed + lines.len() as f64 == records.len() as f64).then_some(lines)
    });
    // Two kinds of line, from each of three shards; connections have none.
    assert!(lines.len() <= 2 * 3 * seconds, "{} lines in {seconds} s", lines.len());
    let messages: BTreeSet<&str> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, BTreeSet::from(["a record became a gap", "a record was skipped"]));
    bystander.hears(&cluster);
    // The next of its kind says what the metric said.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    cluster.produce(&unusable_records(24));
    gateway.metrics_when("these are read", |metrics| {
        metrics.sum("ws_kafka_records_skipped_total") == (records.len() + 24) as f64
    });
    eventually("what was left out is told", || {
        let output = gateway.output();
        let told = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: u64 = told.filter_map(|line| line["suppressed"].as_u64()).sum();
        (told as f64 >= suppressed).then_some(())
    });
}
