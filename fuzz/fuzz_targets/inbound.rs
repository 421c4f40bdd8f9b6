//! What a client sends after its handshake: whatever way the bytes come, the gateway hears what tungstenite by itself hears.
//! The first byte chooses where the bytes are split.
#![no_main]

use fuzz::Memory;
use fuzz::websocket::{Flow, Inbound, Message, Outcome};
use libfuzzer_sys::fuzz_target;
use tungstenite::{Error, Message as Received};

const MESSAGE_BYTES_MAX: usize = 1024;

/// What was heard: messages, bytes to be sent, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    messages: Vec<(char, Vec<u8>)>,
    replies: Vec<u8>,
    end: Option<Outcome>,
}

impl Heard {
    fn note(&mut self, message: Message<'_>) {
        let (kind, payload) = match message {
            Message::Text(text) => ('t', text.as_bytes()),
            Message::Binary(bytes) => ('b', bytes),
            Message::Ping(payload) => ('i', payload),
            Message::Pong(payload) => ('o', payload),
            Message::Fragment => return,
        };
        assert!(payload.len() <= MESSAGE_BYTES_MAX);
        self.messages.push((kind, payload.to_vec()));
    }
}

/// Fed in the pieces of a seed; after each message the gateway pauses, if told to.
fn inbound(bytes: &[u8], seed: Option<u64>, pauses: bool, fragments_max: u32) -> Heard {
    let mut inbound = Inbound::new(MESSAGE_BYTES_MAX, fragments_max);
    let mut heard = Heard::default();
    let mut replies = Vec::new();
    let mut feed = |mut piece: &[u8]| {
        while !piece.is_empty() {
            let mut paused = false;
            let fed = inbound.feed(piece, &mut replies, |message, _| {
                assert!(!paused, "no message after a pause");
                heard.note(message);
                paused = pauses;
                if pauses { Flow::Pause } else { Flow::Continue }
            });
            assert!(fed.consumed <= piece.len());
            if fed.outcome != Outcome::Open {
                heard.end = Some(fed.outcome);
                assert!(!inbound.message_in_progress());
                return false;
            }
            assert!(fed.consumed == piece.len() || paused);
            piece = &piece[fed.consumed..];
        }
        true
    };
    match seed {
        None => drop(feed(bytes)),
        Some(seed) => fuzz::in_pieces(bytes, seed, feed),
    }
    heard.replies = replies;
    heard
}

fn tungstenite(bytes: &[u8]) -> Heard {
    let mut context = fuzz::reference(MESSAGE_BYTES_MAX);
    let (mut heard, mut replies, mut close) = (Heard::default(), Vec::new(), None);
    let mut memory = Memory { input: bytes, output: &mut replies };
    loop {
        match context.read(&mut memory) {
            Ok(Received::Text(text)) => heard.note(Message::Text(&text)),
            Ok(Received::Binary(bytes)) => heard.note(Message::Binary(&bytes)),
            Ok(Received::Ping(payload)) => heard.note(Message::Ping(&payload)),
            Ok(Received::Pong(payload)) => heard.note(Message::Pong(&payload)),
            Ok(Received::Close(frame)) => close = frame,
            Ok(Received::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(_)) => break,
            Err(error) => {
                heard.end = Some(match (error, close) {
                    (Error::ConnectionClosed, Some(frame)) => Outcome::PeerClosed {
                        code: frame.code.into(),
                        reason: frame.reason.as_str().to_owned(),
                    },
                    (Error::ConnectionClosed, None) => {
                        Outcome::PeerClosed { code: 1005, reason: String::new() }
                    }
                    (Error::Capacity(_), _) => Outcome::Failed { close_code: 1009, reason: "" },
                    (Error::Utf8(_), _) => Outcome::Failed { close_code: 1007, reason: "" },
                    _ => Outcome::Failed { close_code: 1002, reason: "" },
                });
                break;
            }
        }
    }
    heard.replies = replies;
    heard
}

/// The sentences are the gateway's own.
fn without_reason(mut heard: Heard) -> Heard {
    if let Some(Outcome::Failed { reason, .. }) = &mut heard.end {
        assert!(!reason.is_empty() && reason.len() <= 123);
        *reason = "";
    }
    heard
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = fuzz::choice(data) else { return };
    let seed = Some(u64::from(choice));
    let whole = inbound(bytes, None, false, u32::MAX);
    for (seed, pauses) in [(seed, false), (seed, true), (Some(0), false), (None, true)] {
        assert_eq!(whole, inbound(bytes, seed, pauses, u32::MAX));
    }
    assert_eq!(inbound(bytes, None, false, 2), inbound(bytes, seed, true, 2), "at most two fragments");
    assert_eq!(without_reason(whole), tungstenite(bytes));
});
