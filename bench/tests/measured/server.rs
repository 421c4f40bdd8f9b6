//! A small server of the gateway's protocol with the test's own mock cluster: a thread for the consumer, and
//! one for each session.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bench::host::cluster::{Cluster, PARTITIONS};
use bench::host::producer::{KIND, TOPIC};
use protocol::{Position, write_event};
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

/// The index of the event in each session's stream that a losing server omits.
const LOST_EVENT: usize = 5;

/// If a write takes longer, a server that closes slow sessions ends the session, and if a part of a frame was
/// taken also the rest of it. The limit is long enough that no session is slow only because of the machine.
const WRITE_MAX: Duration = Duration::from_millis(1_500);
/// Events that may be queued for a session of a conflating server: as many seconds of the load at which
/// sessions stall.
const BACKLOG_MAX: usize = 150;

type Event = (Position, Arc<str>);
type Channels = Arc<Mutex<HashMap<String, Channel>>>;

#[derive(Default)]
struct Channel {
    history: Vec<Event>,
    sessions: Vec<Sender<Event>>,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) brokers: String,
    sessions: Arc<Sessions>,
    _cluster: Cluster,
}

/// Faults of the server.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// Omits an event of the first session.
    pub(crate) loses: bool,
    /// Acknowledges the sessions from this number on, and sends them nothing.
    pub(crate) silent_sessions_from: usize,
    /// Refuses sessions from this number on.
    pub(crate) refuses_from: usize,
    /// Admits sessions from this number on again.
    pub(crate) refuses_to: usize,
    /// The response to refused sessions.
    pub(crate) refusal: &'static str,
    /// Reports that it is overloaded, and this number of Kafka pauses.
    pub(crate) overloaded_pauses: Option<u64>,
    /// Closes sessions that do not read.
    pub(crate) closes_slow: bool,
    /// Keeps the newest event for sessions that do not read, and names the others in a gap.
    pub(crate) conflates: bool,
    /// Names one event less than it omits.
    pub(crate) hides_one: bool,
    /// Omits the first missed event of a resuming session.
    pub(crate) resumes_short: bool,
    /// Does not know the requested position.
    pub(crate) forgets: bool,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        loses: false,
        silent_sessions_from: usize::MAX,
        refuses_from: usize::MAX,
        refuses_to: usize::MAX,
        refusal: "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        overloaded_pauses: None,
        closes_slow: false,
        conflates: false,
        hides_one: false,
        resumes_short: false,
        forgets: false,
    };
}

#[derive(Default)]
struct Sessions {
    channels: Channels,
    opened: AtomicUsize,
    live: AtomicUsize,
    /// Text messages of sessions after their subscription.
    texts: AtomicUsize,
}

impl Server {
    /// Serves until the test's process ends. If `loses` is set, the server omits an event of the first
    /// session.
    pub(crate) fn start(loses: bool) -> Self {
        Self::start_with(Faults { loses, ..Faults::NONE })
    }

    /// Starts a server with these faults.
    pub(crate) fn start_with(faults: Faults) -> Self {
        let cluster = Cluster::host(1).expect("a mock cluster");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
        let sessions = Arc::new(Sessions::default());
        let brokers = cluster.bootstrap().to_owned();
        let (of_consumer, bootstrap) = (Arc::clone(&sessions.channels), brokers.clone());
        thread::spawn(move || consume(&bootstrap, &of_consumer));
        let of_listener = Arc::clone(&sessions);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sessions = Arc::clone(&of_listener);
                thread::spawn(move || serve(stream, &sessions, faults));
            }
        });
        Self { url, brokers, sessions, _cluster: cluster }
    }

    /// Number of messages that sessions sent after they had subscribed.
    pub(crate) fn texts(&self) -> usize {
        self.sessions.texts.load(Ordering::SeqCst)
    }
}

fn consume(bootstrap: &str, channels: &Channels) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "test").set("fetch.wait.max.ms", "5");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&partitions).expect("an assignment");
    loop {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let token = std::str::from_utf8(record.key().expect("a key")).expect("UTF-8");
        let position = Position { partition: record.partition(), offset: record.offset() };
        let timestamp = record.timestamp().to_millis().expect("a timestamp");
        let mut text = Vec::new();
        write_event(&mut text, position, timestamp, token, KIND, record.payload()).expect("UTF-8");
        let text: Arc<str> = String::from_utf8(text).expect("UTF-8").into();
        let mut channels = channels.lock().expect("no panic");
        let channel = channels.entry(format!("{token}.{KIND}")).or_default();
        channel.history.push((position, Arc::clone(&text)));
        channel.sessions.retain(|session| session.send((position, Arc::clone(&text))).is_ok());
    }
}

