//! Tests of a gateway that shuts down while another one runs. Both are real gateways: only these implement
//! the schedule of closes.

use std::path::Path;

use serde_json::json;

use super::{Outcome, number, run};

const SESSIONS: u64 = 300;

/// `None` without a gateway: the tests of the workspace build it beside this program, those of this package
/// alone may not.
fn drain(flags: &[&str]) -> Option<Outcome> {
    let gateway = Path::new(env!("CARGO_BIN_EXE_odin-bench")).with_file_name("odin-gateway");
    if !gateway.is_file() {
        eprintln!("skipped: there is no {}; `cargo build -p gateway` makes it", gateway.display());
        return None;
    }
    let load = ["drain", "--connections", "300", "--rate", "20", "--duration", "1", "--ramp-rate", "500"];
    Some(run(&[&load, flags].concat()))
}

#[test]
fn sessions_that_are_told_to_go_lose_nothing_on_their_way_to_another_gateway() {
    let Some(outcome) = drain(&["--drain", "3"]) else { return };
    let json = &outcome.json;
    for (key, count) in
        [("established", SESSIONS), ("returned", SESSIONS), ("resumed", SESSIONS), ("lost", 0)]
    {
        assert_eq!(number(&outcome, key), count, "{key}: {}", outcome.text);
    }
    for key in ["duplicated", "reordered", "gaps", "not_resumed", "closed_otherwise", "failed", "refused"] {
        assert_eq!(number(&outcome, key), 0, "{key}: {}", outcome.text);
    }
    assert!(number(&outcome, "delivered") > 0, "{}", outcome.text);
    assert_eq!(json["exit_code"], 0, "{}", outcome.text);
    let closes: Vec<u64> =
        json["closes_per_s"].as_array().expect("counts").iter().filter_map(|count| count.as_u64()).collect();
    assert_eq!(closes.iter().sum::<u64>(), SESSIONS, "{closes:?}");
    // A slow machine closes sessions later, and never earlier.
    assert!(closes[0] <= SESSIONS / 3 + 1, "{closes:?}");
    assert!(json["exit_s"].is_f64() && json["resumed_ms"]["p99"].is_u64(), "{}", outcome.text);
    assert!(
        json["before"]["latency_ms"]["p99"].is_u64() && outcome.html.contains("most closes of one second")
    );
}

#[test]
fn a_gateway_that_closes_all_at_once_fails_the_drain() {
    let Some(outcome) = drain(&["--drain", "10", "--env", "WS_DRAIN=0s"]) else { return };
    assert_eq!((outcome.code, number(&outcome, "lost")), (Some(1), 0), "{}", outcome.text);
    assert!(outcome.json["closes_share_max"].as_f64().is_some_and(|share| share > 0.15), "{}", outcome.json);
    assert!(outcome.text.contains("of the closes were in one second"), "{}", outcome.text);
    assert_eq!(outcome.json["exit_code"], json!(0));
}
