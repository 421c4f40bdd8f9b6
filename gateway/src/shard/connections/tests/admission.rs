use std::sync::Arc;

use super::*;
use crate::shard::test_shard::{REQUEST, TestShard};

#[test]
fn the_first_reason_in_the_order_is_told_and_takes_nothing_of_those_behind_it() {
    let mut door = TestShard::new(&[
        ("WS_MAX_CONNECTIONS", "3"),
        ("CONN_RATE_LIMIT_ENABLED", "true"),
        ("CONN_RATE_LIMIT_IP_BURST", "2"),
        ("CONN_RATE_LIMIT_IP_RATE", "0.001"),
        ("CONN_RATE_LIMIT_GLOBAL_BURST", "4"),
        ("CONN_RATE_LIMIT_GLOBAL_RATE", "0.001"),
    ]);
    for (peer, reason) in [
        ("192.0.2.1:1", None),
        ("192.0.2.1:2", None),
        ("192.0.2.1:3", Some(Refusal::IpRate)),
        ("192.0.2.2:1", None),
        // There is no room for any, but the rates are asked first.
        ("192.0.2.2:2", Some(Refusal::MaxConnections)),
        ("192.0.2.2:3", Some(Refusal::IpRate)),
        ("192.0.2.3:1", Some(Refusal::GlobalRate)),
    ] {
        let before = reason.map(|reason| door.refused(reason));
        let sessions = door.counted().sessions;
        door.open_handshake(peer, "");
        assert_eq!(reason.map(|reason| door.refused(reason)), before.map(|count| count + 1), "{peer}");
        assert_eq!(door.counted().sessions, sessions + u64::from(reason.is_none()), "{peer}");
    }
    assert_eq!(door.core.connections.shared.sessions.load(Ordering::Relaxed), 3);
    door.core.connections.begin_drain(Duration::ZERO, door.now);
    door.open_handshake("192.0.2.1:9", "");
    assert_eq!(door.refused(Refusal::Draining), 1);
}

#[test]
fn the_clients_address_counts_where_the_proxy_is_trusted_and_the_peers_everywhere_else() {
    let mut door = TestShard::new(&[
        ("WS_TRUSTED_PROXIES", "10.0.0.0/8"),
        ("CONN_RATE_LIMIT_ENABLED", "true"),
        ("CONN_RATE_LIMIT_IP_BURST", "1"),
        ("CONN_RATE_LIMIT_IP_RATE", "0.001"),
    ]);
    for (peer, headers, is_taken, ignored) in [
        ("10.0.0.1:1", "X-Forwarded-For: 192.0.2.1\r\n", true, 0),
        ("10.0.0.2:1", "X-Forwarded-For: 192.0.2.1\r\n", false, 0),
        ("10.0.0.1:2", "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", true, 0),
        ("[::ffff:10.0.0.1]:3", "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.3\r\n", true, 0),
        ("192.0.2.4:1", "X-Forwarded-For: 192.0.2.5\r\n", true, 1),
        ("192.0.2.4:2", "X-Forwarded-For: 192.0.2.6\r\n", false, 2),
        ("10.0.0.1:4", "X-Forwarded-For: 192.0.2.7, unknown\r\n", true, 3),
        ("10.0.0.1:5", "", false, 3),
    ] {
        let sessions = door.counted().sessions;
        door.open_handshake(peer, headers);
        let counted = door.counted();
        assert_eq!(counted.sessions - sessions, u64::from(is_taken), "{peer} {headers}");
        assert_eq!(counted.forwarded_headers_ignored, ignored, "{peer} {headers}");
    }
}

#[test]
fn a_request_that_lies_unread_is_not_late() {
    let mut door = TestShard::new(&[]);
    let socket = door.accept("192.0.2.1:1");
    door.now += limits::HANDSHAKE_TIMEOUT + Duration::from_millis(500);
    door.core.connections.fire_timers(door.now);
    assert_eq!(door.refused(Refusal::HandshakeTimeout), 0, "nobody has looked for it");
    door.core.receive(socket, format!("{REQUEST}\r\n").as_bytes(), door.now);
    assert_eq!(door.counted().sessions, 1);
    door.accept("192.0.2.1:2");
    door.now += limits::HANDSHAKE_TIMEOUT + Duration::from_millis(500);
    door.core.connections.has_read_all(door.now);
    door.core.connections.fire_timers(door.now);
    assert_eq!(door.refused(Refusal::HandshakeTimeout), 1, "there was none");
}

