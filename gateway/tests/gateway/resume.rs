//! A session that says what it has is brought exactly what it missed, in order, then told that it is live, then what is new;
//! and one that asks for what cannot be had is told so and is live.

use protocol::{Channel, Pattern, Position};
use serde_json::{Value, json};

use crate::harness::{Client, Cluster, Gateway, Launch, Record, kind_of, record};

/// Numbered records of one token's trades.
fn trades(token: &str, numbers: std::ops::Range<usize>) -> Vec<Record> {
    numbers.map(|number| record("odin.trades", token, number.to_string())).collect()
}

fn subscribe(channels: &[&str], since: &Value) -> Value {
    json!({"type": "subscribe", "data": {"channels": channels, "since": since}})
}

fn position(event: &Value) -> Position {
    assert_eq!(event["type"], "price:update", "{event}");
    serde_json::from_value(event["pos"].clone()).unwrap()
}

/// The acknowledgement of a channel that resumes.
fn expect_resuming(session: &mut Client, channel: &str) {
    let ack = session.next();
    assert_eq!((&ack["type"], &ack["subscribed"]), (&json!("subscription_ack"), &json!([channel])), "{ack}");
    assert_eq!((&ack["rejected"], &ack["not_resumed"]), (&Value::Null, &Value::Null), "{ack}");
}

/// The positions of the events up to the message that says the channel is live. One partition may be live, and its new events not
/// counted, while others are still looked through for what was missed.
fn read_to_resumed(session: &mut Client, channel: &str) -> Vec<Position> {
    let mut positions = Vec::new();
    loop {
        let message = session.next();
        if message["type"] == "resumed" {
            assert_eq!(message["channel"], channel);
            let (replayed, came) = (message["replayed"].as_u64().unwrap(), positions.len() as u64);
            assert!(replayed <= came, "{message}, {came}");
            return positions;
        }
        positions.push(position(&message));
    }
}

/// Subscribes with `since`, while new records come, and sees that the missed ones come, then the new, each once and in order.
fn resumes(
    (cluster, gateway): (&Cluster, &Gateway),
    channel: &str,
    since: &Value,
    missed: &[Position],
    new: &[Record],
) {
    let mut session = Client::connect(gateway);
    session.send(&subscribe(&[channel], &json!({channel: since})));
    let new = cluster.produce(new);
    expect_resuming(&mut session, channel);
    let mut came = read_to_resumed(&mut session, channel);
    assert!(came.len() >= missed.len(), "{} of {} before it was live", came.len(), missed.len());
    while came.len() < missed.len() + new.len() {
        came.push(position(&session.next()));
    }
    let expected: Vec<Position> = missed.iter().chain(&new).copied().collect();
    assert_eq!(by_partition(came), by_partition(expected), "{channel} {since}");
    // Nothing comes twice: the next event is the next record.
    let last = cluster.produce_one(record("odin.trades", "BTC", "\"last\""));
    assert_eq!(position(&session.next_event("BTC.trade")), last);
}

/// Order is promised within a partition: stable, so that each partition's positions stay as they came.
fn by_partition(mut positions: Vec<Position>) -> Vec<Position> {
    positions.sort_by_key(|position| position.partition);
    positions
}

/// Waits until the gateway has taken so many records.
fn await_records(gateway: &Gateway, count: usize) {
    gateway.metrics_when("the records are there", |metrics| {
        metrics.sum("ws_kafka_records_framed_total") == count as f64
    });
}

