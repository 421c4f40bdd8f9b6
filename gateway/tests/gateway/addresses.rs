//! One address cannot take what others need: connections that say nothing keep nobody out, an address has as many sessions as it may
//! have, and an honest crowd notices none of it.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::harness::{
    Bystander, Cluster, Gateway, Launch, Metrics, Raw, Response, frame, handshake_request, knock,
};

/// Thousands of clients are open files of this process.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A connection from an address of this host.
fn connect(gateway: &Gateway, source: [u8; 4]) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into()).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    Raw::of(socket.into())
}

fn get(mut raw: Raw, path: &str) -> Response {
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    raw.response()
}

fn refused(metrics: &Metrics, reason: &str) -> f64 {
    metrics.reason("ws_capacity_rejections_total", reason)
}

/// More than a gateway with two shards of 1,000 sessions has sockets.
const SILENT: usize = 5000;

#[test]
fn silent_connections_of_one_address_keep_nobody_out_and_health_checks_are_answered() {
    raise_files();
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CONNECTIONS", "1000").env("WS_SHARDS", "2").start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let is_over = AtomicBool::new(false);
    let (silent, sessions) = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let silent = (0..SILENT).map(|_| connect(&gateway, [127, 0, 1, 1])).collect::<Vec<_>>();
            is_over.store(true, Ordering::Relaxed);
            silent
        });
        let mut sessions = VecDeque::new();
        // During the flood and after it, while what is left of it is silent.
        let mut after = 0;
        while after < 50 {
            after += usize::from(is_over.load(Ordering::Relaxed));
            let (raw, refused) = knock(connect(&gateway, [127, 0, 2, 1]), "");
            assert!(refused.is_none(), "{refused:?}");
            sessions.push_back(raw);
            // No shortage of places.
            if sessions.len() > 100 {
                sessions.pop_front();
            }
            assert_eq!(get(connect(&gateway, [127, 0, 2, 2]), "/health/ready").status, 200);
            assert_eq!(gateway.get("/health/live").status, 200);
        }
        (flood.join().unwrap(), sessions)
    });
    bystander.hears(&cluster);
    let metrics = gateway.metrics_when("the sessions are counted", |metrics| {
        metrics.sum("ws_connections_active") == sessions.len() as f64 + 1.0
    });
    let (sockets, evicted) = (metrics.sum("ws_sockets"), metrics.sum("ws_sockets_evicted_total"));
    println!("{} sessions meanwhile, {evicted} of {SILENT} reset, {sockets} sockets", sessions.len());
    assert!(evicted >= (SILENT - 2024) as f64 && sockets <= 2024.0, "{evicted}, {sockets}");
    // But for a few that were answered 100 ms before or more, and that the gateway had not seen close yet.
    let answered = evicted - refused(&metrics, "sockets_short");
    assert!((0.0..evicted / 100.0).contains(&answered), "{answered} of {evicted} were not silent");
    assert_eq!(refused(&metrics, "at_max_connections"), 0.0);
    assert_eq!(metrics.sum("ws_accept_errors_total"), 0.0);
    let line = gateway.line_when("sockets run short: the oldest connection without a session is reset");
    assert_eq!(line["address"], "127.0.1.1", "{line}");
    drop(silent);
    gateway.metrics_when("all have gone", |metrics| {
        metrics.sum("ws_sockets") <= sessions.len() as f64 + 2.0 && metrics.sum("ws_addresses") <= 2.0
    });
}

#[test]
fn answered_connections_that_do_not_close_keep_nobody_out() {
    raise_files();
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster).env("WS_MAX_CONNECTIONS", "100").start_ready();
    // Each is held for two seconds after its answer.
    let flood = || {
        let one = |_| {
            let mut raw = connect(&gateway, [127, 0, 1, 1]);
            raw.send_some(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
            raw
        };
        (0..1000).map(one).collect::<Vec<_>>()
    };
    let _held: Vec<_> = thread::scope(|scope| {
        let floods = [(); 4].map(|()| scope.spawn(flood));
        while floods.iter().any(|flood| !flood.is_finished()) {
            assert_eq!(gateway.get("/health/ready").status, 200);
        }
        floods.map(|flood| flood.join().unwrap()).into()
    });
    let (_session, refused_for) = knock(connect(&gateway, [127, 0, 2, 1]), "");
    assert!(refused_for.is_none(), "{refused_for:?}");
    println!("{} reset", gateway.metrics().sum("ws_sockets_evicted_total"));
}

