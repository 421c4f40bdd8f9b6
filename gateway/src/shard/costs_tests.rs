//! The cost of the costliest messages, in operations, with the default limits: no message of a client takes a shard more than a
//! stated number of them, whatever the session holds and however it came to hold it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::frames::{TEXT, frame};
use testkit::handshake_request;
use wire::SocketId;

use super::core::Core;
use super::sizes;
use super::test_shard::{config_of, core_of, single_mesh};
use crate::counters::operations;
use crate::event::frame::{Framer, Record};
use crate::event::partition::{Partition, PartitionOffset};
use crate::kafka::polled::{Polled, ReadStart};
use crate::shared::Shared;

/// The maximum cost of one step of a message: its reading, its answer by the owner of partitions, and the handling of that
/// answer.
const OPERATIONS_MAX: u64 = 8_192;
/// The same for an answer with half an outbox of last events.
const SNAPSHOT_OPERATIONS_MAX: u64 = 24_000;
const KINDS: [&str; 8] =
    ["trade", "liquidity", "balances", "metadata", "social", "community", "creation", "analytics"];
const NUMBERS: i32 = 12;
const CHANNELS: usize = 256;

/// A shard with one session.
struct Rig {
    core: Core,
    framer: Framer,
    next: BTreeMap<Partition, i64>,
    now: Instant,
    /// The costliest message so far: operations, time and its beginning.
    most: (u64, Duration, String),
    /// The longest message: its time, operations and bytes.
    longest: (Duration, u64, usize),
}

fn socket() -> SocketId {
    SocketId::imagined(0, 1)
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let config = config_of(&[("WS_SHARDS", "1"), ("WS_MESSAGE_BURST", "1000000")]);
        let shared = Arc::new(Shared::new(1, None));
        let mut core = core_of(&config, &shared, &KINDS, &sizes::keeping(&config), single_mesh(), now);
        let all =
            (0..KINDS.len()).flat_map(|topic| (0..NUMBERS).map(move |number| Partition { topic, number }));
        let all: Vec<_> = all.collect();
        core.take(Polled::Layout(all.iter().map(|it| (*it, true)).collect()), now);
        let began = |&partition: &Partition| ReadStart {
            owned: PartitionOffset { partition, next: 0 },
            live_from: 0,
        };
        core.take(Polled::Began(all.iter().map(began).collect()), now);
        core.set_ready(now);
        let mut rig = Self {
            core,
            framer: Framer::default(),
            next: BTreeMap::new(),
            now,
            most: (0, Duration::ZERO, String::new()),
            longest: (Duration::ZERO, 0, 0),
        };
        rig.core.connections.accept(socket(), None, now);
        rig.core.receive(socket(), handshake_request().as_bytes(), now);
        rig
    }

    /// Publishes events with as many tokens, in all kinds and partitions.
    fn publish(&mut self, events: usize) {
        for event in 0..events {
            let (topic, number) = (event % KINDS.len(), (event / KINDS.len()) as i32 % NUMBERS);
            let (token, partition) = (format!("T{event}"), Partition { topic, number });
            let offset = self.next.entry(partition).or_default();
            let (kind, value) = (KINDS[topic], Some(&b"{}"[..]));
            let record = Record { token: &token, kind, partition, offset: *offset, timestamp_ms: 1, value };
            *offset += 1;
            let frame = self.framer.event(&record, 1024, self.now).expect("it fits");
            self.core.take(Polled::Event(frame), self.now);
        }
    }

    fn say(&mut self, text: &str) {
        let frame = frame(TEXT, true, text.as_bytes());
        self.step(text, |rig| rig.core.receive(socket(), &frame, rig.now));
        // Bytes that were not read at once are read when the session has paid.
        while self.unread() > 0 {
            self.now += Duration::from_secs(1);
            self.core.connections.resume_paid(self.now);
            self.step(text, |rig| _ = rig.core.serve_stash(rig.now));
        }
        while self.core.owner.has_waiting() {
            let mut answers = Vec::new();
            self.step(text, |rig| answers = rig.core.owner.answer_waiting(rig.now));
            for (home, begun) in answers {
                self.step(text, |rig| rig.core.connections.take_start_reply(home, begun, rig.now));
            }
        }
        self.drain_control();
    }

    /// Does the work between two looks at the clock.
    fn step(&mut self, text: &str, step: impl FnOnce(&mut Self)) {
        let (before, began) = (operations::done(), Instant::now());
        step(self);
        let cost = operations::done() - before;
        self.longest = self.longest.max((began.elapsed(), cost, text.len()));
        if cost >= self.most.0 {
            self.most = (cost, began.elapsed(), text.chars().take(60).collect());
        }
    }

    fn unread(&mut self) -> usize {
        let session = self.core.connections.sessions.find(socket()).expect("the session was not closed");
        session.cold.pace.stashed()
    }

    /// The client reads its answers, and no events.
    fn drain_control(&mut self) {
        let connections = &mut self.core.connections;
        let session = connections.sessions.find(socket()).expect("the session was not closed");
        let control = session.outbox.control_bytes();
        session.outbox.consume(control, &mut connections.frames, |_| ());
    }

    fn bring(&mut self) {
        while self.core.replay_some(self.now) {}
    }

    fn ends_below(self, name: &str, operations_max: u64) {
        let (cost, lasted, text) = self.most;
        println!("{name}: {cost} operations in {lasted:?}: {text}");
        let (longest, operations, bytes) = self.longest;
        println!("  the longest step: {longest:?}, {operations} operations, a message of {bytes} bytes");
        assert!(cost <= operations_max, "{name}: {cost} operations for {text}");
    }
}

fn names(prefix: &str, count: usize, suffix: &str) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}{suffix}")).collect()
}

