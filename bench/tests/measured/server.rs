//! A small server of the gateway's protocol behind the test's own mock cluster: a thread for the consumer, one for each session.

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

/// Of each session's stream, this event is left out when the server is to lose something.
const LOST_EVENT: usize = 5;

type Subscribers = Arc<Mutex<HashMap<String, Vec<Sender<Arc<str>>>>>>;

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) brokers: String,
    sessions: Arc<Sessions>,
    _cluster: Cluster,
}

/// What the server does wrong.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// Leaves out an event of the first session.
    pub(crate) loses: bool,
    /// Acknowledges the sessions from this number on, and sends them nothing.
    pub(crate) deaf_from: usize,
    /// Refuses those from this number on.
    pub(crate) refuses_from: usize,
}

impl Faults {
    pub(crate) const NONE: Self = Self { loses: false, deaf_from: usize::MAX, refuses_from: usize::MAX };
}

#[derive(Default)]
struct Sessions {
    subscribers: Subscribers,
    opened: AtomicUsize,
    live: AtomicUsize,
    /// Texts of sessions behind their subscription.
    texts: AtomicUsize,
}

impl Server {
    /// Serves until the test's process ends. One that loses leaves out an event of the first session.
    pub(crate) fn start(loses: bool) -> Self {
        Self::start_with(Faults { loses, ..Faults::NONE })
    }

    /// The same with other faults.
    pub(crate) fn start_with(faults: Faults) -> Self {
        let cluster = Cluster::host(1).expect("a mock cluster");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
        let sessions = Arc::new(Sessions::default());
        let brokers = cluster.bootstrap().to_owned();
        let (of_consumer, bootstrap) = (Arc::clone(&sessions.subscribers), brokers.clone());
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

    /// What sessions said after they had subscribed.
    pub(crate) fn texts(&self) -> usize {
        self.sessions.texts.load(Ordering::SeqCst)
    }
}

fn consume(bootstrap: &str, subscribers: &Subscribers) {
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
        if let Some(sessions) = subscribers.lock().expect("no panic").get_mut(&format!("{token}.{KIND}")) {
            sessions.retain(|session| session.send(Arc::clone(&text)).is_ok());
        }
    }
}

/// `None` when the session is over.
fn serve(mut stream: TcpStream, sessions: &Sessions, faults: Faults) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut request = [0; 4096];
    let length = stream.peek(&mut request).ok()?;
    if request[..length].starts_with(b"GET /metrics") {
        stream.read_exact(&mut request[..length]).ok()?;
        return show_metrics(&mut stream, sessions.live.load(Ordering::SeqCst));
    }
    let number = sessions.opened.fetch_add(1, Ordering::SeqCst);
    if number >= faults.refuses_from {
        stream.read_exact(&mut request[..length]).ok()?;
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let socket = tungstenite::accept(stream).ok()?;
    sessions.live.fetch_add(1, Ordering::SeqCst);
    let is_deaf = number >= faults.deaf_from;
    let over = talk(socket, sessions, faults.loses && number == 0, is_deaf);
    sessions.live.fetch_sub(1, Ordering::SeqCst);
    over
}

fn show_metrics(stream: &mut TcpStream, live: usize) -> Option<()> {
    let page = format!("ws_connections_active{{shard=\"0\"}} {live}\n");
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
    stream.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes()).ok()
}

fn talk(mut socket: WebSocket<TcpStream>, sessions: &Sessions, loses: bool, is_deaf: bool) -> Option<()> {
    let events = subscribe(&mut socket, &sessions.subscribers)?;
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(2))).ok()?;
    let mut sent = 0;
    loop {
        while let Ok(event) = events.try_recv() {
            sent += 1;
            let is_lost = is_deaf || loses && sent == LOST_EVENT;
            if !is_lost {
                socket.send(Message::text(&*event)).ok()?;
            }
        }
        match socket.read() {
            Ok(Message::Close(_)) => {
                // The close is answered by this flush.
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

fn subscribe(socket: &mut WebSocket<TcpStream>, subscribers: &Subscribers) -> Option<Receiver<Arc<str>>> {
    let message: Value = serde_json::from_str(socket.read().ok()?.to_text().ok()?).expect("JSON");
    let channels = message["data"]["channels"].as_array().expect("channels").clone();
    let (send, events) = channel();
    let ack = json!({"type": "subscription_ack", "subscribed": channels, "count": channels.len()});
    socket.send(Message::text(ack.to_string())).ok()?;
    let mut subscribers = subscribers.lock().expect("no panic");
    for name in channels {
        let name = name.as_str().expect("a name").to_owned();
        subscribers.entry(name).or_default().push(send.clone());
    }
    Some(events)
}
