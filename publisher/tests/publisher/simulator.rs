//! Tests of the simulator's events.

use std::collections::{BTreeMap, HashMap};

use publisher::events::WEIGHT_TENTHS_TOTAL;
use publisher::{EventType, Kind, Simulator, TOPICS};
use serde_json::Value;

use crate::audit::Audit;
use crate::cluster::tokens;

const SEED: u64 = 20_240_917;
const TIMESTAMP_MS: u64 = 1_726_531_200_123;

fn simulator(names: &[&str]) -> Simulator {
    Simulator::new(tokens(names), SEED).unwrap()
}

#[test]
fn event_types_occur_as_often_as_their_weights_say() {
    let events = 500_000;
    let mut simulator = simulator(&["BTC", "ETH", "ODIN"]);
    let mut value = Vec::new();
    let mut counts: HashMap<EventType, u32> = HashMap::new();
    for _ in 0..events {
        *counts.entry(simulator.next_event(TIMESTAMP_MS, &mut value).event_type).or_default() += 1;
    }
    assert_eq!(counts.len(), 23, "every type occurs, seed {SEED}");
    for event_type in EventType::ALL {
        let share = f64::from(event_type.weight_tenths()) / WEIGHT_TENTHS_TOTAL as f64;
        let expected = f64::from(events) * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let count = f64::from(counts[&event_type]);
        assert!(
            (count - expected).abs() < 5.0 * deviation,
            "{event_type:?}: {count} of {expected}, seed {SEED}"
        );
    }
}

#[test]
fn topics_have_the_shares_of_the_platform() {
    let documented = [
        ("odin.trades", 49.0),
        ("odin.analytics", 17.0),
        ("odin.liquidity", 16.0),
        ("odin.community", 8.0),
        ("odin.metadata", 5.5),
        ("odin.balances", 3.0),
        ("odin.social", 1.2),
        ("odin.creation", 1.0),
    ];
    let events = 200_000;
    let mut simulator = simulator(&["BTC"]);
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for _ in 0..events {
        let event = simulator.next_event(TIMESTAMP_MS, &mut Vec::new());
        *counts.entry(event.event_type.kind().topic()).or_default() += 100.0 / f64::from(events);
    }
    for (topic, percent) in documented {
        assert!(
            (counts[topic] - percent).abs() < 0.6,
            "{topic}: {} of {percent}, seed {SEED}",
            counts[topic]
        );
    }
}

#[test]
fn topics_and_kinds_stand_in_the_same_order() {
    for (kind, topic) in Kind::ALL.into_iter().zip(TOPICS) {
        assert_eq!(kind.topic(), topic);
        let singular = topic.strip_prefix("odin.").unwrap();
        assert!(singular == kind.name() || singular == format!("{}s", kind.name()), "{topic}");
    }
}

#[test]
fn seq_counts_up_by_one_per_token_and_kind() {
    let mut simulator = simulator(&["BTC", "ETH", "a.b:c/d"]);
    let mut audit = Audit::default();
    let mut value = Vec::new();
    for _ in 0..50_000 {
        let event = simulator.next_event(TIMESTAMP_MS, &mut value);
        let written: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(written["seq"], event.seq);
        audit.note(event.token, event.event_type.kind().topic(), event.seq);
    }
    audit.assert_contiguous();
}

#[test]
fn tokens_that_stay_go_on_counting_when_the_tokens_change() {
    let mut simulator = simulator(&["BTC", "ETH"]);
    let mut audit = Audit::default();
    for names in [["BTC", "SOL"], ["SOL", "BTC"], ["BTC", "DOGE"]] {
        for _ in 0..2_000 {
            let event = simulator.next_event(TIMESTAMP_MS, &mut Vec::new());
            if event.token == "BTC" {
                audit.note("BTC", event.event_type.kind().topic(), event.seq);
            }
        }
        simulator.set_tokens(tokens(&names)).unwrap();
        assert_eq!(simulator.token_count(), 2);
    }
    audit.assert_contiguous();
}

#[test]
fn refused_tokens_change_nothing() {
    let mut simulator = simulator(&["BTC"]);
    assert!(simulator.set_tokens(tokens(&["ETH", "*"])).is_err());
    assert!(simulator.set_tokens(Vec::new()).is_err());
    assert_eq!(simulator.next_event(TIMESTAMP_MS, &mut Vec::new()).token, "BTC");
    assert!(Simulator::new(Vec::new(), SEED).is_err());
}

#[test]
fn the_same_seed_makes_the_same_events() {
    let run = |seed| {
        let mut simulator = Simulator::new(tokens(&["BTC", "ETH"]), seed).unwrap();
        let mut all = Vec::new();
        let mut value = Vec::new();
        for timestamp_ms in 0..1_000 {
            simulator.next_event(timestamp_ms, &mut value);
            all.extend_from_slice(&value);
        }
        all
    };
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(SEED + 1));
}

