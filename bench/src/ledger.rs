//! What the sessions of a run have said and suffered: the audit, the latencies, and how sessions ended and why.
//!
//! Everything is of one thread, the one that drives the sockets.

use std::collections::BTreeMap;
use std::time::Instant;

use hashbrown::HashMap;
use protocol::{Gap, GapReason, PatternName, Position, Rejected, ServerMessage, ServerMessageError};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::audit::{Audit, AuditedEvent};
use crate::client::dialect::{Dialect, Publication, Reply, read_publication, read_reply};
use crate::client::end::End;
use crate::client::parse_cache::ParseCache;
use crate::client::refusal::Refusals;
use crate::latency::Latency;
use crate::resumes::Resumes;
use crate::subscriptions::Subscription;

/// Distinct causes that are told apart; further ones are lumped together.
const CAUSES_MAX: usize = 20;

/// What an answer to `subscribe` meant.
#[derive(Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// All that was asked for is subscribed.
    Subscribed,
    /// It may subscribe now.
    Connected,
    /// A channel was rejected, or the message was not taken.
    Refused(String),
    /// It was another message.
    Nothing,
}

/// Sessions and messages, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionCounts {
    /// Sessions that were acknowledged, ever.
    pub established: u64,
    /// Sessions that are live now.
    pub active: u64,
    /// Sessions that the server said no to.
    pub refused: u64,
    /// Sessions that never became live, went silent, or were ended for a broken protocol.
    pub failed: u64,
    /// Live sessions that the server or the network ended.
    pub closed_by_server: u64,
    /// Pings of the server that were answered.
    pub pings_answered: u64,
    /// AnnouncedGap losses.
    pub gaps: u64,
    /// Sessions that the server could not let go on where they asked to.
    pub not_resumed: u64,
    /// `error` messages to live sessions.
    pub errors: u64,
    /// Messages that are none of the protocol's.
    pub unreadable: u64,
}

/// An event, read once: see `client::parse_cache`.
#[derive(Clone, Copy, Debug)]
struct ParsedEvent {
    event: AuditedEvent,
    timestamp_ms: Option<u64>,
}

/// What is read of a record's value. Other fields are the publisher's affair.
#[derive(Default, Deserialize)]
struct Value {
    timestamp: Option<u64>,
    seq: Option<u64>,
}

/// A text that is no event.
enum OtherMessage<'t> {
    Gap(Gap<'t>),
    /// All that was missed has been sent: so many events.
    Resumed(u64),
    Error(String),
    Other,
    Unreadable(String),
}

/// The books of a run.
#[derive(Debug)]
pub struct Ledger {
    /// What arrived, and what did not.
    pub audit: Audit,
    /// Of the window, once it has begun.
    pub latency: Latency,
    /// Counts.
    pub tally: SessionCounts,
    /// What those were told that the server said no to.
    pub refusals: Refusals,
    /// When the last session was acknowledged.
    pub established_last: Option<Instant>,
    /// Live sessions that the server ended, in order, for a scenario that lets them come back.
    pub closed: Vec<usize>,
    /// Sessions from this number on do not count for the latencies.
    pub timed_below: usize,
    /// Those that went on where they had been.
    pub resumes: Resumes,
    heads: ParseCache<ParsedEvent>,
    /// What stands for the partition of a channel, in the dialect that has none.
    partitions: HashMap<String, i32>,
    causes: BTreeMap<String, u64>,
    /// The clock of the current events.
    now: Instant,
    now_ms: u64,
}

impl Ledger {
    /// For that many sessions, which choose from these channels.
    pub fn new(sessions: usize, channels: Vec<PatternName<'static>>) -> Self {
        Self {
            audit: Audit::new(sessions, channels),
            latency: Latency::default(),
            tally: SessionCounts::default(),
            refusals: Refusals::default(),
            established_last: None,
            closed: Vec::new(),
            timed_below: usize::MAX,
            resumes: Resumes::default(),
            heads: ParseCache::default(),
            partitions: HashMap::new(),
            causes: BTreeMap::new(),
            now: Instant::now(),
            now_ms: 0,
        }
    }

