//! The lifecycle of one session: connect -> handshake -> subscribe -> live -> close. No I/O: the caller
//! passes in the received bytes, bytes to send are appended to the outbox, and received texts go to the
//! ledger.
//!
//! A session ends exactly once, with one [`End`]; anything that arrives afterwards is ignored.

use std::rc::Rc;

use fastrand::Rng;
use wire::SocketId;

use super::attempts::AttemptPlan;
use super::dialect::{self, CENTRIFUGO_PING, Dialect};
use super::end::End;
use super::frames::{FrameReader, Message, Opcode, write_masked};
use super::handshake::{Handshake, Progress};
use super::refusal::Refusal;
use super::target::Target;
use crate::ledger::{Ledger, SubscribeOutcome};
use crate::subscriptions::Subscription;

/// Consecutive heartbeats without a byte from the server after which the connection counts as dead.
const QUIET_HEARTBEATS_MAX: u8 = 3;
const CODE_NORMAL: u16 = 1000;
const CODE_PROTOCOL_ERROR: u16 = 1002;

#[derive(Debug)]
enum Stage {
    Connecting,
    Handshaking(Box<Handshake>),
    Subscribing,
    Live,
    Closing,
    Over,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// The socket of the session.
    pub socket: SocketId,
    /// Index of the session in the run, from 0.
    pub number: usize,
    /// Bytes that the socket has not accepted yet.
    pub outbox: Vec<u8>,
    /// Whether the outbox is on the list of outboxes to send, or waits for the socket to become writable.
    pub send_pending: bool,
    stage: Stage,
    reader: FrameReader,
    subscription: Rc<Subscription>,
    quiet_heartbeats: u8,
}

impl Session {
    /// A session whose connect is in progress.
    pub fn new(socket: SocketId, number: usize, subscription: Rc<Subscription>) -> Self {
        Self {
            socket,
            number,
            outbox: Vec::new(),
            send_pending: false,
            stage: Stage::Connecting,
            reader: FrameReader::default(),
            subscription,
            quiet_heartbeats: 0,
        }
    }

    /// Whether the session is not live yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Handshaking(_) | Stage::Subscribing)
    }

    /// Whether the session is subscribed and open.
    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// Whether the session has ended: its socket is closing or gone.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Ends the session: nothing more is received or sent.
    pub fn set_over(&mut self) {
        self.stage = Stage::Over;
        self.reader = FrameReader::default();
    }

    /// What the session waits for, for the message of a timeout.
    pub fn awaited(&self) -> &'static str {
        match self.stage {
            Stage::Connecting => "the connect",
            Stage::Handshaking(_) => "the answer to the handshake",
            Stage::Subscribing => "the subscription_ack",
            Stage::Live | Stage::Closing | Stage::Over => "the close",
        }
    }

    /// The socket is connected: queues the upgrade request.
    pub fn on_connected(&mut self, target: &Target) {
        let (handshake, request) = match target.proxied {
            Some(clients) => {
                Handshake::begin_for(target, AttemptPlan::address(self.number % clients as usize))
            }
            None => Handshake::begin(target),
        };
        self.outbox.extend_from_slice(&request);
        self.stage = Stage::Handshaking(Box::new(handshake));
    }

    /// Handles received bytes.
    pub fn on_received(&mut self, bytes: &[u8], ledger: &mut Ledger, random: &mut Rng) -> Option<End> {
        self.quiet_heartbeats = 0;
        match &mut self.stage {
            Stage::Handshaking(handshake) => match handshake.feed(bytes) {
                Progress::Incomplete => None,
                Progress::Upgraded(behind) => {
                    self.stage = Stage::Subscribing;
                    let mask = random.u32(..).to_ne_bytes();
                    let Subscription { dialect, message, .. } = &*self.subscription;
                    write_masked(&mut self.outbox, Opcode::Text, dialect.greeting().unwrap_or(message), mask);
                    ledger.on_asked(self.number, &self.subscription);
                    self.on_frames(&behind, ledger, random)
                }
                Progress::Refused(refusal) => Some(End::Refused(refusal)),
                Progress::Failed(why) => Some(End::Failed(why)),
            },
            Stage::Subscribing | Stage::Live | Stage::Closing => self.on_frames(bytes, ledger, random),
            Stage::Connecting | Stage::Over => None,
        }
    }

    /// The server has finished sending.
    pub fn on_peer_finished(&mut self) -> Option<End> {
        match &self.stage {
            Stage::Handshaking(handshake) => match handshake.finish() {
                Progress::Refused(refusal) => Some(End::Refused(refusal)),
                Progress::Failed(why) => Some(End::Failed(why)),
                Progress::Incomplete | Progress::Upgraded(_) => None,
            },
            Stage::Connecting | Stage::Subscribing => {
                Some(End::Failed("the server ended the connection before the subscription_ack".to_owned()))
            }
            Stage::Live => Some(End::ClosedByServer("without a close frame".to_owned())),
            Stage::Closing => Some(End::Complete),
            Stage::Over => None,
        }
    }

    /// The connection broke or could not be established.
    pub fn on_broken(&mut self, why: &str) -> Option<End> {
        match self.stage {
            Stage::Live => Some(End::ClosedByServer(why.to_owned())),
            Stage::Closing => Some(End::Complete),
            Stage::Over => None,
            Stage::Connecting | Stage::Handshaking(_) | Stage::Subscribing => {
                Some(End::Failed(why.to_owned()))
            }
        }
    }

    /// Queues a heartbeat, and detects a server that no longer answers.
    pub fn heartbeat(&mut self, random: &mut Rng) -> Option<End> {
        if self.quiet_heartbeats == QUIET_HEARTBEATS_MAX {
            return Some(End::Failed(format!(
                "not a byte from the server for {QUIET_HEARTBEATS_MAX} heartbeats"
            )));
        }
        self.quiet_heartbeats += 1;
        if let Some(heartbeat) = self.subscription.dialect.heartbeat() {
            write_masked(&mut self.outbox, Opcode::Text, heartbeat, random.u32(..).to_ne_bytes());
        }
        None
    }

    /// Starts an orderly close; the session ends with the server's answer.
    pub fn close(&mut self, random: &mut Rng) {
        self.stage = Stage::Closing;
        write_close(&mut self.outbox, CODE_NORMAL, random);
    }

    fn on_frames(&mut self, bytes: &[u8], ledger: &mut Ledger, random: &mut Rng) -> Option<End> {
        let Self { reader, stage, outbox, number, subscription, .. } = self;
        let mut conversation = Conversation { number: *number, stage, outbox, subscription, ledger, random };
        let mut end = None;
        let result = reader.feed(bytes, |message| {
            if end.is_none() {
                end = conversation.on_message(message);
            }
        });
        match (end, result) {
            (None, Err(error)) => {
                write_close(outbox, CODE_PROTOCOL_ERROR, random);
                Some(End::Failed(error.to_string()))
            }
            (end, _) => end,
        }
    }
}