#[test]
fn an_address_has_as_many_sessions_as_it_may_have_and_a_place_given_back_is_free() {
    let cluster = Cluster::start();
    let gateway = Launch::new(&cluster)
        .env("WS_MAX_CONNECTIONS_PER_IP", "3")
        .env("WS_TRUSTED_PROXIES", "127.0.3.0/24")
        .env("WS_SHARDS", "2")
        .start_ready();
    let mut bystander = Bystander::connect(&gateway);
    let mut inside = Vec::new();
    for (source, client) in [([127, 0, 1, 1], None), ([127, 0, 3, 1], Some("192.0.2.1"))] {
        for attempt in 0..10 {
            // Of a peer that is no proxy the header is ignored.
            let headers = format!("X-Forwarded-For: {}\r\n", client.unwrap_or("192.0.2.1"));
            let (raw, refused) = knock(connect(&gateway, source), &headers);
            assert_eq!(refused.is_some(), attempt >= 3, "{source:?}, the attempt number {attempt}");
            let Some(response) = refused else {
                inside.push(raw);
                continue;
            };
            assert_eq!((response.status, &response.json()["error"]), (429, &json!("ip_connections")));
            let message = response.json()["message"].to_string();
            assert!(
                message.contains("WS_MAX_CONNECTIONS_PER_IP=")
                    || message.contains("(WS_MAX_CONNECTIONS_PER_IP)")
            );
            assert!(response.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0);
        }
    }
    // The own host and a proxy that names nobody have no bound.
    for source in [[127, 0, 0, 1], [127, 0, 3, 2]] {
        for _ in 0..5 {
            let (raw, refused) = knock(connect(&gateway, source), "");
            assert!(refused.is_none(), "{source:?}: {refused:?}");
            inside.push(raw);
        }
    }
    let metrics = gateway.metrics_when("the refusals are counted", |metrics| {
        refused(metrics, "ip_connections") == 14.0 && metrics.sum("ws_connections_active") == 17.0
    });
    assert_eq!(metrics.sum("ws_busiest_address_sessions"), 3.0);
    let mut leaver = inside.swap_remove(0);
    leaver.send(&frame(0x88, true, &1000_u16.to_be_bytes()));
    assert_eq!(leaver.close().0, 1000);
    let (_next, refused) = knock(connect(&gateway, [127, 0, 1, 1]), "");
    assert!(refused.is_none(), "{refused:?}");
    bystander.hears(&cluster);
}

#[test]
fn of_an_honest_crowd_that_comes_at_once_and_fills_every_place_nobody_is_refused() {
    const ADDRESSES: u8 = 100;
    const EACH: usize = 30;
    raise_files();
    let cluster = Cluster::start();
    let crowd = usize::from(ADDRESSES) * EACH;
    let gateway = Launch::new(&cluster)
        .env("WS_MAX_CONNECTIONS", crowd.to_string())
        .env("WS_MAX_CONNECTIONS_PER_IP", EACH.to_string())
        .start_ready();
    // All are connected before the first of them asks.
    let mut crowd: Vec<_> =
        (0..crowd).map(|number| connect(&gateway, [127, 0, 4, (number / EACH) as u8])).collect();
    for raw in &mut crowd {
        raw.send(handshake_request().as_bytes());
    }
    for raw in &mut crowd {
        let head = raw.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    let metrics = gateway.metrics_when("the sessions are counted", |metrics| {
        metrics.sum("ws_connections_active") == crowd.len() as f64
    });
    assert_eq!(metrics.sum("ws_capacity_rejections_total") + metrics.sum("ws_sockets_evicted_total"), 0.0);
    assert_eq!((metrics.sum("ws_busiest_address_sessions"), metrics.sum("ws_addresses")), (30.0, 100.0));
    assert_eq!(metrics.sum("ws_handshakes_refused_total"), 0.0);
}