#[test]
fn one_channel_resumes_after_its_last_position_and_from_a_list_of_positions() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut had = cluster.produce(&trades("BTC", 0..300));
    // One that the client has not heard of, and the client that has all.
    for last in [0, 120, 299] {
        let Position { partition, offset } = had[last];
        let next = Position { partition, offset: offset + 1 };
        for since in [json!(had[last]), json!([next])] {
            await_records(&gateway, had.len());
            let missed = had[last + 1..].to_vec();
            resumes((&cluster, &gateway), "BTC.trade", &since, &missed, &trades("BTC", 0..50));
            // The new ones and the one after them are of the past by now.
            let next = had.last().unwrap().offset + 1;
            had.extend((next..next + 51).map(|offset| Position { partition, offset }));
        }
    }
    await_records(&gateway, had.len());
    resumes((&cluster, &gateway), "BTC.trade", &json!([]), &had, &[]);
}

#[test]
fn a_wildcard_resumes_by_kind_and_kinds_that_are_not_named_are_live() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let of = |topic| (0..200).map(move |number| record(topic, &format!("T{}", number % 40), "1"));
    let trades: Vec<Record> = of("odin.trades").collect();
    let social: Vec<Record> = of("odin.social").collect();
    let missed = cluster.produce(&trades);
    let of_social = cluster.produce(&social);
    await_records(&gateway, 400);
    resumes((&cluster, &gateway), "*.trade", &json!({"trade": []}), &missed, &trades);
    let mut session = Client::connect(&gateway);
    session.send(&subscribe(&["*"], &json!({"*": {"social": []}})));
    expect_resuming(&mut session, "*");
    assert_eq!(by_partition(read_to_resumed(&mut session, "*")), by_partition(of_social));
    let live = cluster.produce_one(record("odin.trades", "T1", "2"));
    assert_eq!(position(&session.next_event("T1.trade")), live, "its past was not asked for");
}

#[test]
fn a_token_resumes_after_the_last_position_of_each_kind() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let trades = cluster.produce(&trades("BTC", 0..60));
    let social: Vec<Record> = (0..40).map(|_| record("odin.social", "BTC", "1")).collect();
    let social = cluster.produce(&social);
    await_records(&gateway, 100);
    let mut session = Client::connect(&gateway);
    session.send(&subscribe(&["BTC.*"], &json!({"BTC.*": {"trade": trades[9], "social": [social[30]]}})));
    expect_resuming(&mut session, "BTC.*");
    let mut came = Vec::new();
    loop {
        let message = session.next();
        if message["type"] == "resumed" {
            assert_eq!(message["replayed"], 60, "50 trades and 10 of social");
            break;
        }
        came.push((message["channel"].as_str().unwrap().to_owned(), position(&message)));
    }
    let of = |channel: &str| -> Vec<Position> {
        came.iter().filter(|(name, _)| name == channel).map(|(_, position)| *position).collect()
    };
    assert_eq!((of("BTC.trade"), of("BTC.social")), (trades[10..].to_vec(), social[30..].to_vec()));
}

#[test]
fn what_history_does_not_reach_is_read_from_kafka_again() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_HISTORY_BYTES", "64KiB").start_ready();
    let had = cluster.produce(&trades("BTC", 0..5_000));
    await_records(&gateway, 5_000);
    resumes((&cluster, &gateway), "BTC.trade", &json!(had[9]), &had[10..], &trades("BTC", 0..500));
    gateway.metrics_when("the replay is counted, and over", |metrics| {
        metrics.sum("ws_replay_records_total") > 0.0
            && metrics.sum("ws_replay_cursors") == 0.0
            && metrics.sum("ws_history_evicted_total") > 0.0
            && metrics.sum("ws_frames_replayed_total") >= 4_990.0
    });
}

#[test]
fn a_client_that_moves_between_gateways_misses_nothing_and_gets_nothing_twice() {
    let cluster = Cluster::start();
    let gateways = [Launch::new(&cluster).start_ready(), Launch::new(&cluster).start_ready()];
    let mut produced = cluster.produce(&trades("BTC", 0..1));
    let mut came = produced.clone();
    for round in 0..12 {
        let mut session = Client::connect(&gateways[round % 2]);
        produced.extend(cluster.produce(&trades("BTC", 0..97)));
        session.send(&subscribe(&["BTC.trade"], &json!({"BTC.trade": came.last().unwrap()})));
        produced.extend(cluster.produce(&trades("BTC", 0..53)));
        expect_resuming(&mut session, "BTC.trade");
        // It leaves in the middle: while it resumes, or when it is live.
        let leaves_at = came.len() + [30, 97, 150][round % 3];
        while came.len() < leaves_at {
            let message = session.next();
            if message["type"] != "resumed" {
                came.push(position(&message));
            }
        }
    }
    assert_eq!(came, produced[..came.len()]);
}

