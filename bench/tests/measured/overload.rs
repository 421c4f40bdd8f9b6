//! Tests that request sessions until there is no room, and beyond.

use serde_json::{Value, json};

use super::server::{Faults, Server};
use super::{Outcome, assert_clean, number, run_against};

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 24\r\n\r\n{\"error\":\"cpu_overload\"}";
const INSIDE: usize = 6;
/// In the fill phase the next session is refused, with a few more that are in progress.
const REFUSES: Faults = Faults { refuses_from: INSIDE, refusal: FULL, ..Faults::NONE };

fn overload_of(faults: Faults, more: &[&str]) -> Outcome {
    let flags = ["overload", "--connections", "40", "--rate", "50", "--attempts", "50"];
    run_against(&Server::start_with(faults), &[&flags[..], more].concat())
}

fn assert_failed_for(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(outcome.json["reasons"].to_string().contains(says), "{says}: {}", outcome.text);
}

#[test]
fn those_beyond_the_overload_are_refused_and_those_inside_lose_nothing() {
    let outcome = overload_of(REFUSES, &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    let json = &outcome.json;
    for (key, count) in [("inside", 6), ("established", 6), ("attempts_admitted", 0), ("lost", 0)] {
        assert_eq!(number(&outcome, key), count, "{key}: {}", outcome.text);
    }
    assert!((40..=51).contains(&number(&outcome, "attempts")), "{}", outcome.text);
    assert_eq!(number(&outcome, "refused_in_press"), number(&outcome, "attempts"), "{}", outcome.text);
    assert_eq!(number(&outcome, "connections"), number(&outcome, "asked") + number(&outcome, "attempts"));
    let [refusal] = json["refusals"].as_array().expect("refusals").as_slice() else { panic!("{json}") };
    assert_eq!((&refusal["reason"], &refusal["without_retry_after"]), (&json!("cpu_overload"), &json!(0)));
    assert_eq!((&refusal["retry_after_s_least"], &refusal["retry_after_s_most"]), (&json!(10), &json!(10)));
    assert_eq!(refusal["count"], json["refused"]);
    for stretch in ["calm", "pressed"] {
        assert!(json[stretch]["latency_ms"]["p99"].is_u64(), "{}", json[stretch]);
        assert!(json[stretch]["server_cpu_cores"].is_f64(), "{}", json[stretch]);
    }
    assert!(json["latency_p99_ratio"].is_f64() && json["ratio"]["median"].is_f64(), "{json}");
    assert!(outcome.html.contains("pressed over calm") && outcome.text.contains("Retry-After 10 s"));
}

#[test]
fn sessions_that_are_let_in_while_pressed_are_audited_but_not_timed() {
    // All sessions of the fill phase, and some of the attempts, depending on those in progress at the first
    // refusal.
    let outcome = overload_of(Faults { refuses_to: 50, ..REFUSES }, &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    let admitted = number(&outcome, "attempts_admitted");
    assert!(admitted > 0, "{}", outcome.text);
    assert_eq!(number(&outcome, "established"), number(&outcome, "inside") + admitted);
    assert_eq!((number(&outcome, "lost"), number(&outcome, "admitted_deaf")), (0, 0), "{}", outcome.text);
}

#[test]
fn a_session_that_is_let_in_while_pressed_and_hears_nothing_fails_the_run() {
    let outcome = overload_of(Faults { refuses_to: 50, silent_sessions_from: 50, ..REFUSES }, &[]);
    assert_failed_for(&outcome, "let in while pressed and then heard nothing: ");
    assert_eq!(number(&outcome, "admitted_deaf"), number(&outcome, "attempts_admitted"), "{}", outcome.text);
}

#[test]
fn an_event_that_one_inside_loses_fails_the_run() {
    let outcome = overload_of(Faults { loses: true, ..REFUSES }, &[]);
    assert_failed_for(&outcome, "events lost: 1");
}

#[test]
fn a_refusal_for_another_reason_or_without_a_time_fails_the_run() {
    let full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 30\r\n\r\n{\"error\":\"at_max_connections\"}";
    let outcome = overload_of(Faults { refusal: full, ..REFUSES }, &[]);
    assert_failed_for(&outcome, "another reason than overload (at_max_connections)");
    let silent = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 24\r\n\r\n{\"error\":\"cpu_overload\"}";
    let outcome = overload_of(Faults { refusal: silent, ..REFUSES }, &[]);
    assert_failed_for(&outcome, "refused without a Retry-After");
}

#[test]
fn a_server_that_carries_all_that_was_asked_fails_unless_that_was_expected() {
    let outcome = overload_of(Faults::NONE, &[]);
    assert_failed_for(&outcome, "carried all that was asked, 40 sessions");
    assert_eq!(outcome.json["pressed"], Value::Null);
    let expected = ["--expect", "none"];
    assert_clean(&overload_of(Faults::NONE, &expected), 40);
    let outcome = overload_of(REFUSES, &expected);
    assert_failed_for(&outcome, "sessions refused: ");
    let outcome = overload_of(Faults { overloaded_pauses: Some(3), ..Faults::NONE }, &expected);
    assert_failed_for(&outcome, "the gateway would refuse more sessions");
    assert_failed_for(&outcome, "Kafka was paused: 3");
}
