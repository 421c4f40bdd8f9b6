//! A small server of the gateway's protocol behind the test's own mock cluster: a thread for the consumer, one for each session.

use std::collections::HashMap;
use std::io::ErrorKind;
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
    _cluster: Cluster,
}

impl Server {
    /// Serves until the test's process ends. One that loses leaves out an event of the first session.
    pub(crate) fn start(loses: bool) -> Self {
        let cluster = Cluster::host(1).expect("a mock cluster");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("it is bound"));
        let subscribers = Subscribers::default();
        let brokers = cluster.bootstrap().to_owned();
        let (of_consumer, bootstrap) = (Arc::clone(&subscribers), brokers.clone());
        thread::spawn(move || consume(&bootstrap, &of_consumer));
        thread::spawn(move || {
            let sessions = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming().flatten() {
                let (subscribers, sessions) = (Arc::clone(&subscribers), Arc::clone(&sessions));
                thread::spawn(move || serve(stream, &subscribers, &sessions, loses));
            }
        });
        Self { url, brokers, _cluster: cluster }
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
fn serve(stream: TcpStream, subscribers: &Subscribers, sessions: &AtomicUsize, loses: bool) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut socket = tungstenite::accept(stream).ok()?;
    // Counted behind the handshake: who asks for metrics comes to the same port.
    let loses = loses && sessions.fetch_add(1, Ordering::Relaxed) == 0;
    let events = subscribe(&mut socket, subscribers)?;
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(2))).ok()?;
    let mut sent = 0;
    loop {
        while let Ok(event) = events.try_recv() {
            sent += 1;
            if !(loses && sent == LOST_EVENT) {
                socket.send(Message::text(&*event)).ok()?;
            }
        }
        match socket.read() {
            Ok(Message::Close(_)) => {
                // The close is answered by this flush.
                let _ = socket.flush();
                return None;
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