#[test]
fn what_cannot_be_resumed_is_said_and_the_channel_is_live() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let had = cluster.produce(&trades("BTC", 0..20));
    await_records(&gateway, 20);
    let partition = had[0].partition;
    let beyond = Position { partition, offset: 1_000_000 };
    let elsewhere = Position { partition: 99, offset: 0 };
    let cases = [
        ("BTC.trade", json!({"BTC.trade": beyond}), "BTC.trade", "unknown_position"),
        ("BTC.trade", json!({"BTC.trade": [beyond]}), "BTC.trade", "unknown_position"),
        ("BTC.trade", json!({"BTC.trade": elsewhere}), "BTC.trade", "unknown_position"),
        ("*.trade", json!({"*.trade": {"trade": [beyond]}}), "*.trade", "unknown_position"),
        ("BTC.trade", json!({"BTC.trade": "yesterday"}), "BTC.trade", "bad_position"),
        ("BTC.trade", json!({"BTC.trade": 7}), "BTC.trade", "bad_position"),
        ("BTC.trade", json!({"BTC.trade": {"trade": [had[0]]}}), "BTC.trade", "bad_position"),
        ("*.trade", json!({"*.trade": had[0]}), "*.trade", "bad_position"),
        ("*", json!({"*": {"trade": had[0]}}), "*", "bad_position"),
        ("BTC.trade", json!({"ETH.trade": had[0]}), "ETH.trade", "bad_position"),
    ];
    for (channel, since, refused, code) in cases {
        let mut session = Client::connect(&gateway);
        let ack = session.ask(&subscribe(&[channel], &since));
        assert_eq!(ack["subscribed"], json!([channel]), "{ack}");
        let not_resumed = ack["not_resumed"].as_array().unwrap();
        assert_eq!(not_resumed.len(), 1, "{since}: {ack}");
        assert_eq!((&not_resumed[0]["channel"], &not_resumed[0]["code"]), (&json!(refused), &json!(code)));
        assert!(not_resumed[0]["message"].as_str().unwrap().len() > 20, "{ack}");
        let live = cluster.produce_one(record("odin.trades", "BTC", "\"live\""));
        assert_eq!(
            position(&session.next_event("BTC.trade")),
            live,
            "{since}: live, and nothing of the past"
        );
    }
}

#[test]
fn a_past_that_overlaps_what_the_session_has_is_live_and_said_so_and_what_it_has_goes_on() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let had = cluster.produce(&trades("BTC", 0..20));
    await_records(&gateway, 20);
    let mut session = Client::subscribed(&gateway, &["BTC.*"]);
    let since = json!({"BTC.trade": had[0]});
    let ack = session.ask(&subscribe(&["BTC.trade", "ETH.trade"], &since));
    assert_eq!((&ack["subscribed"], &ack["count"]), (&json!(["BTC.trade", "ETH.trade"]), &json!(3)), "{ack}");
    let told = &ack["not_resumed"][0];
    assert_eq!((&told["channel"], &told["code"]), (&json!("BTC.trade"), &json!("already_live")));
    let snapshot =
        json!({"type": "subscribe", "data": {"channels": ["X.trade", "*.trade"], "snapshot": true}});
    let ack = session.ask(&snapshot);
    assert_eq!(ack["subscribed"], json!(["X.trade", "*.trade"]), "{ack}");
    let told: Vec<_> = ack["not_resumed"].as_array().unwrap().iter().map(|it| &it["channel"]).collect();
    assert_eq!(told, [&json!("*.trade")], "of what it had before, not of the same message: {ack}");
    let live = cluster.produce_one(record("odin.trades", "BTC", "1"));
    assert_eq!(position(&session.next_event("BTC.trade")), live);
    assert_eq!(session.unsubscribe(&["BTC.*", "BTC.trade", "*.trade"])["count"], 2);
    session.send(&subscribe(&["BTC.trade"], &json!({"BTC.trade": had[9]})));
    expect_resuming(&mut session, "BTC.trade");
    assert_eq!(read_to_resumed(&mut session, "BTC.trade").len(), 11);
}

