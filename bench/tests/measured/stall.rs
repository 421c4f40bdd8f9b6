//! Tests of sessions that stop reading.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::server::{Faults, Server};
use super::{Outcome, number, run_against};

/// Each test moves about 5 MB/s: in parallel they would be so slow that no buffer fills up in the stall.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Five sessions of which one stalls, with more bytes than the kernel buffers for it.
fn stall(faults: Faults, slow_consumer: &str) -> Outcome {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let flags = ["stall", "--connections", "5", "--stalled", "20", "--stall", "8", "--slow-consumer"];
    let load = ["--rate", "50", "--payload", "20000"];
    run_against(&Server::start_with(faults), &[&flags[..], &[slow_consumer], &load].concat())
}

const CLOSES: Faults = Faults { closes_slow: true, ..Faults::NONE };
const CONFLATES: Faults = Faults { conflates: true, ..Faults::NONE };

fn assert_failed_for(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(outcome.json["reasons"].to_string().contains(says), "{says}: {}", outcome.text);
}

#[test]
fn a_session_that_is_closed_for_not_reading_comes_back_and_loses_nothing() {
    let outcome = stall(CLOSES, "disconnect");
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    for (key, count) in [("stalled", 1), ("returned", 1), ("resumed", 1), ("lost", 0), ("established", 5)] {
        assert_eq!(number(&outcome, key), count, "{key}: {}", outcome.text);
    }
    assert!(number(&outcome, "replayed") > 0, "{}", outcome.text);
    for stretch in ["before", "during", "after"] {
        assert!(outcome.json[stretch]["latency_ms"]["p99"].is_u64(), "{}", outcome.json[stretch]);
    }
    assert!(outcome.json["latency_p99_ratio"].is_f64() && outcome.json["ratio"]["median"].is_f64());
    assert!(
        outcome.json["rss_bytes_per_stalled"].is_f64() && outcome.html.contains("p99 during over before")
    );
}

#[test]
fn an_event_that_is_not_replayed_fails_the_stall() {
    let outcome = stall(Faults { resumes_short: true, ..CLOSES }, "disconnect");
    assert_failed_for(&outcome, "events lost: 1");
}

#[test]
fn a_session_that_cannot_go_on_where_it_was_fails_the_stall() {
    let outcome = stall(Faults { forgets: true, ..CLOSES }, "disconnect");
    assert_failed_for(&outcome, "could not go on where they had been: 1");
}

#[test]
fn a_conflated_session_is_excused_what_a_gap_names() {
    let outcome = stall(CONFLATES, "conflate");
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert!(number(&outcome, "lost") > 0, "{}", outcome.text);
    assert_eq!(number(&outcome, "lost"), number(&outcome, "lost_announced"), "{}", outcome.text);
    assert_eq!((number(&outcome, "conflated"), number(&outcome, "lost_unannounced")), (1, 0));
}

#[test]
fn an_event_that_no_gap_names_fails_the_stall() {
    let outcome = stall(Faults { hides_one: true, ..CONFLATES }, "conflate");
    assert_failed_for(&outcome, "events lost: ");
    assert!(number(&outcome, "lost_unannounced") > 0, "{}", outcome.text);
}

#[test]
fn a_stall_that_nobody_met_proves_nothing() {
    let flags = ["stall", "--connections", "5", "--stalled", "20", "--stall", "1", "--rate", "20"];
    let outcome = run_against(&Server::start_with(CLOSES), &flags);
    assert_failed_for(&outcome, "no stalled session was closed");
    assert_eq!((&outcome.json["returned"], number(&outcome, "lost")), (&json!(0), 0), "{}", outcome.text);
    assert_eq!(outcome.json["server_counted"]["slow_clients_disconnected"], Value::from(0));
}
