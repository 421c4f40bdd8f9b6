//! Brokers that cannot be used: `--check`, the log and /health name the cause in the same words, with a remedy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::harness::{Cluster, Ended, Launch, eventually};

fn check(launch: testkit::Launch) -> Ended {
    launch.arg("--check").end()
}

/// An address that refuses connections: its listener is closed.
fn closed_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Listens until the test process ends, and has a thread serve each connection.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The log and /health say so while the gateway tries again, and `--check` says so.
fn assert_named_everywhere(brokers: &str, sentence: &str) {
    let gateway = Launch::with_brokers(brokers).start_listening();
    let line = eventually("the log names it", || {
        let output = gateway.output();
        output.lines().find(|line| line.contains(sentence)).map(str::to_owned)
    });
    assert!(line.contains("WARN"), "{line}");
    eventually("/health names it", || {
        gateway.health()["errors"].to_string().contains(sentence).then_some(())
    });
    assert!(!gateway.output().contains("ERROR"), "{}", gateway.output());
    let ended = check(Launch::with_brokers(brokers));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains(sentence), "{ended:?}");
}

#[test]
fn a_gateway_that_can_start_has_no_problem() {
    let cluster = Cluster::start();
    let ended = check(Launch::new(&cluster));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.output.trim(), "no problem found: the gateway can start");
}

#[test]
fn every_problem_is_named_at_once_and_nothing_is_started() {
    let cluster = Cluster::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = check(
        Launch::new(&cluster)
            .env("KAFKA_TOPICS", "odin.trades,odin.absent")
            .env("WS_ADDR", taken.local_addr().unwrap().to_string())
            .env("WS_MAX_CONECTIONS", "5"),
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for expected in [
        "warning: unknown variable WS_MAX_CONECTIONS: did you mean WS_MAX_CONNECTIONS?",
        "the port is taken",
        "problem: Kafka does not have the topics odin.absent: create them or correct KAFKA_TOPICS",
    ] {
        assert!(ended.output.contains(expected), "{expected} is missing: {ended:?}");
    }
    assert!(!ended.output.contains("serving"), "{ended:?}");
}

#[test]
fn an_address_that_is_not_of_this_machine_is_named_as_such() {
    let ended = Launch::with_brokers("127.0.0.1:1").env("WS_ADDR", "192.0.2.1:3002").end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.output.contains("this machine has no address 192.0.2.1 (`ip -br addr` lists them)"),
        "{ended:?}"
    );
}

#[test]
fn a_broker_that_refuses_connections_is_named() {
    let address = closed_address();
    assert_named_everywhere(&address, &format!("{address}: connection refused"));
}

#[test]
fn a_server_that_is_not_kafka_is_named_as_such() {
    let address = listen(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    assert_named_everywhere(&address, &format!("{address} answers, but not as Kafka does"));
}

/// Copies what the broker answers, with another port in place of each that it advertises: in a Metadata response a host is a
/// length and the text, and the port follows in four bytes (Kafka protocol guide, Metadata API).
fn copy_with_ports_replaced(mut from: TcpStream, mut to: TcpStream, ports: &[u16], other: u16) {
    const HOST: &[u8] = b"127.0.0.1";
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..count];
        for port in ports {
            let advertised = [HOST, &u32::from(*port).to_be_bytes()].concat();
            let replaced = [HOST, &u32::from(other).to_be_bytes()].concat();
            for at in 0..bytes.len().saturating_sub(advertised.len() - 1) {
                if bytes[at..].starts_with(&advertised) {
                    bytes[at..at + replaced.len()].copy_from_slice(&replaced);
                }
            }
        }
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}

#[test]
fn an_advertised_address_that_cannot_be_reached_is_named_with_the_setting_to_correct() {
    let cluster = Cluster::start();
    let brokers: Vec<String> = cluster.brokers().split(',').map(str::to_owned).collect();
    let ports: Vec<u16> = brokers.iter().map(|it| it.rsplit(':').next().unwrap().parse().unwrap()).collect();
    let closed = closed_address();
    let closed_port = closed.rsplit(':').next().unwrap().parse().unwrap();
    let address = listen(move |client| {
        let Ok(broker) = TcpStream::connect(&brokers[0]) else { return };
        let (mut from_client, mut to_broker) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_broker));
        copy_with_ports_replaced(broker, client, &ports, closed_port);
    });
    assert_named_everywhere(
        &address,
        &format!(
            "Kafka answers and names {closed}, which cannot be reached: connection refused. Correct advertised.listeners"
        ),
    );
}