#[test]
fn wildcards_that_cross_resume_together_and_each_event_comes_once_from_the_earliest_place_on() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut records = trades("BTC", 0..10);
    records.extend(trades("ETH", 0..10));
    records.extend((0..10).map(|number| record("odin.social", "ETH", number.to_string())));
    let had = cluster.produce(&records);
    await_records(&gateway, 30);
    let (btc, eth, social) = (&had[..10], &had[10..20], &had[20..]);
    let mut session = Client::connect(&gateway);
    // Of ETH's trades the narrower one has seen less.
    let wide = json!({"trade": [next(btc[4]), next(eth[7])]});
    let narrow = json!({"trade": eth[3], "social": social[8]});
    session.send(&subscribe(&["*.trade", "ETH.*"], &json!({"*.trade": wide, "ETH.*": narrow})));
    let ack = session.next();
    assert_eq!(
        (&ack["subscribed"], &ack["not_resumed"]),
        (&json!(["*.trade", "ETH.*"]), &Value::Null),
        "{ack}"
    );
    let mut came = Vec::new();
    let mut resumed = Vec::new();
    while resumed.len() < 2 {
        let message = session.next();
        if message["type"] == "resumed" {
            resumed.push((message["channel"].clone(), message["replayed"].as_u64().unwrap()));
        } else {
            came.push((message["channel"].as_str().unwrap().to_owned(), position(&message)));
        }
    }
    let expected = |channel: &str, positions: &[Position]| -> Vec<(String, Position)> {
        positions.iter().map(|position| (channel.to_owned(), *position)).collect()
    };
    let of = |channel: &str| came.iter().filter(|(it, _)| it == channel).cloned().collect::<Vec<_>>();
    assert_ne!(btc[0].partition, eth[0].partition, "a list says of each where it stands");
    assert_eq!(of("BTC.trade"), expected("BTC.trade", &btc[5..]));
    assert_eq!(of("ETH.trade"), expected("ETH.trade", &eth[4..]));
    assert_eq!(of("ETH.social"), expected("ETH.social", &social[9..]));
    assert_eq!(came.len(), 12, "each once");
    resumed.sort_by_key(|(channel, _)| channel.to_string());
    assert_eq!(resumed, [(json!("*.trade"), 7), (json!("ETH.*"), 7)]);
    let live = cluster.produce_one(record("odin.social", "ETH", "1"));
    assert_eq!(position(&session.next_event("ETH.social")), live, "none was dropped");
}

/// The first offset that is wanted, as a list has it, after this one.
fn next(position: Position) -> Position {
    Position { offset: position.offset + 1, ..position }
}

