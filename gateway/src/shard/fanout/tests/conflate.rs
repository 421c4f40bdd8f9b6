//! Conflation: what each case leaves, and that nothing is lost or told twice however a session overflows.

use std::collections::BTreeMap;

use super::*;
use crate::event::frame::Source;

const KINDS: [&str; 2] = ["trade", "social"];
const ROOMY: OutboxLimits = OutboxLimits { frames: 100, bytes: 100_000, control_bytes: 100 };

fn record(topic: usize, number: i32, offset: i64, token: &str, is_gap: bool, bytes: usize) -> Arc<Frame> {
    let (kind, partition) = (KINDS[topic].into(), Partition { topic, number });
    let source = Source { token: token.into(), kind, partition, offset, is_gap };
    queued(Subject::Record(source), bytes)
}

fn queued(subject: Subject, bytes: usize) -> Arc<Frame> {
    Arc::new(Frame { bytes: vec![b'.'; bytes].into(), subject, polled_at: Instant::now(), timestamp_ms: 0 })
}

fn trade(token: &str, offset: i64) -> Arc<Frame> {
    record(0, 0, offset, token, false, 10)
}

fn gap(name: &str, topic: usize, number: i32, from: i64, to: i64, reason: GapReason) -> Arc<Frame> {
    let partition = Partition { topic, number };
    Arc::new(gap_frame(Range { name: name.into(), partition, from, to, reason }, Instant::now()))
}

fn slow(name: &str, from: i64, to: i64) -> Arc<Frame> {
    gap(name, 0, 0, from, to, GapReason::SlowConsumer)
}

/// `BTC 4` for a record, `slow_consumer BTC.trade 1..3` for a gap.
fn shown(subject: &Subject) -> String {
    match subject {
        Subject::Record(source) => format!("{} {}", source.token, source.offset),
        Subject::Gap(range) => {
            format!("{} {} {}..{}", range.reason.as_str(), range.name, range.from, range.to)
        }
        Subject::Resumed(_) => "resumed".to_owned(),
    }
}

fn all_shown(outbox: &Outbox, frames: &Frames) -> Vec<String> {
    outbox.events().iter().map(|&event| shown(&frames.frame(event).subject)).collect()
}

fn outbox_of(frames: &mut Frames, events: &[Arc<Frame>]) -> Outbox {
    let mut outbox = Outbox::default();
    for event in events {
        let reference = frames.insert(Arc::clone(event));
        outbox.push_event(reference, frames, &ROOMY).expect("room");
        frames.release_inserted(reference);
    }
    outbox
}

/// Whether it is a wildcard over kinds.
fn is_wide(subscription: &str) -> bool {
    matches!(Pattern::of_name(subscription), Pattern::Kind(_) | Pattern::All)
}

/// The queue after a conflation with this limit of frames, for a session with one subscription.
fn after(events: &[Arc<Frame>], limit: usize, subscription: &str) -> (Vec<String>, Conflated) {
    let mut frames = Frames::default();
    let mut outbox = outbox_of(&mut frames, events);
    let limits = OutboxLimits { frames: limit, ..ROOMY };
    let has_kind = |_: Channel<'_>| is_wide(subscription);
    let conflated =
        conflate(&mut outbox, &mut frames, &limits, 10, has_kind, Instant::now()).expect("room for gaps");
    assert_eq!(outbox.frames(), events.len() - conflated.frames_dropped + conflated.gaps);
    assert_eq!(
        (frames.len(), frames.held()),
        (outbox.frames(), outbox.frames() as u64),
        "no frame is leaked"
    );
    (all_shown(&outbox, &frames), conflated)
}

#[test]
fn the_newest_event_of_each_channel_stays_and_a_gap_before_it_names_the_others() {
    let events = [
        trade("A", 1),
        trade("B", 2),
        trade("A", 3),
        queued(Subject::Resumed("A.trade".into()), 5),
        trade("A", 6),
    ];
    let (queue, conflated) = after(&events, 100, "*");
    assert_eq!(queue, ["B 2", "resumed", "slow_consumer A.trade 1..3", "A 6"]);
    assert_eq!(conflated, Conflated { frames_dropped: 2, gaps: 1 });
}