    /// The instant of what comes next: read now and then during a harvest, not per frame.
    pub fn set_clock(&mut self, now: Instant, now_ms: u64) {
        self.now = now;
        self.now_ms = now_ms;
    }

    /// Every session is settled: what is measured begins now.
    pub fn begin_window(&mut self) {
        self.audit.begin_window(self.now_ms);
        self.latency = Latency::default();
    }

    /// A text for a live session.
    pub fn on_text(&mut self, session: usize, dialect: Dialect, text: &[u8]) {
        let (audit, partitions) = (&mut self.audit, &mut self.partitions);
        let head = self.heads.head(text, |_| match dialect {
            Dialect::Gateway => read_event(audit, text),
            Dialect::Centrifugo => read_published(audit, partitions, text),
        });
        match head {
            Ok(head) => {
                self.audit.record(session, head.event);
                if let Some(timestamp_ms) = head.timestamp_ms.filter(|_| session < self.timed_below) {
                    self.latency.record(timestamp_ms, self.now_ms);
                }
                self.resumes.on_event(session, self.now);
            }
            Err(OtherMessage::Gap(gap)) => {
                self.tally.gaps += 1;
                // Of records without a usable key, between which events may come.
                let is_of_no_channel = gap.reason == GapReason::Skipped && gap.channel.starts_with("*.");
                if !is_of_no_channel && !self.audit.announce(session, &gap.channel, gap.from, gap.to) {
                    self.count_unreadable("a gap that is no range");
                }
            }
            Err(OtherMessage::Resumed(replayed)) => self.resumes.on_resumed(session, replayed, self.now),
            Err(OtherMessage::Error(why)) => {
                self.tally.errors += 1;
                self.note(format!("error message: {why}"));
            }
            Err(OtherMessage::Unreadable(why)) => self.count_unreadable(&why),
            Err(OtherMessage::Other) => {}
        }
    }

    /// A session sends its subscription.
    pub fn on_asked(&mut self, session: usize, subscription: &Subscription) {
        if subscription.resumes {
            self.resumes.on_asked(session, self.now);
        }
    }

    /// A text for a session that waits for its acknowledgement. Events before it are not owed, and not looked at.
    pub fn on_answer(
        &mut self,
        session: usize,
        subscription: &Subscription,
        text: &[u8],
    ) -> SubscribeOutcome {
        let Ok(text) = std::str::from_utf8(text) else { return SubscribeOutcome::Nothing };
        if subscription.dialect == Dialect::Centrifugo {
            return match read_reply(text, subscription.patterns.len()) {
                Reply::Connected => SubscribeOutcome::Connected,
                Reply::Subscribed => self.on_subscribed(session, subscription),
                Reply::Refused(why) => SubscribeOutcome::Refused(why),
                Reply::Other => SubscribeOutcome::Nothing,
            };
        }
        match ServerMessage::parse(text).ok() {
            Some(ServerMessage::SubscriptionAck(ack)) => match ack.rejected.first() {
                None => {
                    if let Some(refused) = ack.not_resumed.first() {
                        self.on_not_resumed(session, refused);
                    }
                    self.on_subscribed(session, subscription)
                }
                Some(rejected) => SubscribeOutcome::Refused(format!(
                    "channel {} rejected: {}: {}",
                    rejected.channel, rejected.code, rejected.message
                )),
            },
            Some(ServerMessage::Error(error)) => {
                SubscribeOutcome::Refused(format!("{}: {}", error.code, error.message))
            }
            _ => SubscribeOutcome::Nothing,
        }
    }

    /// It is live all the same: what it missed shows as lost.
    fn on_not_resumed(&mut self, session: usize, Rejected { channel, code, message }: &Rejected<'_>) {
        self.tally.not_resumed += 1;
        self.resumes.forget(session);
        self.note(format!("not resumed: {channel}: {code}: {message}"));
    }

    fn on_subscribed(&mut self, session: usize, subscription: &Subscription) -> SubscribeOutcome {
        match subscription.resumes {
            true => self.audit.resume(session, subscription.patterns.clone()),
            false => self.audit.subscribe(session, subscription.patterns.clone()),
        }
        self.tally.established += 1;
        self.tally.active += 1;
        self.established_last = Some(self.now);
        SubscribeOutcome::Subscribed
    }