#[test]
fn a_snapshot_is_the_last_event_of_each_channel_and_what_is_new_comes_after_it() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).start_ready();
    let mut last: Vec<(Channel<'_>, Position)> = Vec::new();
    for round in 0..3 {
        last.clear();
        for (topic, token) in [("odin.trades", "A"), ("odin.trades", "B"), ("odin.social", "A")] {
            let position = cluster.produce_one(record(topic, token, round.to_string()));
            last.push((Channel { token, kind: kind_of(topic) }, position));
        }
    }
    await_records(&gateway, 9);
    for name in ["A.trade", "A.*", "*.trade", "*", "C.trade"] {
        let mut session = Client::connect(&gateway);
        let message = json!({"type": "subscribe", "data": {"channels": [name], "snapshot": true}});
        assert_eq!(session.ask(&message)["subscribed"], json!([name]));
        let pattern = Pattern::parse(name).unwrap();
        let mut expected: Vec<(String, Position)> = last
            .iter()
            .filter(|(channel, _)| pattern.selects(*channel))
            .map(|(channel, position)| (format!("{}.{}", channel.token, channel.kind), *position))
            .collect();
        let mut came: Vec<(String, Position)> = expected
            .iter()
            .map(|_| session.next())
            .map(|event| (event["channel"].as_str().unwrap().to_owned(), position(&event)))
            .collect();
        expected.sort();
        came.sort();
        assert_eq!(came, expected, "{name}");
        let new = Channel { token: "Z", kind: "trade" };
        if pattern.selects(new) {
            let live = cluster.produce_one(record("odin.trades", new.token, "1"));
            assert_eq!(position(&session.next_event("Z.trade")), live, "{name}");
            last.retain(|(channel, _)| *channel != new);
            last.push((new, live));
        }
    }
}

#[test]
fn a_snapshot_of_more_than_an_outbox_takes_is_refused_and_the_channels_are_live() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_OUTBOX_FRAMES", "16").start_ready();
    let many: Vec<Record> = (0..60).map(|number| record("odin.trades", &format!("T{number}"), "1")).collect();
    cluster.produce(&many);
    await_records(&gateway, 60);
    let mut session = Client::connect(&gateway);
    let message = json!({"type": "subscribe", "data": {"channels": ["*.trade"], "snapshot": true}});
    let ack = session.ask(&message);
    assert_eq!(ack["subscribed"], json!(["*.trade"]));
    assert_eq!(ack["not_resumed"][0]["code"], "snapshot_too_large", "{ack}");
    let live = cluster.produce_one(record("odin.trades", "BTC", "1"));
    assert_eq!(position(&session.next_event("BTC.trade")), live);
}

#[test]
fn a_channel_that_is_given_back_while_it_resumes_is_over_and_can_be_asked_for_again() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_SOCKET_SEND_BYTES", "8KiB")
        .env("WS_OUTBOX_BYTES", "128KiB")
        .env("WS_MAX_RECORD_BYTES", "16KiB")
        .start_ready();
    let value = json!("x".repeat(2000)).to_string();
    let large: Vec<Record> = (0..1_000).map(|_| record("odin.trades", "BTC", value.as_str())).collect();
    let had = cluster.produce(&large);
    await_records(&gateway, 1_000);
    let mut session = Client::subscribed(&gateway, &["ETH.trade"]);
    session.send(&subscribe(&["BTC.trade"], &json!({"BTC.trade": []})));
    expect_resuming(&mut session, "BTC.trade");
    assert_eq!((0..5).map(|_| position(&session.next())).collect::<Vec<_>>(), had[..5]);
    session.send(&json!({"type": "unsubscribe", "data": {"channels": ["BTC.trade"]}}));
    let mut came = 5;
    while session.next()["type"] != "unsubscription_ack" {
        came += 1;
    }
    assert!(came < 1_000, "all came before the answer");
    cluster.produce_one(record("odin.trades", "BTC", "1"));
    let live = cluster.produce_one(record("odin.trades", "ETH", "1"));
    assert_eq!(position(&session.next_event("ETH.trade")), live);
    await_records(&gateway, 1_002);
    session.send(&subscribe(&["BTC.trade"], &json!({"BTC.trade": had[came - 1]})));
    expect_resuming(&mut session, "BTC.trade");
    let rest = read_to_resumed(&mut session, "BTC.trade");
    assert_eq!((rest.len(), &rest[..rest.len() - 1]), (1_001 - came, &had[came..]));
}