#[test]
fn a_gap_that_still_waits_is_extended_and_one_with_nothing_to_add_is_left() {
    let events = [slow("A.trade", 1, 3), trade("A", 6), slow("B.trade", 2, 4), trade("B", 5), trade("A", 9)];
    let (queue, conflated) = after(&events, 100, "*");
    assert_eq!(queue, ["slow_consumer B.trade 2..4", "B 5", "slow_consumer A.trade 1..6", "A 9"]);
    assert_eq!(conflated, Conflated { frames_dropped: 2, gaps: 1 });
}

#[test]
fn a_range_ends_at_a_gap_of_another_reason_that_concerns_its_channel() {
    for name in ["A.trade", "*.trade"] {
        let reset = gap(name, 0, 0, 8, 9, GapReason::Reset);
        let events = [trade("A", 6), trade("A", 7), reset, trade("A", 0), trade("A", 1)];
        let between = format!("reset {name} 8..9");
        let expected =
            ["slow_consumer A.trade 6..7", &between, "slow_consumer A.trade 0..0", "A 1"].map(str::to_owned);
        assert_eq!(after(&events, 100, "*").0, expected);
        let expected = ["slow_consumer *.trade 6..7", &between, "slow_consumer *.trade 0..1"];
        assert_eq!(after(&events, 7, "*").0, expected);
    }
    let other = gap("B.trade", 0, 0, 8, 9, GapReason::Retention);
    let events = [trade("A", 6), other, trade("A", 10), trade("A", 11)];
    assert_eq!(after(&events, 100, "*").0, ["retention B.trade 8..9", "slow_consumer A.trade 6..10", "A 11"]);
}

#[test]
fn a_record_that_could_not_be_framed_never_displaces_the_newest_event() {
    let unfit = |offset| record(0, 0, offset, "A", true, 10);
    let (queue, _) = after(&[unfit(1), trade("A", 2), trade("A", 3), unfit(4), unfit(5)], 100, "*");
    assert_eq!(queue, ["slow_consumer A.trade 1..2", "A 3", "A 4", "A 5"]);
}

#[test]
fn with_more_channels_than_half_an_outbox_all_records_go_and_the_subscription_is_named() {
    let events: Vec<_> = (0..9).map(|offset| trade(&format!("T{offset}"), offset)).collect();
    for name in ["*", "*.trade"] {
        let (queue, conflated) = after(&events, 9, name);
        assert_eq!(queue, ["slow_consumer *.trade 0..8"]);
        assert_eq!(conflated, Conflated { frames_dropped: 9, gaps: 1 });
    }
    let events: Vec<_> = events.into_iter().chain([record(1, 0, 3, "T1", false, 10)]).collect();
    assert_eq!(after(&events, 9, "*").0, ["slow_consumer *.trade 0..8", "slow_consumer *.social 3..3"]);
    let one: Vec<_> = (0..3).map(|topic| record(topic % 2, 0, topic as i64, "A", false, 10)).collect();
    let (queue, _) = after(&one, 4, "A.*");
    assert_eq!(queue, ["slow_consumer A.social 1..1", "slow_consumer A.trade 0..2"]);
}

#[test]
fn a_wildcards_range_begins_above_what_was_sent_and_leaves_a_channels_older_gap_its_name() {
    // B 4 stood before the first gap and was sent, so no range of the wildcard may hold it.
    let events = [
        slow("A.trade", 1, 5),
        trade("A", 6),
        trade("B", 7),
        slow("C.trade", 2, 8),
        trade("C", 9),
        trade("D", 10),
        trade("E", 11),
    ];
    let expected =
        ["slow_consumer A.trade 1..5", "slow_consumer C.trade 2..5", "slow_consumer *.trade 6..11"];
    assert_eq!(after(&events, 9, "*").0, expected);
    // And a second time: the wildcard's own gap is extended.
    let again = [slow("*.trade", 6, 11), trade("A", 12), trade("B", 13), trade("C", 14)];
    assert_eq!(after(&again, 4, "*").0, ["slow_consumer *.trade 6..14"]);
}

#[test]
fn a_frame_too_long_for_what_the_newest_leave_takes_their_place() {
    let mut frames = Frames::default();
    let newest = record(0, 0, 1, "A", false, 40_000);
    let mut outbox = outbox_of(&mut frames, &[newest]);
    let conflated = conflate(&mut outbox, &mut frames, &ROOMY, 90_000, |_| false, Instant::now());
    assert_eq!(conflated, Ok(Conflated { frames_dropped: 1, gaps: 1 }));
    assert_eq!(all_shown(&outbox, &frames), ["slow_consumer A.trade 1..1"]);
}

