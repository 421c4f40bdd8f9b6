//! What a client asks and what it is answered: its messages against the shard's channels.

use protocol::envelope::write_json;
use protocol::{ErrorMessage, Pong};

use super::Cut;
use super::channels::Channels;
use super::frames::Frames;
use super::outbox::Outbox;
use crate::metrics::Counters;
use crate::session::commands::{Action, Subscribe, Unsubscribe};
use crate::session::{Flow, Message, framing};

/// One session's turn to speak.
pub struct Dialogue<'a, C: Fn() -> Cut> {
    /// The session's slot.
    pub slot: usize,
    /// Who subscribed to what.
    pub channels: &'a mut Channels,
    /// The session's outbox: what it has unsubscribed from is taken out.
    pub outbox: &'a mut Outbox,
    /// The frames in it.
    pub frames: &'a mut Frames,
    /// What is counted.
    pub counters: &'a mut Counters,
    /// Channels and wildcards that the session may have.
    pub channels_max: usize,
    /// The next positions, for acks that carry them.
    pub cut: &'a C,
}

impl<C: Fn() -> Cut> Dialogue<'_, C> {
    /// Does what a message asks and appends the answer to `replies`.
    pub fn on_message(&mut self, message: Message<'_>, replies: &mut Vec<u8>) -> Flow {
        let action = match message {
            Message::Text(text) => Action::of_text(text, self.channels_max),
            Message::Binary(_) => Action::of_binary(),
            // Answered by the protocol itself.
            Message::Ping(_) | Message::Pong(_) => return Flow::Continue,
        };
        self.counters.messages_received += 1;
        framing::text_from(replies, |payload| match action {
            Action::Subscribe(subscribe) => self.subscribe(subscribe, payload),
            Action::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, payload),
            Action::Heartbeat => write_json(payload, &Pong { ts: wall_clock_ms() }),
            Action::Error { code, message } => {
                self.counters.client_errors += 1;
                write_json(payload, &ErrorMessage { code: code.into(), message: message.into() });
            }
        });
        Flow::Continue
    }

    /// From the answer on, every record polled is delivered: the cut is what the consumer reads next.
    fn subscribe(&mut self, mut subscribe: Subscribe<'_>, payload: &mut Vec<u8>) {
        let held = self.channels.count(self.slot);
        subscribe.keep_within(self.channels_max, held, |pattern| {
            self.channels.is_subscribed(self.slot, &pattern.to_string())
        });
        for wanted in &subscribe.channels {
            self.channels.subscribe(self.slot, wanted.name.as_str());
        }
        let positions = subscribe.positions.then(self.cut);
        let count = self.channels.count(self.slot);
        write_json(payload, &subscribe.acknowledge(count, positions));
    }

    /// What is queued of these channels goes before the answer does, unless another subscription wants it.
    fn unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>, payload: &mut Vec<u8>) {
        let mut has_left = false;
        for name in &unsubscribe.channels {
            has_left |= self.channels.unsubscribe(self.slot, name.as_str());
        }
        if has_left {
            let Self { slot, channels, .. } = self;
            let discarded = self.outbox.discard_events_where(self.frames, |frame| {
                frame.source().is_some_and(|source| !channels.covers(*slot, source.channel()))
            });
            self.counters.frames_discarded += discarded as u64;
        }
        let count = self.channels.count(self.slot);
        write_json(payload, &unsubscribe.acknowledge(count));
    }
}

fn wall_clock_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}
