//! Tests with an attacked gateway and a control. Both are real gateways: only these limit attackers.

use std::path::Path;

use serde_json::Value;

use super::{Outcome, run};

/// `None` without a gateway: the tests of the workspace build it beside this program, those of this package
/// alone may not.
fn hostile(flags: &[&str]) -> Option<Outcome> {
    let gateway = Path::new(env!("CARGO_BIN_EXE_odin-bench")).with_file_name("odin-gateway");
    if !gateway.is_file() {
        eprintln!("skipped: there is no {}; `cargo build -p gateway` makes it", gateway.display());
        return None;
    }
    Some(run(&[&["hostile", "--duration", "300ms"], flags].concat()))
}

fn lines(outcome: &Outcome) -> &Vec<Value> {
    outcome.json["lines"].as_array().unwrap_or_else(|| panic!("lines in {}", outcome.json))
}

/// Does not check the verdict: the machine may be slow.
#[test]
fn every_recipe_that_was_asked_for_reaches_the_gateway_and_has_a_line() {
    let recipes = "orders,positions,rejections,deep-json,pings,bytes,half-heads,storm";
    let flags = ["--rounds", "1", "--attackers", "2", "--recipe", recipes];
    let Some(outcome) = hostile(&flags) else { return };
    // Two recipes have "pings" in their name.
    assert_eq!(lines(&outcome).len(), 9, "{}", outcome.text);
    for line in lines(&outcome) {
        let name = line["recipe"].as_str().expect("a name");
        assert!(line["effort"]["connections"].as_u64().is_some_and(|count| count >= 2), "{name}: {line}");
        assert!(line["effort"]["bytes"].as_u64() > Some(0), "{name}: {line}");
        for of in ["attacked", "control"] {
            assert!(line["gap_ms"][of].as_f64() > Some(0.0), "{name}: {line}");
        }
        assert!(line["health"]["asked"].as_u64() > Some(0), "{name}: {line}");
        assert_eq!(line["lost"], 0, "{name}: {line}");
    }
}

#[test]
fn a_gateway_that_is_not_ready_meanwhile_fails_the_run() {
    // The honest client occupies the only slot, so all other connections are refused.
    let flags =
        ["--rounds", "3", "--attackers", "1", "--recipe", "alternation", "--env", "WS_MAX_CONNECTIONS=1"];
    let Some(outcome) = hostile(&flags) else { return };
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(outcome.text.contains("health of"), "{}", outcome.text);
    assert_eq!(lines(&outcome)[0]["memory_bytes"].as_array().map(Vec::len), Some(3), "{}", outcome.json);
}
