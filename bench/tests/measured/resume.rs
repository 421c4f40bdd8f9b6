//! Tests of sessions that resume.

use serde_json::json;

use super::server::{Faults, Server};
use super::{Outcome, number, run_against};

/// Three sessions resume one by one and four at once, with 200 of 600 records; six sessions are live.
fn resume(faults: Faults) -> Outcome {
    let flags = ["resume", "--events", "600", "--tokens", "3", "--repeats", "3", "--cursors", "4"];
    let live = ["--connections", "6", "--rate", "50"];
    run_against(&Server::start_with(faults), &[&flags[..], &live].concat())
}

#[test]
fn all_that_was_missed_arrives_once_and_in_order_and_is_timed() {
    let outcome = resume(Faults::NONE);
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    assert_eq!((number(&outcome, "established"), number(&outcome, "lost")), (14, 0), "{}", outcome.text);
    for (group, sessions) in [("repeats", 3), ("cursors", 4)] {
        let group = &outcome.json[group];
        assert_eq!((&group["asked"], &group["resumed"]), (&json!(sessions), &json!(sessions)), "{group}");
        assert!(group["replayed"].as_u64().is_some_and(|events| events >= 200 * sessions), "{group}");
        let times = (&group["first_event_ms"]["p99"], &group["resumed_ms"]["p99"]);
        assert!(times.0.as_u64() <= times.1.as_u64() && times.0.is_u64(), "{group}");
        assert!(group["live"]["latency_ms"]["p99"].is_u64() && group["records_per_s"].is_f64(), "{group}");
    }
    assert!(outcome.json["latency_p99_ratio"].is_f64() && outcome.html.contains("at once"));
}

#[test]
fn one_event_less_for_each_fails_the_run() {
    let outcome = resume(Faults { resumes_short: true, ..Faults::NONE });
    assert_eq!((outcome.code, number(&outcome, "lost")), (Some(1), 7), "{}", outcome.text);
    assert!(outcome.text.contains("FAILED: events lost: 7"), "{}", outcome.text);
}

#[test]
fn a_server_that_cannot_resume_fails_the_run() {
    let outcome = resume(Faults { forgets: true, ..Faults::NONE });
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(outcome.text.contains("could not go on where they had been: 7"), "{}", outcome.text);
}
