//! A session that is read message by message.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::time::Instant;

use protocol::Position;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::answer::{Answer, Positions, Refusal};
use super::lane::Lane;
use super::{Gateway, PATIENCE};

/// See the module. Dropping it drops the connection, without a close.
pub(crate) struct Reader {
    socket: WebSocket<TcpStream>,
    /// What came before an acknowledgement.
    early: VecDeque<Answer>,
}

/// What a subscription was answered with.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) subscribed: Vec<String>,
    pub(crate) not_resumed: Vec<Refusal>,
    pub(crate) positions: Positions,
}

/// Events in the order in which they came, by partition.
pub(crate) type Offsets = BTreeMap<i32, Vec<i64>>;

impl Reader {
    /// Connects and subscribes, with positions in the answer; `since` is null or what to resume.
    pub(crate) fn subscribe(gateway: &Gateway, channel: &str, since: &Value) -> (Self, Ack) {
        let mut data = json!({"channels": [channel], "positions": true});
        if !since.is_null() {
            data["since"] = json!({ channel: since });
        }
        Self::ask(gateway, &data)
    }

    /// Connects and subscribes with a snapshot.
    pub(crate) fn snapshot(gateway: &Gateway, channel: &str) -> Self {
        Self::ask(gateway, &json!({"channels": [channel], "snapshot": true})).0
    }

    fn ask(gateway: &Gateway, data: &Value) -> (Self, Ack) {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut socket, _) = tungstenite::client("ws://localhost/ws", stream).unwrap();
        socket.send(Message::text(json!({"type": "subscribe", "data": data}).to_string())).unwrap();
        let mut reader = Self { socket, early: VecDeque::new() };
        loop {
            match reader.read() {
                Answer::SubscriptionAck { subscribed, rejected, not_resumed, positions, .. } => {
                    assert!(rejected.is_empty(), "{rejected:?}");
                    return (reader, Ack { subscribed, not_resumed, positions });
                }
                early => reader.early.push_back(early),
            }
        }
    }

    /// The next message, whatever it is.
    pub(crate) fn next(&mut self) -> Answer {
        self.early.pop_front().unwrap_or_else(|| self.read())
    }

    fn read(&mut self) -> Answer {
        let asked_at = Instant::now();
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return Answer::read(text.as_str()),
                // They come whatever happens: the read's own deadline is none.
                Message::Ping(_) => assert!(asked_at.elapsed() < PATIENCE, "nothing came but pings"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message, which is an event.
    pub(crate) fn event(&mut self) -> Position {
        match self.next() {
            Answer::Event { lane: Lane { partition, .. }, offset } => Position { partition, offset },
            other => panic!("not an event: {other:?}"),
        }
    }

    /// The next event, of those that are sent again or of the live ones.
    pub(crate) fn event_of_any_age(&mut self) -> Position {
        match self.next() {
            Answer::Resumed { .. } => self.event(),
            Answer::Event { lane: Lane { partition, .. }, offset } => Position { partition, offset },
            other => panic!("not an event: {other:?}"),
        }
    }

    /// So many events, and no other message among them.
    pub(crate) fn events(&mut self, count: usize) -> Offsets {
        let mut offsets = Offsets::new();
        for _ in 0..count {
            let position = self.event();
            offsets.entry(position.partition).or_default().push(position.offset);
        }
        offsets
    }

    /// Events until the channel is live, and how many the gateway says it has sent again.
    pub(crate) fn replay(&mut self, channel: &str) -> (Offsets, u64) {
        let mut offsets = Offsets::new();
        loop {
            match self.next() {
                Answer::Event { lane, offset } => offsets.entry(lane.partition).or_default().push(offset),
                Answer::Resumed { channel: of, replayed } => {
                    assert_eq!(of, channel);
                    return (offsets, replayed);
                }
                other => panic!("neither an event nor the end of the replay: {other:?}"),
            }
        }
    }
}
