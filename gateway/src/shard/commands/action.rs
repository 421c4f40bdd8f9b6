//! Turns a client's message into an action, and the action's result into an acknowledgement.
//!
//! Decides what a message asks for and which of its channels are invalid; it knows no registry and no session. The caller passes
//! the limits and the session's channels, performs the action, and frames the acknowledgement.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use protocol::client::{Since, read_since, shorten};
use protocol::{
    ClientMessage, Pattern, PatternName, Rejected, SubscriptionAck, UnsubscriptionAck, client, code,
};
use serde_json::value::RawValue;

/// What a message asks the gateway to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Subscribe to channels.
    Subscribe(Subscribe<'a>),
    /// Unsubscribe from channels.
    Unsubscribe(Unsubscribe<'a>),
    /// Answer with a pong.
    Heartbeat,
    /// Answer with an error; nothing else changes.
    Error {
        /// One of [`protocol::code`].
        code: &'static str,
        /// What is wrong and what to send instead.
        message: String,
    },
}

/// The channels of a `subscribe`, each name once, valid and invalid ones apart. It is also the draft of the acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Channels to subscribe to. The session may have some of them already.
    pub channels: Vec<RequestedChannel<'a>>,
    /// Rejected channels with the reason.
    pub rejected: Vec<Rejected<'a>>,
    /// Channels that begin live although they were requested from the past, with the reason.
    pub not_resumed: Vec<Rejected<'a>>,
    /// Whether the acknowledgement must carry positions.
    pub positions: bool,
}

/// A channel and its requested beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedChannel<'a> {
    /// Its name.
    pub name: PatternName<'a>,
    /// Where it begins.
    pub start: RequestedStart<'a>,
}

/// The beginning of a channel's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedStart<'a> {
    /// With the next event.
    Live,
    /// With the last event of each channel that the pattern selects.
    Snapshot,
    /// For these kinds in the past, for others with the next event. Without any kind it is still a resume, of nothing.
    Since(Vec<(Cow<'a, str>, Since)>),
}

/// The channels of an `unsubscribe`, each name once, valid and invalid ones apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Channels to unsubscribe from. The session may not have some of them.
    pub channels: Vec<PatternName<'a>>,
    /// Invalid names.
    pub rejected: Vec<Rejected<'a>>,
}

impl<'a> Action<'a> {
    /// Parses a text message of a session that may have this many channels.
    pub fn of_text(text: &'a str, channels_max: usize) -> Self {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Heartbeat) => Self::Heartbeat,
            Ok(ClientMessage::Subscribe(message))
                if message.channels.len().max(message.since.len()) > channels_max =>
            {
                too_many_channels(message.channels.len().max(message.since.len()), channels_max)
            }
            Ok(ClientMessage::Subscribe(message)) => Self::Subscribe(subscribe(message)),
            Ok(ClientMessage::Unsubscribe { channels }) if channels.len() > channels_max => {
                too_many_channels(channels.len(), channels_max)
            }
            Ok(ClientMessage::Unsubscribe { channels }) => {
                let (channels, rejected) = split_names(channels);
                Self::Unsubscribe(Unsubscribe { channels, rejected })
            }
            Err(error) => Self::Error { code: error.code, message: error.message },
        }
    }

    /// The answer to a binary message.
    pub fn of_binary() -> Self {
        let message = "messages are text frames of JSON: send the same bytes as text".to_owned();
        Self::Error { code: code::BAD_SHAPE, message }
    }
}

impl<'a> Subscribe<'a> {
    /// Rejects the channels for which the session has no room. It has `held` channels; `is_held` tells which.
    pub fn keep_within(&mut self, channels_max: usize, held: usize, is_held: impl Fn(&str) -> bool) {
        let mut room = channels_max.saturating_sub(held);
        for wanted in std::mem::take(&mut self.channels) {
            if is_held(wanted.name.as_str()) {
                self.channels.push(wanted);
            } else if room > 0 {
                room -= 1;
                self.channels.push(wanted);
            } else {
                let message = format!(
                    "a session may have {channels_max} channels: unsubscribe some, use a wildcard or open another session"
                );
                self.reject(wanted.name, code::TOO_MANY_CHANNELS, message);
            }
        }
    }

    /// Whether a channel is requested from the past.
    pub fn has_past(&self) -> bool {
        self.channels.iter().any(|wanted| wanted.start != RequestedStart::Live)
    }