#[test]
fn a_handshake_ends_at_twice_its_time_whatever_lies_unread() {
    let mut door = TestShard::new(&[]);
    let trickles = door.accept("192.0.2.1:1");
    let start = door.now;
    for tenth in 1..=100 {
        door.now = start + limits::HANDSHAKE_AGE_MAX * tenth / 100;
        // Of a ring that is never read to its end.
        door.core.receive(trickles, &REQUEST.as_bytes()[tenth as usize..][..1], door.now);
        door.core.connections.fire_timers(door.now);
        assert_eq!(door.refused(Refusal::HandshakeTimeout), u64::from(tenth == 100), "{tenth}");
    }
}

#[test]
fn an_address_has_at_most_its_bound_of_sessions_and_is_told_so() {
    let mut door = TestShard::new(&[
        ("WS_MAX_CONNECTIONS_PER_IP", "2"),
        ("WS_TRUSTED_PROXIES", "10.0.0.0/8"),
        ("WS_MAX_CONNECTIONS", "9"),
        ("CONN_RATE_LIMIT_ENABLED", "true"),
        ("CONN_RATE_LIMIT_IP_BURST", "3"),
        ("CONN_RATE_LIMIT_IP_RATE", "0.001"),
    ]);
    let first = door.open_handshake("192.0.2.1:1", "");
    for (peer, headers, is_taken) in [
        ("192.0.2.1:2", "", true),
        ("192.0.2.1:3", "", false),
        // What a proxy says of its clients counts, and only what a proxy says.
        ("10.0.0.1:1", "X-Forwarded-For: 192.0.2.1\r\n", false),
        ("10.0.0.1:2", "X-Forwarded-For: 192.0.2.2\r\n", true),
        ("192.0.2.2:1", "X-Forwarded-For: 192.0.2.3\r\n", true),
        ("10.0.0.2:3", "X-Forwarded-For: 192.0.2.2\r\n", false),
        // IPv6 by /64.
        ("[2001:db8:1:2::1]:1", "", true),
        ("[2001:db8:1:2::2]:1", "", true),
        ("[2001:db8:1:2:ffff::3]:1", "", false),
        // A proxy that speaks for itself, and the own host, have as many as they like.
        ("10.0.0.1:4", "", true),
        ("10.0.0.1:5", "", true),
        ("10.0.0.1:6", "", true),
    ] {
        let (sessions, refused) = (door.counted().sessions, door.refused(Refusal::IpConnections));
        door.open_handshake(peer, headers);
        assert_eq!(door.counted().sessions - sessions, u64::from(is_taken), "{peer} {headers}");
        assert_eq!(door.refused(Refusal::IpConnections) - refused, u64::from(!is_taken), "{peer} {headers}");
    }
    // A refusal took nothing of the rates, and one for another reason takes no place: the next is refused for its rate.
    door.core.connections.connection_lost(first, door.now);
    let sessions = door.counted().sessions;
    door.open_handshake("192.0.2.1:4", "");
    assert_eq!(
        door.counted().sessions,
        sessions + 1,
        "its third connection, and a place that was given back"
    );
    door.core.connections.shared.addresses.remove_session("192.0.2.1".parse().expect("an address"));
    for _ in 0..3 {
        door.open_handshake("192.0.2.1:5", "");
    }
    assert_eq!(door.refused(Refusal::IpRate), 3);
}

