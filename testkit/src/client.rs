//! A client that follows the protocol: tungstenite's client over a blocking socket.

use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::PATIENCE;
use crate::cluster::{Cluster, PARTITIONS, Record, TOPICS, record};
use crate::gateway::Gateway;

/// The token of records that mark a position in every partition.
const FENCE: &str = "FENCE";

/// A client session over a blocking socket.
pub struct Client {
    /// The WebSocket of the session.
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects and completes the handshake.
    pub fn connect(gateway: &Gateway) -> Self {
        Self::over(TcpStream::connect(gateway.address).unwrap())
    }

    /// Completes the handshake over an existing connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client("ws://localhost/ws", stream).unwrap();
        Self { socket }
    }

    /// Connects and subscribes to these channels.
    pub fn subscribed(gateway: &Gateway, channels: &[&str]) -> Self {
        let mut client = Self::connect(gateway);
        let ack = client.subscribe(channels);
        assert_eq!(ack["subscribed"], json!(channels), "{ack}");
        client
    }

    /// Subscribes and waits for the answer, which must be the next message: no events may be in flight.
    pub fn subscribe(&mut self, channels: &[&str]) -> Value {
        self.ask(&json!({"type": "subscribe", "data": {"channels": channels}}))
    }

    /// Unsubscribes and waits for the answer, as [`Client::subscribe`] does.
    pub fn unsubscribe(&mut self, channels: &[&str]) -> Value {
        self.ask(&json!({"type": "unsubscribe", "data": {"channels": channels}}))
    }

    /// Sends any message and waits for the next one.
    pub fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.next()
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Sends any text.
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next message as text.
    pub fn next_text(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                // The read timeout of the socket restarts with each of these frames.
                Message::Ping(_) | Message::Pong(_) => assert!(Instant::now() < deadline, "no message comes"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message as JSON.
    #[allow(clippy::should_implement_trait, reason = "it has no end: it fails when nothing comes")]
    pub fn next(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next message, which has to be an event of this channel.
    pub fn next_event(&mut self, channel: &str) -> Value {
        let event = self.next();
        assert_eq!((&event["type"], &event["channel"]), (&"price:update".into(), &channel.into()), "{event}");
        event
    }

    /// The events that arrived before the ack, which are possible while the ack is in flight, and the ack.
    pub fn read_to_ack(&mut self) -> (Vec<Value>, Value) {
        let mut events = Vec::new();
        loop {
            let message = self.next();
            if message["type"] == "subscription_ack" {
                return (events, message);
            }
            events.push(message);
        }
    }

    /// Every message until the close, and the close.
    pub fn read_to_close(&mut self) -> (Vec<Value>, Option<CloseFrame>) {
        let mut messages = Vec::new();
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => messages.push(serde_json::from_str(text.as_str()).unwrap()),
                Ok(Message::Close(close)) => return (messages, close),
                Ok(_) => {}
                Err(error) => panic!("{error}, after {} messages", messages.len()),
            }
        }
    }

    /// The messages before the fence of each partition. The session is subscribed to `FENCE.*`.
    pub fn read_to_fence(&mut self) -> Vec<Value> {
        let mut fences = TOPICS.len() * PARTITIONS as usize;
        let mut messages = Vec::new();
        while fences > 0 {
            let message = self.next();
            let is_fence = message["channel"].as_str().is_some_and(|channel| channel.starts_with(FENCE));
            if is_fence { fences -= 1 } else { messages.push(message) }
        }
        messages
    }
}

impl Cluster {
    /// Produces a fence record to every partition: within each partition, records produced before it arrive
    /// before it.
    pub fn fence(&self) {
        let fences: Vec<Record> = TOPICS
            .into_iter()
            .flat_map(|topic| {
                (0..PARTITIONS).map(move |partition| record(topic, FENCE, "0").in_partition(partition))
            })
            .collect();
        self.produce(&fences);
    }
}