    /// Lets channels begin live if the session already has events of them from an earlier message's subscription (`overlaps`
    /// tells): otherwise past and live events of a channel would be out of order.
    pub fn begin_live_ones_live(&mut self, overlaps: impl Fn(Pattern<'_>) -> bool) {
        for wanted in self.channels.iter_mut().filter(|wanted| wanted.start != RequestedStart::Live) {
            if overlaps(wanted.name.pattern()) {
                let option = if wanted.start == RequestedStart::Snapshot { "snapshot" } else { "since" };
                let message = format!(
                    "the session has events of it already: it is live; to begin in the past, unsubscribe those channels \
                     first, or name them all with {option} in one message"
                );
                wanted.start = RequestedStart::Live;
                let shown = wanted.name.as_str().to_owned().into();
                self.not_resumed.push(entry(shown, code::ALREADY_LIVE, message));
            }
        }
    }

    /// Lets all channels begin live, because too many sessions resume.
    pub fn begin_all_live(&mut self) {
        for wanted in self.channels.iter_mut().filter(|wanted| wanted.start != RequestedStart::Live) {
            let option = if wanted.start == RequestedStart::Snapshot { "snapshot" } else { "since" };
            let message = format!(
                "the gateway brings too many sessions what they missed: it is live; unsubscribe, and subscribe with {option} \
                 again in some seconds"
            );
            wanted.start = RequestedStart::Live;
            let shown = wanted.name.as_str().to_owned().into();
            self.not_resumed.push(entry(shown, code::TOO_MANY_RESUMES, message));
        }
    }

    /// The acknowledgement without positions, once the channels are subscribed to and the session has `count` in all. Independent
    /// of the message's text, because it may have to wait for other shards.
    pub fn acknowledge(self, count: usize) -> SubscriptionAck<'static> {
        let Self { channels, rejected, not_resumed, positions: _ } = self;
        SubscriptionAck {
            subscribed: channels.into_iter().map(|wanted| wanted.name.into_owned().into_text()).collect(),
            count,
            rejected: rejected.into_iter().map(Rejected::into_owned).collect(),
            not_resumed: not_resumed.into_iter().map(Rejected::into_owned).collect(),
            ..SubscriptionAck::default()
        }
    }

    /// Rejects a channel, which then is not listed as live either.
    fn reject(&mut self, name: PatternName<'a>, code: &'static str, message: String) {
        self.not_resumed.retain(|entry| entry.channel != name.as_str());
        self.rejected.push(entry(name.into_text(), code, message));
    }
}

impl<'a> Unsubscribe<'a> {
    /// The acknowledgement, once the channels are unsubscribed and the session has `count` in all.
    pub fn acknowledge(self, count: usize) -> UnsubscriptionAck<'a> {
        let unsubscribed = self.channels.into_iter().map(PatternName::into_text).collect();
        UnsubscriptionAck { unsubscribed, count, rejected: self.rejected }
    }
}

fn subscribe(message: client::Subscribe<'_>) -> Subscribe<'_> {
    let client::Subscribe { channels, snapshot, positions, mut since } = message;
    let mut not_resumed = unknown_since_names(&channels, &since);
    let (names, rejected) = split_names(channels);
    let otherwise = if snapshot { RequestedStart::Snapshot } else { RequestedStart::Live };
    let channels = names
        .into_iter()
        .map(|name| {
            let start = match since.remove(name.as_str()).map(|value| read_since(name.pattern(), value)) {
                None => otherwise.clone(),
                Some(Ok(kinds)) => RequestedStart::Since(kinds),
                Some(Err(message)) => {
                    let shown = name.as_str().to_owned().into();
                    not_resumed.push(entry(shown, code::BAD_POSITION, message));
                    RequestedStart::Live
                }
            };
            RequestedChannel { name, start }
        })
        .collect();
    Subscribe { channels, rejected, not_resumed, positions }
}

/// The names in `since` that are not among the channels.
fn unknown_since_names<'a>(
    channels: &[Cow<'_, str>],
    since: &BTreeMap<Cow<'_, str>, &RawValue>,
) -> Vec<Rejected<'a>> {
    if since.is_empty() {
        return Vec::new();
    }
    let named: HashSet<&str> = channels.iter().map(Cow::as_ref).collect();
    let others = since.keys().filter(|name| !named.contains(name.as_ref()));
    others
        .map(|name| {
            let message =
                "since resumes only channels of the same message: name it in channels too".to_owned();
            entry(shorten(name).into_owned().into(), code::BAD_POSITION, message)
        })
        .collect()
}

/// Valid and invalid names, each once and in the message's order.
fn split_names(names: Vec<Cow<'_, str>>) -> (Vec<PatternName<'_>>, Vec<Rejected<'_>>) {
    let mut seen = HashSet::with_capacity(names.len());
    let is_first: Vec<bool> = names.iter().map(|name| seen.insert(name.as_ref())).collect();
    drop(seen);
    let (mut channels, mut rejected) = (Vec::with_capacity(names.len()), Vec::new());
    for (name, _) in names.into_iter().zip(is_first).filter(|(_, is_first)| *is_first) {
        match PatternName::parse(name) {
            Ok(name) => channels.push(name),
            Err((name, error)) => {
                let shown = shorten(&name).into_owned().into();
                rejected.push(entry(shown, error.code(), error.to_string()));
            }
        }
    }
    (channels, rejected)
}

fn entry<'a>(channel: Cow<'a, str>, code: &'static str, message: String) -> Rejected<'a> {
    Rejected { channel, code: code.into(), message: message.into() }
}

fn too_many_channels(named: usize, channels_max: usize) -> Action<'static> {
    let message = format!(
        "the message names {named} channels, a session may have {channels_max}: use wildcards (TOKEN.*, *.kind, *) or \
         several sessions; nothing was changed"
    );
    Action::Error { code: code::TOO_MANY_CHANNELS, message }
}

#[cfg(test)]
#[path = "tests/action.rs"]
mod tests;
