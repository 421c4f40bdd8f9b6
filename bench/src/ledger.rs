//! The results of the sessions of a run: the audit, the latencies, and how and why sessions ended.
//!
//! The ledger lives on the thread that drives the sockets.

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

/// Maximum number of distinct causes; further causes are counted together.
const CAUSES_MAX: usize = 20;

/// The meaning of an answer to `subscribe`.
#[derive(Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// All requested channels are subscribed.
    Subscribed,
    /// The connection is established and the client may subscribe.
    Connected,
    /// A channel was rejected, or the message was not accepted.
    Refused(String),
    /// The message was not an answer to the subscription.
    Nothing,
}

/// Counts of sessions and messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionCounts {
    /// Sessions that were acknowledged during the run.
    pub established: u64,
    /// Sessions that are live now.
    pub active: u64,
    /// Sessions that the server refused.
    pub refused: u64,
    /// Sessions that never became live, went silent, or were ended because of a protocol violation.
    pub failed: u64,
    /// Live sessions that the server or the network ended.
    pub closed_by_server: u64,
    /// Answered pings of the server.
    pub pings_answered: u64,
    /// Announced losses.
    pub gaps: u64,
    /// Sessions that the server could not resume at the requested position.
    pub not_resumed: u64,
    /// `error` messages to live sessions.
    pub errors: u64,
    /// Messages that are not part of the protocol.
    pub unreadable: u64,
}

/// A parsed event; see `client::parse_cache`.
#[derive(Clone, Copy, Debug)]
struct ParsedEvent {
    event: AuditedEvent,
    timestamp_ms: Option<u64>,
}

/// The parsed fields of a record's value. Other fields depend on the publisher.
#[derive(Default, Deserialize)]
struct Value {
    timestamp: Option<u64>,
    seq: Option<u64>,
}

/// A text that is not an event.
enum OtherMessage<'t> {
    Gap(Gap<'t>),
    /// All missed events have been sent: their number.
    Resumed(u64),
    Error(String),
    Other,
    Unreadable(String),
}

/// The results of a run.
#[derive(Debug)]
pub struct Ledger {
    /// Received and lost events.
    pub audit: Audit,
    /// Latencies of the window, after it has begun.
    pub latency: Latency,
    /// Counts of sessions and messages.
    pub tally: SessionCounts,
    /// The refusals by reason.
    pub refusals: Refusals,
    /// When the last session was acknowledged.
    pub established_last: Option<Instant>,
    /// Live sessions that the server ended, in order, for scenarios in which they reconnect.
    pub closed: Vec<usize>,
    /// Deliveries of sessions from this number on are excluded from the latencies.
    pub timed_below: usize,
    /// Sessions that resumed.
    pub resumes: Resumes,
    parse_cache: ParseCache<ParsedEvent>,
    /// Replaces the partition of a channel in the dialect without partitions.
    partitions: HashMap<String, i32>,
    causes: BTreeMap<String, u64>,
    /// The instant of the events that are being handled.
    now: Instant,
    now_ms: u64,
}

impl Ledger {
    /// Creates the ledger for this number of sessions, which choose from these channels.
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
            parse_cache: ParseCache::default(),
            partitions: HashMap::new(),
            causes: BTreeMap::new(),
            now: Instant::now(),
            now_ms: 0,
        }
    }

    /// Sets the instant of the following events: the clock is read now and then during a turn, not per frame.
    pub fn set_clock(&mut self, now: Instant, now_ms: u64) {
        self.now = now;
        self.now_ms = now_ms;
    }

    /// All sessions are live: the measured window begins now.
    pub fn begin_window(&mut self) {
        self.audit.begin_window(self.now_ms);
        self.latency = Latency::default();
    }

    /// Handles a text of a live session.
    pub fn on_text(&mut self, session: usize, dialect: Dialect, text: &[u8]) {
        let (audit, partitions) = (&mut self.audit, &mut self.partitions);
        let head = self.parse_cache.get_or_parse(text, |_| match dialect {
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
                // A gap of records without a usable key; events may lie between them.
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

    /// Handles a text of a session that waits for its acknowledgement. Events before the acknowledgement are
    /// not due, and are ignored.
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

    /// The session is live nevertheless; its missed events count as lost.
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

    /// Counts a message that is not part of the protocol.
    pub fn count_unreadable(&mut self, why: &str) {
        self.tally.unreadable += 1;
        self.note(format!("unreadable: {why}"));
    }

    /// A session ended; `was_live` says whether it had been acknowledged.
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

    /// The causes of failed sessions and unexpected messages, with their counts.
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

/// A publication has no position: `seq` serves as the offset, and each channel as a partition.
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