    /// A message that is none of the protocol's.
    pub fn count_unreadable(&mut self, why: &str) {
        self.tally.unreadable += 1;
        self.note(format!("unreadable: {why}"));
    }

    /// A session ended; `was_live` tells whether it had been acknowledged.
    pub fn on_end(&mut self, session: usize, was_live: bool, end: End) {
        if was_live {
            self.tally.active -= 1;
            self.audit.end_session(session);
        }
        self.resumes.on_end(session);
        match end {
            End::Complete => {}
            End::Refused(refusal) => {
                self.tally.refused += 1;
                self.refusals.count(&refusal);
                self.note(format!("refused: {}", refusal.why));
            }
            End::Failed(why) => {
                self.tally.failed += 1;
                self.note(format!("failed: {why}"));
            }
            End::ClosedByServer(why) => {
                self.tally.closed_by_server += 1;
                self.closed.push(session);
                self.note(format!("closed by the server: {why}"));
            }
        }
    }

    /// Why sessions and messages were not as they should be, and how often.
    pub fn causes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.causes.iter().map(|(cause, count)| (cause.as_str(), *count))
    }

    fn note(&mut self, cause: String) {
        let full = self.causes.len() >= CAUSES_MAX && !self.causes.contains_key(&cause);
        let cause = if full { "other causes".to_owned() } else { cause };
        *self.causes.entry(cause).or_default() += 1;
    }
}

fn read_event<'t>(audit: &mut Audit, text: &'t [u8]) -> Result<ParsedEvent, OtherMessage<'t>> {
    let text = utf8(text)?;
    let event = match ServerMessage::parse(text) {
        Ok(ServerMessage::Event(event)) => event,
        Ok(ServerMessage::Gap(gap)) => return Err(OtherMessage::Gap(gap)),
        Ok(ServerMessage::Error(error)) => {
            return Err(OtherMessage::Error(format!("{}: {}", error.code, error.message)));
        }
        Ok(ServerMessage::Resumed(resumed)) => return Err(OtherMessage::Resumed(resumed.replayed)),
        Ok(_) | Err(ServerMessageError::UnknownType) => return Err(OtherMessage::Other),
        Err(error) => return Err(OtherMessage::Unreadable(error.to_string())),
    };
    let value = event.data.map(read_value).unwrap_or_default();
    describe(audit, &event.channel, event.pos, &value)
}

/// A publication has no position: `seq` stands for the offset, and each channel for a partition of its own.
fn read_published<'t>(
    audit: &mut Audit,
    partitions: &mut HashMap<String, i32>,
    text: &'t [u8],
) -> Result<ParsedEvent, OtherMessage<'t>> {
    let Publication { channel, data } = read_publication(utf8(text)?)
        .map_err(|error| OtherMessage::Unreadable(error.to_string()))?
        .ok_or(OtherMessage::Other)?;
    let value = read_value(data);
    let partition_next = partitions.len() as i32;
    let partition = *partitions.entry_ref(&*channel).or_insert(partition_next);
    let offset = value.seq.and_then(|seq| i64::try_from(seq).ok()).unwrap_or_default();
    describe(audit, &channel, Position { partition, offset }, &value)
}

fn utf8(text: &[u8]) -> Result<&str, OtherMessage<'_>> {
    std::str::from_utf8(text).map_err(|_| OtherMessage::Unreadable("a text that is not UTF-8".to_owned()))
}

fn read_value(data: &RawValue) -> Value {
    serde_json::from_str(data.get()).unwrap_or_default()
}

fn describe<'t>(
    audit: &mut Audit,
    channel: &str,
    position: Position,
    value: &Value,
) -> Result<ParsedEvent, OtherMessage<'t>> {
    let event = audit
        .describe(channel, position, value.seq, value.timestamp)
        .map_err(|error| OtherMessage::Unreadable(error.to_string()))?;
    Ok(ParsedEvent { event, timestamp_ms: value.timestamp })
}
