//! The flush window joins events in one send: nothing is lost, reordered or held back for good.

use std::time::Instant;

use crate::harness::{Client, Cluster, Launch, record};

#[test]
fn a_broadcast_rate_bounds_the_sends_and_loses_nothing() {
    const RECORDS: u64 = 600;
    const RATE: u64 = 10;
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_SHARDS", "1")
        .env("WS_MAX_BROADCAST_RATE", RATE.to_string())
        .start_ready();
    let mut session = Client::subscribed(&gateway, &["BTC.trade"]);
    let began = Instant::now();
    for number in 0..RECORDS {
        cluster.produce_one(record("odin.trades", "BTC", number.to_string()));
    }
    let numbers = (0..RECORDS).map(|_| session.next_event("BTC.trade")["data"].as_u64().expect("a number"));
    assert!(numbers.eq(0..RECORDS));
    let metrics = gateway
        .metrics_when("all are counted", |metrics| metrics.sum("ws_frames_sent_total") == RECORDS as f64);
    // Of events: a send may carry an answer, too, but there was none to give.
    let sends = metrics.sum("ws_frames_per_send_count");
    let sends_max = began.elapsed().as_secs_f64() * RATE as f64 + 1.0;
    assert!(sends <= sends_max, "{sends} sends, at most {sends_max}");
    assert_eq!(metrics.sum("ws_flush_window_seconds"), 1.0 / RATE as f64);
}

#[test]
fn a_session_that_ends_while_it_rests_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_BROADCAST_RATE", "1").start_ready();
    let mut bystander = Client::subscribed(&gateway, &["ETH.trade"]);
    for number in 0..20 {
        // Of its own: what still comes for the one before could come before this one's acknowledgement.
        let (token, channel) = (format!("BTC{number}"), format!("BTC{number}.trade"));
        let mut session = Client::subscribed(&gateway, &[&channel]);
        cluster.produce_one(record("odin.trades", &token, "1"));
        session.next_event(&channel);
        cluster.produce_one(record("odin.trades", &token, "2"));
    }
    cluster.produce_one(record("odin.trades", "ETH", "3"));
    assert_eq!(bystander.next_event("ETH.trade")["data"], 3);
    gateway.metrics_when("nothing is held", |metrics| {
        metrics.sum("ws_frames_held") == 0.0
            && metrics.sum("ws_connections_active") == 1.0
            && metrics.sum("ws_frames_queued_total")
                == metrics.sum("ws_frames_sent_total") + metrics.sum("ws_frames_discarded_total")
    });
}
