//! A WebSocket server with selectable faults: one thread per session, a shared schedule of events, and every
//! fault applied to session 1 only, so that session 0 shows the due events.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

pub(crate) const CHANNELS: [&str; 3] = ["BTC.trade", "ETH.trade", "SOL.social"];
/// Events of the schedule; each goes to every session.
pub(crate) const EVENTS: u64 = 150;
const EVENT_INTERVAL: Duration = Duration::from_millis(3);
const PING: &[u8] = b"are you there?";
/// Sent after the last event: its answer shows that the client has received everything before it.
const LAST_PING: &[u8] = b"is that all?";

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every tenth event is omitted.
    Drop,
    /// Every tenth event is sent twice.
    Duplicate,
    /// Every tenth event is swapped with the next one of its channel.
    Swap,
    /// The last six events are omitted.
    DropTail,
    /// The third channel is omitted.
    DropChannel,
    /// One loss is announced, and nothing is lost.
    Gap,
    /// Closes with 1008 in the middle of the schedule.
    Close,
    /// Ends the connection in the middle of the schedule, without a close frame.
    Vanish,
    /// Sends an invalid frame in the middle of the schedule.
    BadFrame,
    /// Answers the handshake with 503.
    RefuseHandshake,
    /// Rejects the third channel.
    RejectChannel,
    /// Never acknowledges the subscription.
    NoAck,
    /// Sends events of a channel that was not requested.
    Unrequested,
    /// Publishes nothing at all.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fault: Fault,
    sessions: usize,
    connected: AtomicUsize,
    subscribed: AtomicUsize,
    /// Milliseconds since `began` at which the schedule starts; 0 until every session has subscribed.
    starts_at_ms: AtomicU64,
    began: Instant,
    faults: AtomicU64,
    pongs: AtomicUsize,
    closes: AtomicUsize,
    /// Sessions that have completed their script, or have ended.
    finished: AtomicUsize,
    /// Source addresses of the sessions.
    peers: Mutex<BTreeSet<IpAddr>>,
}

