//! Tests of idle sessions, and of sessions that disconnect and reconnect.

use serde_json::{Value, json};

use super::server::{Faults, Server};
use super::{Outcome, assert_clean, number, run_against};

const STAYING: u64 = 4;
const CONNECTIONS: u64 = 10;
const RETURNING: u64 = CONNECTIONS - STAYING;

/// Two storms of six sessions, while four stay.
fn storm(faults: Faults) -> Outcome {
    let flags = ["storm", "--connections", "10", "--staying", "4", "--rate", "50", "--storms", "2"];
    run_against(&Server::start_with(faults), &flags)
}

#[test]
fn sessions_that_drop_come_back_and_those_that_stay_lose_nothing() {
    let outcome = storm(Faults::NONE);
    assert_clean(&outcome, CONNECTIONS);
    let json = &outcome.json;
    assert_eq!((number(&outcome, "returned"), number(&outcome, "staying")), (2 * RETURNING, STAYING));
    let storms = json["storms"].as_array().expect("storms");
    assert_eq!(storms.len(), 2);
    for storm in storms {
        assert_eq!((&storm["dropped"], &storm["returned"]), (&json!(RETURNING), &json!(RETURNING)));
        assert_eq!(storm["is_close_apart"], true, "{storm}");
        assert!(storm["handshake_cpu_s"].is_f64() && storm["close_cpu_s"].is_f64(), "{storm}");
    }
    assert!(json["handshakes_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
    assert!(json["cpu_us_per_handshake"].is_f64() && json["cpu_us_per_close"].is_f64(), "{json}");
    assert!(json["latency_ms"]["p99"].is_u64() && json["calm_latency_ms"]["p99"].is_u64(), "{json}");
    assert!(json["latency_p99_ratio"].is_f64(), "{json}");
    assert!(outcome.html.contains("CPU us per handshake") && outcome.html.contains("calm"));
}

#[test]
fn a_lost_event_of_one_that_stays_fails_the_storm() {
    let outcome = storm(Faults { loses: true, ..Faults::NONE });
    assert_eq!((outcome.code, number(&outcome, "lost")), (Some(1), 1), "{}", outcome.text);
    assert_eq!(outcome.json["reasons"], json!(["events lost: 1"]));
}

#[test]
fn sessions_that_come_back_and_then_hear_nothing_fail_the_storm() {
    // All sessions that reconnect in the second storm.
    let silent_sessions_from = (CONNECTIONS + RETURNING) as usize;
    let outcome = storm(Faults { silent_sessions_from, ..Faults::NONE });
    assert_eq!((outcome.code, number(&outcome, "returned")), (Some(1), 2 * RETURNING), "{}", outcome.text);
    let reasons = outcome.json["reasons"].to_string();
    assert!(reasons.contains("came back and then heard nothing: 6"), "{reasons}");
}

#[test]
fn sessions_that_cannot_come_back_fail_the_storm() {
    // The last session of the second storm.
    let refuses_from = (CONNECTIONS + 2 * RETURNING) as usize - 1;
    let outcome = storm(Faults { refuses_from, ..Faults::NONE });
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    let reasons = outcome.json["reasons"].to_string();
    assert!(reasons.contains("did not come back: 1") && reasons.contains("sessions refused: 1"), "{reasons}");
}

#[test]
fn idle_sessions_are_measured_while_they_hear_and_say_nothing() {
    let server = Server::start(false);
    // With this number of sessions, some heartbeats would be due in these seconds.
    let outcome = run_against(&server, &["idle", "--connections", "60"]);
    assert_eq!(server.texts(), 0);
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    let json = &outcome.json;
    assert_eq!((number(&outcome, "established"), number(&outcome, "delivered")), (60, 0));
    // This server does not ping.
    assert_eq!(json["pings_answered"], 0);
    assert!(outcome.text.contains("too short for 2 pings"), "{}", outcome.text);
    for key in ["/cpu_us_per_session_second", "/private_bytes_per_session", "/server/bytes_per_session"] {
        assert!(json.pointer(key).is_some_and(Value::is_f64), "{key}: {json}");
    }
    assert!(json["memory_before"]["private_bytes"].is_u64() && outcome.html.contains("pings answered"));
}
