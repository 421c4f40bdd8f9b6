//! A session that writes down all it gets, on a thread of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use protocol::{Channel, GapReason, Pattern, Position, ServerMessage};
use serde::Deserialize;
use serde_json::json;
use tungstenite::{Message, WebSocket};

use super::{Gateway, PARTITIONS, PATIENCE, Producer, Record, TOPICS};

/// The token of records that mark a place in a partition.
const FENCE: &str = "FENCE";

/// An event as it came. Its channel is in its record, and was compared when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) position: Position,
    pub(crate) id: usize,
    pub(crate) seq: u64,
}

/// The value of a record, see `Record::value`.
#[derive(Deserialize)]
struct Value<'a> {
    id: usize,
    seq: u64,
    channel: &'a str,
}

/// What a session got.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// By kind, in the order in which they came.
    pub(crate) events: BTreeMap<String, Vec<Event>>,
    /// Kind or wildcard's name, first and last position, reason.
    pub(crate) gaps: Vec<(String, Position, Position, GapReason)>,
}

impl Log {
    pub(crate) fn count(&self) -> usize {
        self.events.values().map(Vec::len).sum()
    }

    /// Offsets of a partition, in the order in which they came.
    pub(crate) fn offsets(&self, kind: &str, partition: i32) -> Vec<i64> {
        let events = self.events.get(kind).into_iter().flatten();
        events
            .map(|event| event.position)
            .filter(|at| at.partition == partition)
            .map(|at| at.offset)
            .collect()
    }

    /// # Panics
    /// Unless offsets rise strictly in each partition, and `seq` in each channel, by the records' own account.
    pub(crate) fn assert_in_order(&self, records: &[Record]) {
        for (kind, events) in &self.events {
            let mut next: HashMap<i32, i64> = HashMap::new();
            let mut seqs: HashMap<&str, u64> = HashMap::new();
            for event in events {
                let next = next.entry(event.position.partition).or_default();
                assert!(event.position.offset >= *next, "{kind}: {event:?} comes after offset {next}");
                *next = event.position.offset + 1;
                if records[event.id].is_fence() {
                    // One token in every partition.
                    continue;
                }
                let seq = seqs.entry(&records[event.id].token).or_default();
                assert!(event.seq >= *seq, "{kind}: {event:?} comes after seq {seq}");
                *seq = event.seq + 1;
            }
        }
    }
}

/// See the module.
pub(crate) struct Session {
    socket: WebSocket<TcpStream>,
    patterns: Vec<String>,
    /// The next offset of each kind's partitions, as the ack told.
    pub(crate) cut: BTreeMap<String, Vec<Position>>,
    received: Arc<AtomicUsize>,
}

impl Session {
    /// A session with these channels and wildcards, and the fence's.
    pub(crate) fn subscribe(gateway: &Gateway, patterns: &[&str]) -> Self {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut socket, _) = tungstenite::client("ws://localhost/ws", stream).unwrap();
        let fence = format!("{FENCE}.*");
        let channels: Vec<&str> = patterns.iter().copied().chain([fence.as_str()]).collect();
        let request = json!({"type": "subscribe", "data": {"channels": channels, "positions": true}});
        socket.send(Message::text(request.to_string())).unwrap();
        let answer = socket.read().unwrap();
        let ServerMessage::SubscriptionAck(ack) = ServerMessage::parse(answer.to_text().unwrap()).unwrap()
        else {
            panic!("{answer:?}");
        };
        assert_eq!(ack.subscribed.len(), channels.len(), "{answer:?}");
        let cut = ack
            .positions
            .unwrap()
            .into_iter()
            .map(|(kind, positions)| (kind.into_owned(), positions))
            .collect();
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Self { socket, patterns, cut, received: Arc::default() }
    }

    pub(crate) fn selects(&self, record: &Record) -> bool {
        let channel = Channel { token: &record.token, kind: record.kind() };
        self.patterns.iter().any(|pattern| Pattern::parse(pattern).unwrap().selects(channel))
    }

    /// How many events came so far, while another thread reads.
    pub(crate) fn received(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.received)
    }

    /// Writes down what comes until so many fences have come, on a thread; gives the session back.
    pub(crate) fn read_to_fences(mut self, fences: usize) -> JoinHandle<(Self, Log)> {
        thread::spawn(move || {
            let mut log = Log::default();
            let mut fences_left = fences;
            // Pings come whatever happens: the read's own deadline is none.
            let mut heard_at = Instant::now();
            while fences_left > 0 {
                assert!(
                    heard_at.elapsed() < PATIENCE,
                    "{:?} got {} events, no more",
                    self.patterns,
                    log.count()
                );
                match self.socket.read() {
                    Ok(Message::Text(text)) => {
                        heard_at = Instant::now();
                        if self.note(text.as_str(), &mut log) {
                            fences_left -= 1;
                        }
                    }
                    Ok(Message::Ping(_)) => {}
                    other => panic!("{:?} got {other:?} after {} events", self.patterns, log.count()),
                }
            }
            (self, log)
        })
    }

    /// Whether it was a fence.
    fn note(&mut self, text: &str, log: &mut Log) -> bool {
        match ServerMessage::parse(text).unwrap() {
            ServerMessage::Event(event) => {
                let value: Value<'_> = serde_json::from_str(event.data.unwrap().get()).unwrap();
                assert_eq!(event.channel, value.channel, "{text}");
                assert_eq!(event.seq, event.pos.offset, "{text}");
                let (token, kind) = event.channel.rsplit_once('.').unwrap();
                if !log.events.contains_key(kind) {
                    log.events.insert(kind.to_owned(), Vec::new());
                }
                let event = Event { position: event.pos, id: value.id, seq: value.seq };
                log.events.get_mut(kind).unwrap().push(event);
                self.received.fetch_add(1, Ordering::Relaxed);
                token == FENCE
            }
            ServerMessage::Gap(gap) => {
                log.gaps.push((gap.channel.into_owned(), gap.from, gap.to, gap.reason));
                false
            }
            // What the acknowledgement could not say.
            ServerMessage::Positions(_) => false,
            other => panic!("{other:?}"),
        }
    }
}

impl Record {
    pub(crate) fn is_fence(&self) -> bool {
        self.token == FENCE
    }

    /// One that marks a place in a partition.
    pub(crate) fn fence(id: usize, topic: &str, partition: i32) -> Self {
        Self { partition: Some(partition), ..Self::new(id, topic, FENCE, id as u64) }
    }
}

impl Producer {
    /// Marks the end of every partition of the eight topics: within each, what was produced before arrives before. Appends
    /// the records.
    pub(crate) fn fence(&self, records: &mut Vec<Record>) -> Vec<(usize, Position)> {
        let first = records.len();
        for topic in TOPICS {
            records.extend((0..PARTITIONS).map(|partition| Record::fence(0, topic, partition)));
        }
        for (id, record) in records.iter_mut().enumerate().skip(first) {
            record.id = id;
            record.seq = id as u64;
        }
        self.send_all(&records[first..])
    }
}

/// Fences of [`Producer::fence`].
pub(crate) const FENCES: usize = TOPICS.len() * PARTITIONS as usize;
