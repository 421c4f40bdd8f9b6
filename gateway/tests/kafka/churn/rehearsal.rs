//! The clients and the audit without Kafka: a small gateway that keeps its promise, and ones that break it in one way each.
//! A test that passes whatever the gateway does would prove nothing.
//!
//! The second gateway sees every event a little later than the first.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use protocol::Position;
use serde_json::{Value, json};
use testkit::pace;
use tokio::sync::watch;
use tungstenite::{Message, WebSocket};

use super::scene::{Pace, Scene, Stage, Tally};
use super::wants::TOKENS;
use super::{faults, settle, start_clients};
use crate::harness::audit::Truth;
use crate::harness::lane::{Lane, Selection, kind_name};
use crate::harness::{PARTITIONS, TOPICS, random_of};

const CLIENTS: usize = 60;
const PACE: Pace = Pace {
    arrival_max: Duration::from_millis(200),
    pause_max: Duration::from_millis(300),
    absence_max: Duration::from_millis(100),
    retry_max: Duration::from_millis(300),
};
const LOAD: Duration = Duration::from_secs(2);
const EVENTS_PER_SECOND: f64 = 2_000.0;
const LAGS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(60)];
/// Of a session's turns, and how much of a partition it moves at most in one: a replay takes several.
const TURN: Duration = Duration::from_millis(4);
const OFFSETS_PER_TURN: i64 = 20;
/// What is broken is broken at every offset that this divides.
const BROKEN_EVERY: i64 = 16;

#[derive(Clone, Copy, PartialEq)]
enum Vice {
    None,
    LosesEvents,
    RepeatsEvents,
    ResumesWithTheLastEvent,
    ResumesFromTheCut,
    GoesOnAfterUnsubscribe,
}

/// Token and time of each event, by kind and partition; an event's place is its offset.
type Events = BTreeMap<(u8, i32), Vec<(u16, Instant)>>;

struct Stream {
    events: Mutex<Events>,
    vice: Vice,
    is_over: AtomicBool,
}

#[test]
fn a_gateway_that_keeps_its_promise_passes() {
    let (faults, tally) = rehearse(Vice::None);
    assert_eq!(faults, BTreeMap::new());
    assert_eq!(tally.settled, CLIENTS);
    assert!(tally.resumes > CLIENTS as u64 && tally.replayed > CLIENTS as u64, "{tally:?}");
}

#[test]
fn a_gateway_that_breaks_its_promise_fails() {
    let vices = [
        (Vice::LosesEvents, "Lost"),
        (Vice::RepeatsEvents, "Repeated"),
        (Vice::ResumesWithTheLastEvent, "Repeated"),
        (Vice::ResumesFromTheCut, "Lost"),
        (Vice::GoesOnAfterUnsubscribe, "Unasked"),
    ];
    let rehearsals = vices.map(|(vice, fault)| (thread::spawn(move || rehearse(vice)), fault));
    for (rehearsal, fault) in rehearsals {
        let (faults, _) = rehearsal.join().unwrap();
        assert!(faults.contains_key(fault), "{fault} is not among {faults:?}");
    }
}

fn rehearse(vice: Vice) -> (BTreeMap<String, usize>, Tally) {
    let mut random = random_of("CHURN_SEED");
    let stream = Arc::new(Stream { events: Mutex::default(), vice, is_over: AtomicBool::new(false) });
    let scene = Arc::new(Scene::new(LAGS.map(|lag| listen(&stream, lag)), PACE));
    let (stage, stages) = watch::channel(Stage::Churn);
    let clients = start_clients(CLIENTS, &scene, &stages, &mut random);
    let goes_on = |elapsed| elapsed < LOAD;
    pace(EVENTS_PER_SECOND, goes_on, |_| {
        let (token, kind) = (random.u16(..TOKENS), random.u8(..TOPICS.len() as u8));
        let partition = i32::from(token) % PARTITIONS;
        let mut events = stream.events.lock().unwrap();
        events.entry((kind, partition)).or_default().push((token, Instant::now()));
    });
    let truth = Arc::new(truth(&stream.events.lock().unwrap()));
    // What is lost will not come, however long the clients wait.
    let patience = Duration::from_secs(if vice == Vice::None { 10 } else { 1 });
    settle(CLIENTS, &scene, &stage, &truth, patience);
    let histories = clients.join().unwrap();
    stream.is_over.store(true, Ordering::Relaxed);
    let tally = std::mem::take(&mut *scene.tally.lock().unwrap());
    (faults(&histories, &truth), tally)
}