impl Server {
    /// Starts the server; it publishes once this number of sessions has subscribed.
    pub(crate) fn start(fault: Fault, sessions: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            fault,
            sessions,
            connected: AtomicUsize::new(0),
            subscribed: AtomicUsize::new(0),
            starts_at_ms: AtomicU64::new(0),
            began: Instant::now(),
            faults: AtomicU64::new(0),
            pongs: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            peers: Mutex::new(BTreeSet::new()),
        });
        let accepting = Arc::clone(&shared);
        // Lives as long as the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { url, shared }
    }

    /// Returns when this number of sessions have completed their script, or have ended.
    pub(crate) fn wait_until_finished(&self, sessions: usize) {
        let began = Instant::now();
        while self.shared.finished.load(Ordering::SeqCst) < sessions {
            assert!(began.elapsed() < Duration::from_secs(60), "the sessions are stuck: {:?}", self.shared);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Number of deliveries that the fault affected.
    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// Number of sessions that answered the ping with its own payload.
    pub(crate) fn pongs(&self) -> usize {
        self.shared.pongs.load(Ordering::SeqCst)
    }

    /// The source addresses of the sessions.
    pub(crate) fn peers(&self) -> Vec<String> {
        self.shared.peers.lock().expect("no thread panics with it").iter().map(IpAddr::to_string).collect()
    }

    /// Number of sessions that sent a close frame.
    pub(crate) fn closes(&self) -> usize {
        self.shared.closes.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let mut request = [0; 4096];
        let length = stream.peek(&mut request).unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        if !request.contains("Upgrade: websocket") {
            // The health poll.
            let body = r#"{"status":"healthy","checks":{"cpu":{"percentage":12.5}}}"#;
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            return;
        }
        if let Ok(peer) = stream.peer_addr() {
            self.peers.lock().expect("no thread panics with it").insert(peer.ip());
        }
        let number = self.connected.fetch_add(1, Ordering::SeqCst);
        let faulty = number == 1 || self.sessions == 1;
        if faulty && self.fault == Fault::RefuseHandshake {
            let _ = stream.read(&mut [0; 4096]);
            let body = r#"{"error":"overload","message":"come back later"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            self.finished.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
        socket.get_ref().set_nodelay(true).expect("a TCP socket");
        let finished = self.talk(&mut socket, if faulty { self.fault } else { Fault::None });
        self.finished.fetch_add(usize::from(!finished), Ordering::SeqCst);
    }

    /// Returns whether the session was counted as finished.
    fn talk(&self, socket: &mut WebSocket<TcpStream>, fault: Fault) -> bool {
        let (mut sent, mut finished) = (0, false);
        let mut script = None;
        loop {
            match socket.read() {
                Ok(Message::Text(text)) if text.contains("subscribe") => {
                    if fault == Fault::NoAck {
                        continue;
                    }
                    let ack = if fault == Fault::RejectChannel {
                        r#"{"type":"subscription_ack","subscribed":[],"count":0,"rejected":[{"channel":"SOL.social","code":"no_such","message":"there is no such channel"}]}"#
                    } else {
                        r#"{"type":"subscription_ack","subscribed":["*.trade"],"count":1}"#
                    };
                    let _ = socket.send(Message::text(ack));
                    let _ = socket.send(Message::Ping(PING.into()));
                    self.count_subscribed();
                    script = Some(self.script(fault));
                }
                Ok(Message::Pong(payload)) => {
                    self.pongs.fetch_add(usize::from(payload == PING), Ordering::SeqCst);
                    if payload == LAST_PING {
                        finished = true;
                        self.finished.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Ok(Message::Close(_)) => {
                    self.closes.fetch_add(1, Ordering::SeqCst);
                }
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return finished,
            }
            let Some(script) = &script else { continue };
            while let Some(step) = script.get(sent)
                && self.is_due(sent as u64)
            {
                sent += 1;
                if !self.perform(socket, *step) {
                    return finished;
                }
                if sent == script.len() {
                    let _ = socket.send(Message::Ping(LAST_PING.into()));
                }
            }
        }
    }

    fn count_subscribed(&self) {
        if self.subscribed.fetch_add(1, Ordering::SeqCst) + 1 == self.sessions {
            // A whole channel is due only if the client's window has begun before its first event.
            let delay_ms = if self.fault == Fault::DropChannel { 1_000 } else { 1 };
            let at = self.began.elapsed() + Duration::from_millis(delay_ms);
            self.starts_at_ms.store(at.as_millis() as u64, Ordering::SeqCst);
        }
    }

    fn is_due(&self, step: u64) -> bool {
        let starts_at_ms = self.starts_at_ms.load(Ordering::SeqCst);
        let due = Duration::from_millis(starts_at_ms) + EVENT_INTERVAL * step as u32;
        starts_at_ms > 0 && self.began.elapsed() >= due
    }

    /// The messages to a session, one step per interval.
    fn script(&self, fault: Fault) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..EVENTS).map(Step::Event).collect();
        let tenths = || (5..EVENTS).step_by(10);
        let mut faults = 0;
        let mut tamper = |number: u64, replacement: Step| {
            faults += 1;
            steps[number as usize] = replacement;
        };
        match fault {
            Fault::Drop => tenths().for_each(|number| tamper(number, Step::Nothing)),
            Fault::Duplicate => tenths().for_each(|number| tamper(number, Step::Twice(number))),
            Fault::DropTail => (EVENTS - 6..EVENTS).for_each(|number| tamper(number, Step::Nothing)),
            Fault::DropChannel => (2..EVENTS).step_by(3).for_each(|number| tamper(number, Step::Nothing)),
            Fault::Swap => {
                for number in tenths() {
                    faults += 1;
                    steps.swap(number as usize, number as usize + 3);
                }
            }
            Fault::Gap => steps.insert(50, Step::Gap),
            Fault::Close => tamper(50, Step::Close),
            Fault::Vanish => tamper(50, Step::Vanish),
            Fault::BadFrame => tamper(50, Step::BadFrame),
            Fault::Unrequested => steps.insert(50, Step::Unrequested),
            Fault::Nothing => steps.clear(),
            Fault::None | Fault::RefuseHandshake | Fault::RejectChannel | Fault::NoAck => {}
        }
        self.faults.fetch_add(faults, Ordering::SeqCst);
        steps
    }

    /// `false` when the session is over.
    fn perform(&self, socket: &mut WebSocket<TcpStream>, step: Step) -> bool {
        match step {
            Step::Nothing => true,
            Step::Event(number) => send(socket, &self.event(number)),
            Step::Twice(number) => send(socket, &self.event(number)) && send(socket, &self.event(number)),
            Step::Gap => {
                send(socket, r#"{"type":"gap","channel":"BTC.trade","from":"0:1","to":"0:2","reason":"lag"}"#)
            }
            Step::Unrequested => send(socket, &event_text("XMR.balances", 1, 1_000_000, now_ms())),
            Step::Close => {
                let frame = CloseFrame { code: CloseCode::Policy, reason: "too slow".into() };
                let _ = socket.close(Some(frame));
                true
            }
            Step::Vanish => false,
            Step::BadFrame => socket.get_mut().write_all(&[0xf1, 0x00]).is_ok(),
        }
    }

    /// The same bytes for every session, as in the gateway.
    fn event(&self, number: u64) -> String {
        let starts_at = Duration::from_millis(self.starts_at_ms.load(Ordering::SeqCst));
        let due = starts_at + EVENT_INTERVAL * number as u32;
        let ago = self.began.elapsed().saturating_sub(due).as_millis() as u64;
        // More than the audit allows for a publisher's clock.
        let ahead_ms = if self.fault == Fault::DropChannel { 60_000 } else { 0 };
        let timestamp_ms = now_ms() - ago + ahead_ms;
        event_text(CHANNELS[(number % 3) as usize], number / 3 + 1, number, timestamp_ms)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Event(u64),
    Twice(u64),
    Nothing,
    Gap,
    Unrequested,
    Close,
    Vanish,
    BadFrame,
}

fn send(socket: &mut WebSocket<TcpStream>, text: &str) -> bool {
    socket.send(Message::text(text)).is_ok()
}

fn event_text(channel: &str, seq: u64, offset: u64, timestamp_ms: u64) -> String {
    format!(
        r#"{{"seq":{offset},"ts":{timestamp_ms},"type":"price:update","priority":1,"channel":"{channel}","pos":"0:{offset}","data":{{"type":"T","timestamp":{timestamp_ms},"seq":{seq},"data":{{}}}}}}"#
    )
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}
