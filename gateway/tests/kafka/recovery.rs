//! Brokers that die under load: sessions stay, delivery goes on from the next offset, nothing is lost or comes twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::pace;

use crate::harness::{
    Brokers, Event, FENCES, Gateway, Launch, Log, PARTITIONS, Producer, Record, Session, TOPICS, Watch,
};

const EVENTS_PER_SECOND: f64 = 500.0;
const TOKENS: usize = 60;

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_broker_killed_for_1_s_costs_no_event() {
    kill_under_load(1, Duration::from_secs(1));
}

#[test]
#[ignore = "needs Apache Kafka: scripts/kafka-tests.sh"]
fn a_broker_killed_for_20_s_costs_no_event_and_health_tells() {
    let statuses = kill_under_load(1, Duration::from_secs(20));
    assert!(statuses.iter().any(|status| status == "unhealthy"), "{statuses:?}");
}

#[test]
#[ignore = "needs Apache Kafka, three nodes: scripts/kafka-tests.sh"]
fn one_of_three_brokers_killed_for_10_s_costs_no_event() {
    assert_eq!(Brokers::of_the_script().nodes, 3, "the partitions need somewhere to go");
    let statuses = kill_under_load(2, Duration::from_secs(10));
    assert!(!statuses.iter().any(|status| status == "unhealthy"), "two brokers answer: {statuses:?}");
}

/// Kills a node under load and starts it again. What /health said from the kill on.
fn kill_under_load(node: usize, down: Duration) -> Vec<String> {
    let brokers = Brokers::of_the_script();
    let gateway = Launch::new(&brokers).start_ready();
    gateway.await_status("healthy");
    let sessions = sessions(&gateway);
    let readers: Vec<_> = sessions.into_iter().map(|session| session.read_to_fences(FENCES)).collect();
    let producer = Producer::new(&brokers, "lz4");
    let is_over = AtomicBool::new(false);
    let (mut records, statuses) = thread::scope(|scope| {
        let load = scope.spawn(|| produce_until(&producer, &is_over));
        // Also when a step panics: the scope waits for the load.
        let over = Over(&is_over);
        thread::sleep(Duration::from_secs(2));
        let watch = Watch::start(&gateway);
        brokers.kill(node);
        thread::sleep(down);
        brokers.start(node);
        gateway.await_status("healthy");
        // The load has to meet the brokers' second life too.
        thread::sleep(Duration::from_secs(2));
        drop(over);
        (load.join().unwrap(), watch.end())
    });
    println!("/health said {statuses:?}");
    assert!(statuses.iter().any(|status| status != "healthy"), "nobody noticed: {statuses:?}");
    assert_eq!(statuses.last().map(String::as_str), Some("healthy"));

    let mut positions: HashMap<usize, _> = producer.acked().into_iter().collect();
    positions.extend(producer.fence(&mut records));
    assert_eq!(positions.len(), records.len(), "each record is acknowledged once");
    let (whole, logs): (Log, Vec<_>) = {
        let mut joined = readers.into_iter().map(|reader| reader.join().unwrap());
        let (session, log) = joined.next().unwrap();
        assert_every_offset_once(&session, &log);
        (log, joined.collect())
    };
    for (kind, events) in &whole.events {
        for event in events {
            assert_eq!(positions[&event.id], event.position, "{kind}: where Kafka said it is");
        }
    }
    assert_eq!(whole.count(), records.len(), "every acknowledged record");
    whole.assert_in_order(&records);
    for (session, mut log) in logs {
        assert_eq!(log.gaps, []);
        log.assert_in_order(&records);
        log.events.values_mut().for_each(|events| events.sort_unstable());
        assert_eq!(log.events, selected(&session, &whole, &records));
    }
    println!("{} records, down for {down:?}", records.len());
    statuses
}

/// Ends the load when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The first takes everything, the others a part each.
fn sessions(gateway: &Gateway) -> Vec<Session> {
    let parts = (0..20)
        .map(|number| vec![format!("T{number}.trade"), format!("T{}.*", number + 20), "*.social".into()]);
    let all = std::iter::once(vec!["*".to_owned()]).chain(parts);
    all.map(|patterns| {
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        Session::subscribe(gateway, &patterns)
    })
    .collect()
}

/// Open loop: what a broker that is down would have got waits in the producer.
fn produce_until(producer: &Producer, is_over: &AtomicBool) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let goes_on = |_| !is_over.load(Ordering::Relaxed);
    pace(EVENTS_PER_SECOND, goes_on, |id| {
        // Every channel in turn, over and over.
        let (topic, token) = (id % TOPICS.len(), id / TOPICS.len() % TOKENS);
        let record =
            Record::new(id, TOPICS[topic], &format!("T{token}"), (id / TOPICS.len() / TOKENS) as u64);
        producer.send(&record);
        records.push(record);
    });
    records
}

/// # Panics
/// Unless the session of `*` got every offset of every partition, from its ack to the fence, once.
fn assert_every_offset_once(session: &Session, log: &Log) {
    assert_eq!(log.gaps, []);
    for (kind, cut) in &session.cut {
        assert_eq!(cut.len(), PARTITIONS as usize);
        for next in cut {
            let offsets = log.offsets(kind, next.partition);
            let expected: Vec<i64> = (next.offset..).take(offsets.len()).collect();
            assert_eq!(offsets, expected, "{kind} {}: each offset once, in order", next.partition);
        }
    }
}

fn selected(session: &Session, whole: &Log, records: &[Record]) -> BTreeMap<String, Vec<Event>> {
    let mut selected = BTreeMap::new();
    for (kind, events) in &whole.events {
        let wanted = |id: usize| records[id].is_fence() || session.selects(&records[id]);
        let mut events: Vec<_> = events.iter().filter(|event| wanted(event.id)).copied().collect();
        // In each partition it was in order; between partitions no order is promised.
        events.sort_unstable();
        selected.insert(kind.clone(), events);
    }
    selected
}