fn truth(events: &Events) -> Truth {
    let mut truth = Truth::new();
    for (&(kind, partition), events) in events {
        for (offset, &(token, _)) in events.iter().enumerate() {
            truth.entry(Lane { token, kind, partition }).or_default().push(offset as i64);
        }
    }
    truth
}

/// A gateway: a thread for each session, until the stream is over.
fn listen(stream: &Arc<Stream>, lag: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let stream = Arc::clone(stream);
    thread::spawn(move || {
        while !stream.is_over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((socket, _)) => {
                    let stream = Arc::clone(&stream);
                    thread::spawn(move || serve(socket, &stream, lag));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    address
}

struct Subscription {
    selection: Selection,
    /// The next offset of each kind and partition.
    cursors: BTreeMap<(u8, i32), i64>,
    /// How many events it has resumed, until it has said so.
    resuming: Option<u64>,
}

struct Served<'a> {
    socket: WebSocket<TcpStream>,
    stream: &'a Stream,
    lag: Duration,
    subscriptions: Vec<Subscription>,
}

fn serve(socket: TcpStream, stream: &Stream, lag: Duration) {
    socket.set_nonblocking(false).unwrap();
    socket.set_nodelay(true).unwrap();
    let Ok(socket) = tungstenite::accept(socket) else { return };
    socket.get_ref().set_read_timeout(Some(TURN)).unwrap();
    let mut served = Served { socket, stream, lag, subscriptions: Vec::new() };
    while !stream.is_over.load(Ordering::Relaxed) {
        let turn = match served.socket.read() {
            Ok(message) => served.answer(&serde_json::from_str(message.to_text().unwrap()).unwrap()),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => served.deliver(),
            Err(_) => return,
        };
        // The client has gone.
        if turn.is_err() {
            return;
        }
    }
}

impl Served<'_> {
    fn say(&mut self, message: &Value) -> tungstenite::Result<()> {
        self.socket.send(Message::text(message.to_string()))
    }

    /// How much of each partition there is to see.
    fn heads(&self) -> BTreeMap<(u8, i32), i64> {
        let events = self.stream.events.lock().unwrap();
        let partitions =
            (0..TOPICS.len() as u8).flat_map(|kind| (0..PARTITIONS).map(move |number| (kind, number)));
        let head = |place: (u8, i32)| {
            let events = events.get(&place).map_or(&[][..], Vec::as_slice);
            (place, events.partition_point(|(_, at)| at.elapsed() >= self.lag) as i64)
        };
        partitions.map(head).collect()
    }

    fn answer(&mut self, request: &Value) -> tungstenite::Result<()> {
        let names: Vec<&str> = request["data"]["channels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let selections = names.iter().map(|name| Selection::parse(name).unwrap());
        if request["type"] == "unsubscribe" {
            if self.stream.vice != Vice::GoesOnAfterUnsubscribe {
                let selections: Vec<_> = selections.collect();
                self.subscriptions.retain(|subscription| !selections.contains(&subscription.selection));
            }
            return self.say(&json!({"type": "unsubscription_ack", "unsubscribed": names, "count": 0}));
        }
        let heads = self.heads();
        for selection in selections {
            let since = &request["data"]["since"][selection.to_string()];
            let own = heads.iter().filter(|&(&(kind, _), _)| selection.kind.is_none_or(|own| own == kind));
            let cursors =
                own.map(|(&place, &head)| (place, self.begin(selection, since, place, head))).collect();
            let resuming = (!since.is_null()).then_some(0);
            self.subscriptions.push(Subscription { selection, cursors, resuming });
        }
        let mut positions: BTreeMap<&str, Vec<Position>> = BTreeMap::new();
        for ((kind, partition), offset) in heads {
            positions.entry(kind_name(kind)).or_default().push(Position { partition, offset });
        }
        self.say(&json!({"type": "subscription_ack", "subscribed": names, "count": 0,
            "positions": positions}))
    }

    /// Where a subscription begins in one partition.
    fn begin(&self, selection: Selection, since: &Value, place: (u8, i32), head: i64) -> i64 {
        let (kind, partition) = place;
        let since = if selection.token.is_some() && selection.kind.is_some() {
            since
        } else {
            &since[kind_name(kind)]
        };
        let position = |value: &Value| value.as_str().unwrap().parse::<Position>().unwrap();
        match (self.stream.vice, since) {
            (Vice::ResumesFromTheCut, _) | (_, Value::Null) => head,
            (vice, Value::String(_)) => {
                let last = position(since);
                let after = i64::from(vice != Vice::ResumesWithTheLastEvent);
                if last.partition == partition { last.offset + after } else { head }
            }
            (_, list) => {
                let mut list = list.as_array().unwrap().iter().map(position);
                list.find(|first| first.partition == partition).map_or(0, |first| first.offset)
            }
        }
    }

    /// A turn: of each partition some events after the least cursor, each if one of the subscriptions is to have it.
    fn deliver(&mut self) -> tungstenite::Result<()> {
        let heads = self.heads();
        for (place, head) in &heads {
            let cursors =
                self.subscriptions.iter().filter_map(|subscription| subscription.cursors.get(place));
            let Some(&from) = cursors.min() else { continue };
            let to = (*head).min(from + OFFSETS_PER_TURN);
            for offset in from..to {
                self.send_event(*place, offset)?;
            }
            for subscription in &mut self.subscriptions {
                if let Some(cursor) = subscription.cursors.get_mut(place) {
                    *cursor = to.max(*cursor);
                }
            }
        }
        let mut live = Vec::new();
        for subscription in &mut self.subscriptions {
            let is_live = subscription.cursors.iter().all(|(place, &cursor)| cursor >= heads[place]);
            if is_live && let Some(replayed) = subscription.resuming.take() {
                live.push(json!({"type": "resumed", "channel": subscription.selection.to_string(),
                    "replayed": replayed}));
            }
        }
        live.iter().try_for_each(|message| self.say(message))
    }

    fn send_event(&mut self, place: (u8, i32), offset: i64) -> tungstenite::Result<()> {
        let (kind, partition) = place;
        let (token, _) = self.stream.events.lock().unwrap()[&place][offset as usize];
        let lane = Lane { token, kind, partition };
        let mut is_wanted = false;
        for subscription in &mut self.subscriptions {
            let has_come_to_it = subscription.cursors.get(&place).is_some_and(|&cursor| cursor <= offset);
            if has_come_to_it && subscription.selection.selects(lane) {
                is_wanted = true;
                subscription.resuming.iter_mut().for_each(|replayed| *replayed += 1);
            }
        }
        let is_broken = offset % BROKEN_EVERY == 0;
        let times = match self.stream.vice {
            _ if !is_wanted => 0,
            Vice::LosesEvents if is_broken => 0,
            Vice::RepeatsEvents if is_broken => 2,
            _ => 1,
        };
        let text = format!(
            r#"{{"seq":{offset},"ts":0,"type":"price:update","priority":1,"channel":"T{token}.{}","pos":"{partition}:{offset}","data":0}}"#,
            kind_name(kind)
        );
        (0..times).try_for_each(|_| self.socket.send(Message::text(text.as_str())))
    }
}