#[test]
fn every_value_is_json_with_the_fields_of_its_type() {
    let longest = "x".repeat(64);
    let mut simulator = simulator(&["BTC", "DOGE", "t/o:k_e-n.1", &longest]);
    let mut value = Vec::new();
    let (mut bytes, mut events) = (0, 0);
    for _ in 0..100_000 {
        let event = simulator.next_event(TIMESTAMP_MS, &mut value);
        let written: Value = serde_json::from_slice(&value)
            .unwrap_or_else(|error| panic!("{error}, seed {SEED}: {}", String::from_utf8_lossy(&value)));
        assert_eq!(written["type"], event.event_type.name());
        assert_eq!(written["timestamp"], TIMESTAMP_MS);
        assert_eq!(written.as_object().unwrap().len(), 4, "type, timestamp, seq and data");
        let data: Vec<(&str, &str)> =
            written["data"].as_object().unwrap().iter().map(|(name, v)| (name.as_str(), sort(v))).collect();
        let mut expected = fields(event.event_type).to_vec();
        expected.sort_unstable();
        assert_eq!(data, expected, "{:?}", event.event_type);
        if event.token == "BTC" {
            (bytes, events) = (bytes + value.len(), events + 1);
        }
    }
    let mean = bytes / events;
    assert!((200..=300).contains(&mean), "a mean value has {mean} bytes");
}

#[test]
fn prices_are_positive_and_move() {
    let mut simulator = simulator(&["BTC", "DOGE"]);
    let mut prices: HashMap<String, Vec<f64>> = HashMap::new();
    let mut value = Vec::new();
    for _ in 0..20_000 {
        let event = simulator.next_event(TIMESTAMP_MS, &mut value);
        let written: Value = serde_json::from_slice(&value).unwrap();
        if let (Kind::Trade, Some(price)) = (event.event_type.kind(), written["data"]["price"].as_f64()) {
            prices.entry(event.token.to_owned()).or_default().push(price);
        }
    }
    for (token, prices) in prices {
        let steps_max = prices.windows(2).map(|pair| (pair[1] / pair[0] - 1.0).abs()).fold(0.0, f64::max);
        assert!(prices.iter().all(|price| *price > 0.0), "{token}");
        assert!(steps_max > 0.0 && steps_max < 0.02, "{token} steps by up to {steps_max}, seed {SEED}");
    }
}

fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(text) if text.is_empty() => "empty",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fields(event_type: EventType) -> &'static [(&'static str, &'static str)] {
    match event_type {
        EventType::TradeExecuted | EventType::BuyCompleted | EventType::SellCompleted => &[
            ("price", "number"),
            ("amount", "number"),
            ("buyer", "string"),
            ("seller", "string"),
            ("txHash", "string"),
        ],
        EventType::LiquidityAdded | EventType::LiquidityRemoved => {
            &[("amount", "number"), ("provider", "string"), ("totalLiquidity", "number")]
        }
        EventType::LiquidityRebalanced => {
            &[("oldRatio", "number"), ("newRatio", "number"), ("totalLiquidity", "number")]
        }
        EventType::PriceDeltaUpdated => {
            &[("price", "number"), ("delta1h", "number"), ("delta24h", "number"), ("delta7d", "number")]
        }
        EventType::AnalyticsRecalculated => {
            &[("volume24h", "number"), ("marketCap", "number"), ("liquidity", "number")]
        }
        EventType::HolderCountUpdated => &[("holderCount", "number"), ("change", "number")],
        EventType::TrendingUpdated => &[("rank", "number"), ("score", "number")],
        EventType::CommentPosted => &[("commentId", "string"), ("author", "string"), ("content", "string")],
        EventType::FavoriteToggled => {
            &[("user", "string"), ("favorited", "bool"), ("favoriteCount", "number")]
        }
        EventType::CommentUpvoted => &[("commentId", "string"), ("author", "string"), ("upvotes", "number")],
        EventType::CommentPinned => &[("commentId", "string"), ("author", "string"), ("pinned", "bool")],
        EventType::MetadataUpdated => &[("name", "string"), ("symbol", "string"), ("description", "string")],
        EventType::TokenNameChanged => {
            &[("previousName", "string"), ("name", "string"), ("symbol", "string")]
        }
        EventType::TokenFlagsChanged => &[("flags", "object")],
        EventType::BalanceUpdated => &[("user", "string"), ("balance", "number"), ("change", "number")],
        EventType::TransferCompleted => {
            &[("from", "string"), ("to", "string"), ("amount", "number"), ("txHash", "string")]
        }
        EventType::SocialLinksUpdated => &[("links", "object")],
        EventType::TwitterVerified => &[("handle", "string"), ("verified", "bool"), ("followers", "number")],
        EventType::TokenCreated => {
            &[("creator", "string"), ("name", "string"), ("symbol", "string"), ("supply", "number")]
        }
        EventType::TokenListed => &[("exchange", "string"), ("initialPrice", "number")],
    }
}