/// `None` when the session is over.
fn serve(mut stream: TcpStream, sessions: &Sessions, faults: Faults) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if faults.closes_slow || faults.conflates {
        // With a small buffer, a session that does not read is detected soon, without more bytes than a busy
        // machine can move.
        socket2::SockRef::from(&stream).set_send_buffer_size(64 * 1024).ok()?;
    }
    let mut request = [0; 4096];
    let length = stream.peek(&mut request).ok()?;
    if request[..length].starts_with(b"GET /metrics") {
        stream.read_exact(&mut request[..length]).ok()?;
        return show_metrics(&mut stream, sessions, &faults);
    }
    let number = sessions.opened.fetch_add(1, Ordering::SeqCst);
    if (faults.refuses_from..faults.refuses_to).contains(&number) {
        stream.read_exact(&mut request[..length]).ok()?;
        return stream.write_all(faults.refusal.as_bytes()).ok();
    }
    let socket = tungstenite::accept(stream).ok()?;
    sessions.live.fetch_add(1, Ordering::SeqCst);
    let is_deaf = number >= faults.silent_sessions_from;
    let over = talk(socket, sessions, &faults, faults.loses && number == 0, is_deaf);
    sessions.live.fetch_sub(1, Ordering::SeqCst);
    over
}

fn show_metrics(stream: &mut TcpStream, sessions: &Sessions, faults: &Faults) -> Option<()> {
    let live = sessions.live.load(Ordering::SeqCst);
    let mut page = format!("ws_connections_active{{shard=\"0\"}} {live}\n");
    let is_overloaded = u8::from(faults.overloaded_pauses.is_some());
    page.push_str(&format!("ws_overloaded {is_overloaded}\n"));
    // No pauses before the first session.
    let pauses = faults.overloaded_pauses.filter(|_| live > 0).unwrap_or_default();
    page.push_str(&format!("ws_kafka_pauses_total{{shard=\"0\",reason=\"cpu\"}} {pauses}\n"));
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
    stream.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes()).ok()
}

fn talk(
    mut socket: WebSocket<TcpStream>,
    sessions: &Sessions,
    faults: &Faults,
    loses: bool,
    is_deaf: bool,
) -> Option<()> {
    let events = subscribe(&mut socket, &sessions.channels, faults)?;
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(2))).ok()?;
    socket.get_ref().set_write_timeout(faults.closes_slow.then_some(WRITE_MAX)).ok()?;
    let mut sent = 0;
    loop {
        let mut waiting: Vec<Event> = events.try_iter().collect();
        if faults.conflates && waiting.len() > BACKLOG_MAX {
            let newest = waiting.pop();
            let named = waiting.len() - usize::from(faults.hides_one) - 1;
            let (from, to) = (waiting[0].0, waiting[named].0);
            let gap = json!({"type": "gap", "channel": "*.trade", "from": from, "to": to, "reason": "slow_consumer"});
            socket.send(Message::text(gap.to_string())).ok()?;
            waiting = newest.into_iter().collect();
        }
        for (_, event) in waiting {
            sent += 1;
            let is_lost = is_deaf || loses && sent == LOST_EVENT;
            if !is_lost {
                socket.send(Message::text(&*event)).ok()?;
            }
        }
        match socket.read() {
            Ok(Message::Close(_)) => {
                // This flush sends the answer to the close.
                let _ = socket.flush();
                return None;
            }
            Ok(Message::Text(_)) => {
                sessions.texts.fetch_add(1, Ordering::SeqCst);
            }
            Ok(_) => {}
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
}

fn subscribe(
    socket: &mut WebSocket<TcpStream>,
    channels: &Channels,
    faults: &Faults,
) -> Option<Receiver<Event>> {
    let message: Value = serde_json::from_str(socket.read().ok()?.to_text().ok()?).expect("JSON");
    let names = message["data"]["channels"].as_array().expect("channels").clone();
    let since = &message["data"]["since"];
    let (send, events) = channel();
    let mut ack = json!({"type": "subscription_ack", "subscribed": names, "count": names.len()});
    if faults.forgets && since.is_object() {
        ack["not_resumed"] = json!([{"channel": names[0], "code": "unknown_position", "message": "gone"}]);
    }
    socket.send(Message::text(ack.to_string())).ok()?;
    for name in names {
        let name = name.as_str().expect("a name");
        let mut missed = Vec::new();
        {
            let mut channels = channels.lock().expect("no panic");
            let channel = channels.entry(name.to_owned()).or_default();
            if let Some(last) = since[name].as_str().and_then(|text| text.parse::<Position>().ok()) {
                missed.extend(channel.history.iter().filter(|(position, _)| *position > last).cloned());
            }
            channel.sessions.push(send.clone());
        }
        if since.is_object() && !faults.forgets {
            for (_, event) in missed.iter().skip(usize::from(faults.resumes_short)) {
                socket.send(Message::text(&**event)).ok()?;
            }
            let resumed = json!({"type": "resumed", "channel": name, "replayed": missed.len()});
            socket.send(Message::text(resumed.to_string())).ok()?;
        }
    }
    Some(events)
}