/// The parts of a session that a message handler needs while the reader is borrowed.
struct Conversation<'a> {
    number: usize,
    stage: &'a mut Stage,
    outbox: &'a mut Vec<u8>,
    subscription: &'a Subscription,
    ledger: &'a mut Ledger,
    random: &'a mut Rng,
}

impl Conversation<'_> {
    fn on_message(&mut self, message: Message<'_>) -> Option<End> {
        match message {
            Message::Text(text) => self.on_text(text),
            Message::Binary(_) => {
                self.ledger.count_unreadable("a binary message");
                None
            }
            Message::Ping(payload) => {
                self.ledger.tally.pings_answered += 1;
                write_masked(self.outbox, Opcode::Pong, payload, self.random.u32(..).to_ne_bytes());
                None
            }
            Message::Pong(_) => None,
            Message::Close(code, reason) => Some(self.on_close(code, reason)),
        }
    }

    fn on_text(&mut self, text: &[u8]) -> Option<End> {
        match self.subscription.dialect {
            Dialect::Gateway => self.on_object(text),
            Dialect::Centrifugo => dialect::lines(text).find_map(|line| self.on_object(line)),
        }
    }

    fn on_object(&mut self, text: &[u8]) -> Option<End> {
        if self.subscription.dialect == Dialect::Centrifugo && text == CENTRIFUGO_PING {
            self.ledger.tally.pings_answered += 1;
            self.write_text(CENTRIFUGO_PING);
            return None;
        }
        match self.stage {
            Stage::Live => {
                self.ledger.on_text(self.number, self.subscription.dialect, text);
                None
            }
            Stage::Subscribing => match self.ledger.on_answer(self.number, self.subscription, text) {
                SubscribeOutcome::Subscribed => {
                    *self.stage = Stage::Live;
                    None
                }
                SubscribeOutcome::Connected => {
                    self.write_text(&self.subscription.message);
                    None
                }
                SubscribeOutcome::Refused(why) => {
                    write_close(self.outbox, CODE_NORMAL, self.random);
                    Some(End::Refused(Refusal::of_session(why)))
                }
                SubscribeOutcome::Nothing => None,
            },
            Stage::Connecting | Stage::Handshaking(_) | Stage::Closing | Stage::Over => None,
        }
    }

    fn write_text(&mut self, text: &[u8]) {
        write_masked(self.outbox, Opcode::Text, text, self.random.u32(..).to_ne_bytes());
    }

    fn on_close(&mut self, code: u16, reason: &[u8]) -> End {
        if matches!(self.stage, Stage::Closing) {
            return End::Complete;
        }
        // 1005 means a close frame without a code, and is never sent.
        write_close(self.outbox, if code == 1005 { CODE_NORMAL } else { code }, self.random);
        let why = format!("closed with {code} {}", String::from_utf8_lossy(reason));
        let why = why.trim_end().to_owned();
        match self.stage {
            Stage::Live => End::ClosedByServer(why),
            _ => End::Refused(Refusal::of_session(why)),
        }
    }
}

fn write_close(out: &mut Vec<u8>, code: u16, random: &mut Rng) {
    write_masked(out, Opcode::Close, &code.to_be_bytes(), random.u32(..).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::dialect::Dialect;
    use crate::subscriptions;
    use protocol::PatternName;

    #[test]
    fn a_ping_is_answered_and_counted_in_each_dialect() {
        let channels = vec![PatternName::parse("BTC.trade".into()).expect("a channel")];
        for dialect in [Dialect::Gateway, Dialect::Centrifugo] {
            let subscription = &subscriptions::in_turn(dialect, &channels, 1)[0];
            let (mut outbox, mut ledger) = (Vec::new(), Ledger::new(1, channels.clone()));
            let (stage, random) = (&mut Stage::Live, &mut Rng::with_seed(1));
            let mut conversation = Conversation {
                number: 0,
                stage,
                outbox: &mut outbox,
                subscription,
                ledger: &mut ledger,
                random,
            };
            let ping = match dialect {
                Dialect::Gateway => Message::Ping(b"?"),
                Dialect::Centrifugo => Message::Text(CENTRIFUGO_PING),
            };
            assert_eq!(conversation.on_message(ping), None);
            assert_eq!((outbox.is_empty(), ledger.tally.pings_answered), (false, 1), "{dialect:?}");
        }
    }
}
