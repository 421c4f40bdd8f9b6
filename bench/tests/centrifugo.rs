//! Tests of the generator against a server that speaks Centrifugo's JSON protocol: connect, subscribe,
//! several pushes in a message, pings; and the audit of events that the server omits.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use bench::client::dialect::Dialect;
use bench::client::target::Target;
use bench::machine::clock_ms;
use bench::report::AuditSummary;
use bench::run::{Plan, Run, ServerMonitor};
use bench::subscriptions;
use protocol::PatternName;
use tungstenite::{Message, WebSocket, accept};

const EVENTS: u64 = 60;
const PERIOD: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// What one session of the server received from its client.
#[derive(Debug, PartialEq)]
struct Seen {
    commands: Vec<String>,
    pongs: usize,
}

/// Serves one session to its end. Two publications per message, with a ping among them; `left_out` is never
/// sent.
fn serve(socket: TcpStream, left_out: Option<u64>) -> Seen {
    let mut session = accept(socket).expect("an upgrade");
    let mut seen = Seen { commands: Vec::new(), pongs: 0 };
    for answer in [
        r#"{"id":1,"connect":{"client":"c","version":"6","ping":25,"pong":true}}"#,
        r#"{"id":2,"subscribe":{}}"#,
    ] {
        let Message::Text(command) = session.read().expect("a command") else { panic!("no text") };
        seen.commands.push(command.to_string());
        session.send(Message::text(answer)).expect("an answer");
    }
    session.get_ref().set_read_timeout(Some(PERIOD)).expect("a timeout");
    for first in (1..=EVENTS).step_by(2) {
        let mut lines: Vec<String> =
            (first..first + 2).filter(|seq| Some(*seq) != left_out).map(publication).collect();
        lines.insert(1, "{}".to_owned());
        session.send(Message::text(lines.join("\n"))).expect("a push");
        listen(&mut session, &mut seen);
    }
    while listen(&mut session, &mut seen) {}
    seen
}

fn publication(seq: u64) -> String {
    let timestamp = clock_ms();
    format!(
        r#"{{"push":{{"channel":"BTC.trade","pub":{{"data":{{"timestamp":{timestamp},"seq":{seq}}}}}}}}}"#
    )
}

/// Reads the client's messages for one period; `false` if the client has closed.
fn listen(session: &mut WebSocket<TcpStream>, seen: &mut Seen) -> bool {
    let until = Instant::now() + PERIOD;
    while Instant::now() < until {
        match session.read() {
            Ok(Message::Text(text)) if text.as_str() == "{}" => seen.pongs += 1,
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

/// Two sessions; the second one's server omits an event.
fn run(left_out: Option<u64>) -> (AuditSummary, Vec<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let sessions = [None, left_out].map(|left_out| {
            let (socket, _) = listener.accept().expect("a connection");
            thread::spawn(move || serve(socket, left_out))
        });
        sessions.map(|session| session.join().expect("no panic"))
    });
    let channels = vec![PatternName::parse("BTC.trade".into()).expect("a channel")];
    let plan = Plan {
        target: Target::parse(&format!("ws://{address}/connection/websocket")).expect("a URL"),
        connections: 2,
        ramp_rate: 1_000.0,
        timeout: Duration::from_secs(10),
        sources: Vec::new(),
        subscriptions: subscriptions::in_turn(Dialect::Centrifugo, &channels, 2),
        channels,
    };
    let stop = AtomicBool::new(false);
    let mut run = Run::new(plan, ServerMonitor::Elsewhere, &stop).expect("a socket driver");
    run.ramp().expect("sessions");
    let sent = 2 * EVENTS - u64::from(left_out.is_some());
    let began = Instant::now();
    while run.ledger.audit.counts_so_far().delivered < sent && began.elapsed() < PATIENCE {
        run.turn_for(PERIOD).expect("a driver");
    }
    run.hold(PERIOD).expect("a window");
    run.grace(PERIOD).expect("a grace");
    let audited = run.results().audited;
    run.close().expect("an end");
    (audited, server.join().expect("no panic").into())
}

#[test]
fn publications_are_audited_and_pings_answered() {
    let (audited, seen) = run(None);
    assert_eq!((audited.established, audited.delivered, audited.lost), (2, 2 * EVENTS, 0), "{audited:?}");
    assert_eq!((audited.unreadable, audited.duplicated, audited.reordered), (0, 0, 0));
    for Seen { commands, pongs } in seen {
        assert_eq!(commands.len(), 2);
        assert!(commands[0].contains(r#""connect""#) && commands[1].contains(r#""channel":"BTC.trade""#));
        assert_eq!(pongs as u64, EVENTS / 2);
    }
}

#[test]
fn a_publication_that_one_session_does_not_get_is_lost() {
    let (audited, _) = run(Some(7));
    assert_eq!((audited.delivered, audited.lost), (2 * EVENTS - 1, 1), "{audited:?}");
}