#[test]
fn who_has_said_nothing_does_not_hold_the_end_whenever_it_was_accepted() {
    let mut door = TestShard::new(&[]);
    door.accept("192.0.2.1:1");
    let begun = door.accept("192.0.2.1:2");
    door.core.receive(begun, &REQUEST.as_bytes()[..20], door.now);
    let shared = Arc::clone(&door.core.connections.shared);
    shared.drain.begin();
    door.core.connections.begin_drain(Duration::ZERO, door.now);
    // Until the last session of the process is closed, every connection is answered.
    let served = door.accept("192.0.2.1:3");
    door.core.receive(served, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", door.now);
    assert_eq!((door.refused(Refusal::Draining), door.core.connections.egress.lost()), (0, 0));
    shared.drain.note_drained();
    door.core.connections.refuse_handshakes(door.now);
    assert_eq!((door.refused(Refusal::Draining), door.core.connections.egress.lost()), (2, 1));
    let late = door.accept("192.0.2.1:4");
    assert_eq!((door.refused(Refusal::Draining), door.core.connections.egress.lost()), (3, 2));
    // What it says now is not heard any more.
    door.core.receive(late, format!("{REQUEST}\r\n").as_bytes(), door.now);
    assert_eq!((door.counted().sessions, door.refused(Refusal::Draining)), (0, 3));
}

#[test]
fn every_answer_to_a_request_is_one_of_the_turns_handshakes() {
    let mut door = TestShard::new(&[("WS_MAX_CONNECTIONS", "1")]);
    for request in
        [REQUEST, REQUEST, "GET /health HTTP/1.0\r\n", "GET /nothing HTTP/1.0\r\n", "POST / HTTP/1.0\r\n"]
    {
        door.core.connections.handshakes_left = 5;
        let socket = door.accept("192.0.2.1:1");
        door.core.receive(socket, format!("{request}\r\n").as_bytes(), door.now);
        assert_eq!(door.core.connections.handshakes_left, 4, "{request}");
    }
}

#[test]
fn messages_beyond_the_rate_are_no_flood_even_where_the_socket_is_full() {
    let mut door = TestShard::new(&[("WS_MESSAGE_BURST", "1"), ("WS_MESSAGE_RATE", "0.001")]);
    let socket = door.accept("192.0.2.1:1");
    door.core.receive(socket, format!("{REQUEST}\r\n").as_bytes(), door.now);
    door.core.connections.sessions.find(socket).expect("it is open").turn.set_full(true);
    // Binary, and of no bytes.
    let message = [0x82, 0x80, 1, 2, 3, 4];
    for _ in 0..100 {
        door.core.receive(socket, &message.repeat(10), door.now);
    }
    while door.core.serve_stash(door.now) {}
    let counted = door.counted();
    assert_eq!((counted.sessions, counted.messages_rate_limited), (1, 999));
    let answered = counted.client_errors;
    assert!((2..100).contains(&answered), "{answered} answers");
}

/// Everything that can be told to a client that is refused, at its longest.
fn refusals() -> [Refused; 7] {
    let day = Duration::from_secs(24 * 60 * 60);
    [
        Refused::draining(),
        Refused::too_soon(Refusal::IpRate, day),
        Refused::too_soon(Refusal::GlobalRate, day),
        Refused::full(limits::CONNECTIONS_MAX),
        Refused::too_many(limits::CONNECTIONS_MAX),
        Refused::overloaded(Refusal::CpuOverload),
        Refused::overloaded(Refusal::MemoryLimit),
    ]
}

#[test]
fn every_refusal_is_an_answer_with_a_reason_a_remedy_and_a_time() {
    for refused in refusals() {
        let response = String::from_utf8(refused.response()).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", refused.status)), "{head}");
        let retry_after = head.split("\r\nRetry-After: ").nth(1).expect(head).lines().next();
        assert!(retry_after.is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|it| it > 0)), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"], refused.reason.text());
        assert_eq!(body["message"], refused.message);
        assert!(refused.message.contains("again"), "{}", refused.message);
    }
}

#[test]
fn a_close_carries_the_whole_reason() {
    for refused in refusals() {
        let length = refused.message.len();
        assert!(length <= framing::CLOSE_REASON_BYTES_MAX, "{length}: {}", refused.message);
        let close = refused.close();
        assert_eq!(close[..4], [0x88, 2 + length as u8, 0x03, 0xf5]);
        assert_eq!(&close[4..], refused.message.as_bytes());
    }
}

#[test]
fn what_is_the_doing_of_the_clients_address_is_429_and_everything_else_is_503() {
    assert_eq!(refusals().map(|it| it.status), [503, 429, 429, 503, 429, 503, 503]);
}

#[test]
fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
    for (wait_ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (999_999, 1000)] {
        let wait = Duration::from_millis(wait_ms) + Duration::from_nanos(1);
        assert_eq!(whole_seconds(wait), seconds, "{wait_ms}");
    }
}

#[test]
fn the_manual_lists_every_refusal() {
    let manual = include_str!("../../../../../docs/PROTOCOL.md");
    for refused in refusals() {
        let row = format!("| `{}` | {} |", refused.reason.text(), refused.status);
        assert!(manual.contains(&row), "docs/PROTOCOL.md lacks {row}");
    }
}
