//! Tests of scenarios that alternate between the gateway and a peer. Skipped if one of the two programs was
//! not built.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Outcome, assert_clean, number, run};

const SESSIONS: u64 = 40;

/// The gateway beside the program under test, and a peer of any build profile.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let beside = Path::new(env!("CARGO_BIN_EXE_odin-bench"));
    let gateway = beside.with_file_name("odin-gateway");
    let peer = beside.with_file_name("peer-tokio-tungstenite");
    let released = beside.parent()?.with_file_name("release").join("peer-tokio-tungstenite");
    let peer = [peer, released].into_iter().find(|path| path.is_file());
    let found = Some(gateway).filter(|path| path.is_file()).zip(peer);
    if found.is_none() {
        eprintln!("skipped: `cargo build -p gateway -p peers` makes the programs");
    }
    found
}

/// One round, with both audits clean; `None` if it is skipped.
fn compare(scenario: &[&str]) -> Option<Outcome> {
    let (gateway, peer) = programs()?;
    let (gateway, peer) = (gateway.to_str()?, peer.to_str()?);
    let flags = ["compare", "--peer", "tokio-tungstenite", "--peer-program", peer, "--gateway", gateway];
    let load = ["--connections", "40", "--rounds", "1", "--duration", "1", "--ramp-rate", "500"];
    let outcome = run(&[&flags[..], &load, scenario].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    let round = &outcome.json["rounds"][0];
    for side in [&round["gateway"], &round["peer"]] {
        assert_eq!((&side["established"], &side["lost"]), (&json!(SESSIONS), &json!(0)), "{}", outcome.text);
        assert_eq!(side["reasons"], json!([]), "{}", outcome.text);
    }
    Some(outcome)
}

#[test]
fn a_peer_takes_the_same_storm_and_its_closes_are_known_apart() {
    let Some(outcome) = compare(&["--scenario", "storm", "--staying", "4", "--storms", "2"]) else { return };
    assert_clean(&outcome, SESSIONS);
    let json = &outcome.json;
    assert_eq!((&json["scenario"], &json["compared_scenario"]), (&json!("compare"), &json!("storm")));
    assert_eq!(number(&outcome, "returned"), 72);
    for side in ["gateway", "peer"] {
        let side = &json["rounds"][0][side];
        assert_eq!((&side["returned"], &side["staying"]), (&json!(72), &json!(4)), "{side}");
        let is_apart = |storm: &Value| storm["is_close_apart"] == true;
        assert!(side["storms"].as_array().expect("storms").iter().all(is_apart), "{}", side["storms"]);
        assert!(side["cpu_us_per_handshake"].is_f64() && side["calm_latency_ms"]["p99"].is_u64(), "{side}");
    }
    assert!(json["ratio"].get("cpu_us_per_handshake").is_some(), "{}", json["ratio"]);
    assert!(outcome.text.contains("p99 ms of those that stayed, in the calm"), "{}", outcome.text);
    assert!(outcome.html.contains("tokio-tungstenite"));
}

#[test]
fn a_peer_has_the_same_idle_sessions() {
    let Some(outcome) = compare(&["--scenario", "idle"]) else { return };
    let json = &outcome.json;
    assert_eq!(json["compared_scenario"], "idle");
    for side in ["gateway", "peer"] {
        let side = &json["rounds"][0][side];
        assert_eq!((&side["delivered"], &side["produced"]), (&json!(0), &Value::Null));
        for key in ["/private_bytes_per_session", "/server/bytes_per_session", "/cpu_us_per_session_second"] {
            assert!(side.pointer(key).is_some_and(Value::is_f64), "{key}: {side}");
        }
        let configuration = side["configuration"].as_str().expect("a text");
        assert!(configuration.contains("fetch.wait.max.ms=500"), "both wait alike: {configuration}");
    }
    assert!(json["ratio"]["rss"]["median"].is_f64(), "{}", json["ratio"]);
}