fn message(kind: &str, channels: &[impl AsRef<str>], more: &str) -> String {
    let channels: Vec<_> = channels.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    format!(r#"{{"type":"{kind}","data":{{"channels":[{}]{more}}}}}"#, channels.join(","))
}

fn subscribe(channels: &[impl AsRef<str>]) -> String {
    message("subscribe", channels, "")
}

fn unsubscribe(channels: &[impl AsRef<str>]) -> String {
    message("unsubscribe", channels, "")
}

/// A `since` with this value for each channel.
fn since(channels: &[impl AsRef<str>], value: &str) -> String {
    let each: Vec<_> = channels.iter().map(|name| format!("\"{}\":{value}", name.as_ref())).collect();
    message("subscribe", channels, &format!(r#","since":{{{}}}"#, each.join(",")))
}

fn every_kind(value: &str) -> String {
    let kinds: Vec<_> = KINDS.iter().map(|kind| format!("\"{kind}\":{value}")).collect();
    format!("{{{}}}", kinds.join(","))
}

#[test]
fn giving_back_a_resumed_wildcard_and_junk_costs_what_is_named_and_held() {
    let mut rig = Rig::new();
    rig.publish(20_000);
    rig.say(&since(&["*"], &every_kind("[]")));
    let live = names("N", CHANNELS - 1, ".trade");
    rig.say(&subscribe(&live));
    rig.say(&unsubscribe(&["*"]));
    let mut junk = names("J", CHANNELS - 1, ".x");
    junk.insert(0, live[0].clone());
    rig.say(&unsubscribe(&junk));
    rig.ends_below("give back what is resumed", OPERATIONS_MAX);
}

#[test]
fn giving_names_back_over_a_full_outbox_costs_what_is_queued_and_held() {
    let mut rig = Rig::new();
    let mut all = names("J", CHANNELS - 1, ".x");
    all.push("*".to_owned());
    rig.say(&subscribe(&all));
    rig.publish(4_096);
    for some in all.rchunks(8).skip(1) {
        rig.say(&unsubscribe(some));
    }
    rig.ends_below("give back over a full outbox", OPERATIONS_MAX);
}

#[test]
fn wildcards_that_resume_in_every_kind_cost_what_is_named_times_the_kinds() {
    for value in ["[]", r#"["0:0","1:0","2:0"]"#] {
        let mut rig = Rig::new();
        rig.publish(20_000);
        let count = if value == "[]" { CHANNELS } else { 200 };
        rig.say(&since(&names("X", count, ".*"), &every_kind(value).replace(r#","1:0","2:0""#, "")));
        rig.bring();
        rig.say(&unsubscribe(&names("X", 100, ".*")));
        rig.ends_below("wildcards that resume", OPERATIONS_MAX);
    }
}

#[test]
fn wildcards_of_empty_partitions_cost_what_is_named_times_the_kinds() {
    let mut rig = Rig::new();
    rig.say(&since(&names("X", CHANNELS, ".*"), &every_kind("[]")));
    rig.ends_below("wildcards of empty partitions", OPERATIONS_MAX);
}

#[test]
fn messages_that_resume_one_by_one_cost_what_the_session_has_of_them() {
    let mut rig = Rig::new();
    rig.publish(20_000);
    for name in names("X", CHANNELS, ".*") {
        rig.say(&since(&[name], &every_kind("[]")));
    }
    for name in names("X", CHANNELS, ".*") {
        rig.say(&unsubscribe(&[name]));
    }
    rig.ends_below("resumes one by one", OPERATIONS_MAX);
}

#[test]
fn long_lists_of_positions_cost_what_is_named() {
    let mut rig = Rig::new();
    rig.publish(1_000);
    let places: Vec<_> = (0..2_400).map(|number| format!("\"{number}:9\"")).collect();
    let value = format!(r#"{{"trade":[{}]}}"#, places.join(","));
    rig.say(&since(&["A.*", "B.*", "*.trade"], &value)[..]);
    rig.say(&unsubscribe(&["A.*", "B.*", "*.trade"]));
    rig.ends_below("positions", OPERATIONS_MAX);
}

#[test]
fn a_snapshot_costs_what_half_an_outbox_takes_however_often_it_is_named() {
    let mut rig = Rig::new();
    rig.publish(2_000);
    let mut all = names("T", CHANNELS - 9, ".*");
    all.insert(0, "*".to_owned());
    all.extend(KINDS.map(|kind| format!("*.{kind}")));
    for _ in 0..3 {
        rig.say(&message("subscribe", &all, r#","snapshot":true"#));
        rig.say(&unsubscribe(&all));
    }
    rig.ends_below("snapshots", SNAPSHOT_OPERATIONS_MAX);
}

#[test]
fn names_in_every_order_held_doubled_and_not_cost_what_is_named_and_held() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new();
    rig.publish(3_000);
    rig.say(&since(&["*"], &every_kind("[]")));
    let mut pool = names("T", 200, ".trade");
    pool.extend(names("T", 20, ".*"));
    pool.extend(["*".to_owned(), "*.trade".to_owned()]);
    pool.extend(pool[..30].to_vec());
    for _ in 0..40 {
        random.shuffle(&mut pool);
        match random.u8(..3) {
            0 => rig.say(&subscribe(&pool)),
            1 => rig.say(&since(
                &pool[..40].iter().filter(|it| it.ends_with(".*")).collect::<Vec<_>>(),
                &every_kind("[]"),
            )),
            _ => rig.say(&unsubscribe(&pool[..random.usize(1..pool.len())])),
        }
        if random.bool() {
            rig.bring();
        }
    }
    rig.ends_below("every order", OPERATIONS_MAX);
}