#[test]
fn where_even_the_gaps_take_too_much_nothing_is_changed() {
    let mut frames = Frames::default();
    let events: Vec<_> = (0..5).map(|number| record(0, number, 7, "A", false, 10)).collect();
    let mut outbox = outbox_of(&mut frames, &events);
    let limits = OutboxLimits { frames: 5, ..ROOMY };
    let before = (outbox.events().to_vec(), outbox.event_bytes(), frames.held());
    assert_eq!(conflate(&mut outbox, &mut frames, &limits, 10, |_| false, Instant::now()), Err(OutboxFull));
    assert_eq!((outbox.events().to_vec(), outbox.event_bytes(), frames.held()), before);
}

/// A session, what was to be sent to it, and what was.
struct Life {
    outbox: Outbox,
    frames: Frames,
    limits: OutboxLimits,
    subscription: &'static str,
    /// Of each partition: the next offset, and how often its topic was recreated.
    heads: BTreeMap<Partition, (i64, u32)>,
    /// Records, with that number.
    expected: Vec<(Source, u32)>,
    others_expected: Vec<String>,
    received: Vec<Subject>,
    appended: usize,
    dropped: usize,
    conflations: usize,
}

impl Life {
    fn push(&mut self, frame: Arc<Frame>) -> Result<(), OutboxFull> {
        let bytes = frame.bytes.len();
        let reference = self.frames.insert(frame);
        if self.outbox.push_event(reference, &mut self.frames, &self.limits).is_err() {
            let has_kind = |channel: Channel<'_>| {
                assert!(Pattern::of_name(self.subscription).selects(channel));
                is_wide(self.subscription)
            };
            let (outbox, frames) = (&mut self.outbox, &mut self.frames);
            let conflated = conflate(outbox, frames, &self.limits, bytes, has_kind, Instant::now());
            let Ok(conflated) = conflated else {
                self.frames.release_inserted(reference);
                return Err(OutboxFull);
            };
            self.conflations += 1;
            self.appended += conflated.gaps;
            self.dropped += conflated.frames_dropped;
            assert!(self.outbox.frames() <= self.limits.frames / 2);
            assert!(self.outbox.event_bytes() <= self.limits.bytes / 2);
            self.outbox.push_event(reference, &mut self.frames, &self.limits).expect("room was made");
        }
        self.frames.release_inserted(reference);
        self.appended += 1;
        Ok(())
    }

    fn send(&mut self, bytes_max: usize) {
        let mut bytes = Vec::new();
        self.outbox.gather(&self.frames, &mut bytes, bytes_max);
        let received = &mut self.received;
        self.outbox.consume(bytes.len(), &mut self.frames, |sent| received.push(sent.frame.subject.clone()));
    }

    /// One event of the session's life.
    fn step(&mut self, random: &mut fastrand::Rng) -> Result<(), OutboxFull> {
        let topic = if self.subscription.ends_with("trade") { 0 } else { random.usize(..2) };
        let partition = Partition { topic, number: random.i32(0..2) };
        let head = self.heads.entry(partition).or_default();
        let token = if self.subscription.starts_with('A') { 0 } else { random.usize(..8) };
        // All tokens but one have one partition each.
        let token = ["A", "B0", "C1", "D0", "E1", "F0", "G1", "H0"][token];
        match random.u8(..40) {
            0 => {
                let (reason, from, to) = match random.bool() {
                    true => (GapReason::Retention, head.0, head.0 + random.i64(0..5)),
                    false => (GapReason::Reset, head.0, head.0),
                };
                *head = if reason == GapReason::Reset { (0, head.1 + 1) } else { (to + 1, head.1) };
                let channel = Channel { token, kind: KINDS[topic] };
                let wide = is_wide(self.subscription).then_some(Pattern::Kind(channel.kind));
                let name = wide.unwrap_or(exact(channel)).to_string();
                let gap = gap(&name, topic, partition.number, from, to, reason);
                let subject = shown(&gap.subject);
                self.push(gap)?;
                self.others_expected.push(subject);
            }
            1 => {
                self.push(queued(Subject::Resumed("A.trade".into()), 30))?;
                self.others_expected.push("resumed".to_owned());
            }
            2..5 => self.send(random.usize(..2_000)),
            _ => {
                if token.len() == 2 && !token.ends_with(if partition.number == 0 { '0' } else { '1' }) {
                    return Ok(());
                }
                let offset = head.0 + random.i64(0..3);
                head.0 = offset + 1;
                let age = head.1;
                let frame = record(
                    topic,
                    partition.number,
                    offset,
                    token,
                    random.u8(..20) == 0,
                    random.usize(1..300),
                );
                let source = frame.source().expect("a record").clone();
                self.push(frame)?;
                self.expected.push((source, age));
            }
        }
        Ok(())
    }

    /// Reads what was received as its client would: each record once or in one gap, each channel's offsets rising.
    fn check_received(&self) {
        let mut resets: BTreeMap<Partition, u32> = BTreeMap::new();
        let mut told = vec![0; self.expected.len()];
        let mut last: BTreeMap<(&str, Partition), i64> = BTreeMap::new();
        let channels: HashSet<_> =
            self.expected.iter().map(|(source, _)| (&*source.token, source.partition)).collect();
        for subject in &self.received {
            let (name, partition, from, to, reason) = match subject {
                Subject::Record(source) => {
                    (exact(source.channel()), source.partition, source.offset, source.offset, None)
                }
                Subject::Gap(gap) => {
                    let name = Pattern::parse(&gap.name).expect("a name");
                    (name, gap.partition, gap.from, gap.to, Some(gap.reason))
                }
                Subject::Resumed(_) => continue,
            };
            let kind = KINDS[partition.topic];
            for &(token, _) in channels
                .iter()
                .filter(|(token, of)| *of == partition && name.selects(Channel { token, kind }))
            {
                let before = last.insert((token, partition), to).unwrap_or(-1);
                assert!(before < from, "{} after {before} of {token}", shown(subject));
            }
            if reason == Some(GapReason::Reset) {
                *resets.entry(partition).or_default() += 1;
                last.retain(|(_, of), _| *of != partition);
            }
            if matches!(reason, None | Some(GapReason::SlowConsumer)) {
                let age = resets.get(&partition).copied().unwrap_or_default();
                for (index, (source, of)) in self.expected.iter().enumerate() {
                    let is_told = source.partition == partition
                        && *of == age
                        && (from..=to).contains(&source.offset)
                        && name.selects(source.channel());
                    told[index] += usize::from(is_told);
                }
            }
        }
        for (told, (source, _)) in told.iter().zip(&self.expected) {
            assert_eq!(*told, 1, "{source:?}");
        }
        let is_other = |subject: &&Subject| match subject {
            Subject::Record(_) => false,
            Subject::Gap(range) => range.reason != GapReason::SlowConsumer,
            Subject::Resumed(_) => true,
        };
        let others: Vec<_> = self.received.iter().filter(is_other).map(shown).collect();
        assert_eq!(others, self.others_expected);
    }
}

#[test]
fn however_often_a_session_overflows_each_offset_is_received_or_in_one_gap() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut conflations, mut full) = (0, 0);
    // At times one overflow is all that a session has, at times one follows the other.
    for round in 0..1_000 {
        let mut life = Life {
            outbox: Outbox::default(),
            frames: Frames::default(),
            limits: OutboxLimits {
                frames: random.usize(12..60),
                bytes: random.usize(3_000..12_000),
                control_bytes: 10,
            },
            subscription: ["*", "*.trade", "A.*", "A.trade"][round % 4],
            heads: BTreeMap::new(),
            expected: Vec::new(),
            others_expected: Vec::new(),
            received: Vec::new(),
            appended: 0,
            dropped: 0,
            conflations: 0,
        };
        for _ in 0..random.usize(..600) {
            if life.step(&mut random).is_err() {
                full += 1;
                break;
            }
            let waiting = life.frames.held() as usize;
            assert_eq!(life.appended, life.received.len() + life.dropped + waiting, "round {round}");
        }
        life.send(usize::MAX);
        assert!(life.outbox.is_empty() && life.frames.is_empty(), "round {round}");
        life.check_received();
        conflations += life.conflations;
    }
    println!("{conflations} conflations, {full} sessions to be closed");
    assert!(conflations > 1_000, "too few outboxes overflowed to show anything");
}
