//! The assignment of channels to sessions. Pure.

use std::rc::Rc;

use clap::ValueEnum;
use fastrand::Rng;
use protocol::{PatternName, Position};

use crate::audit::PatternId;
use crate::client::dialect::Dialect;

/// Which of the channels a session subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SubscriptionMode {
    /// Every channel.
    All,
    /// One channel, in turn.
    Single,
    /// CHANNELS_PER_CLIENT channels, chosen at random (see --seed).
    Random,
}

/// The channels of one session, and its subscribe message.
#[derive(Debug)]
pub struct Subscription {
    /// Indexes into the run's list of channels.
    pub patterns: Rc<[PatternId]>,
    /// The protocol of the session.
    pub dialect: Dialect,
    /// The payload of the text frame that subscribes.
    pub message: Vec<u8>,
    /// Whether the session resumes after an event that it has.
    pub resumes: bool,
}

impl Subscription {
    fn new(dialect: Dialect, channels: &[PatternName<'_>], chosen: Vec<PatternId>) -> Rc<Self> {
        let names: Vec<_> = chosen.iter().map(|id| channels[usize::from(*id)].as_str()).collect();
        let message = dialect.subscribe(&names);
        Rc::new(Self { dialect, message, patterns: chosen.into(), resumes: false })
    }

    /// A subscription to one channel of the gateway, after the event at this position.
    pub fn after(channel: &PatternName<'_>, id: PatternId, position: Position) -> Rc<Self> {
        let name = channel.as_str();
        let data = serde_json::json!({"channels": [name], "since": {name: position}});
        let message = serde_json::json!({"type": "subscribe", "data": data}).to_string().into_bytes();
        Rc::new(Self { dialect: Dialect::Gateway, message, patterns: Rc::from([id]), resumes: true })
    }
}

/// The subscription of each session, by session number. Equal subscriptions are shared, except random ones.
pub fn assign(
    dialect: Dialect,
    channels: &[PatternName<'_>],
    mode: SubscriptionMode,
    channels_per_client: usize,
    sessions: usize,
    seed: u64,
) -> Vec<Rc<Subscription>> {
    let ids = 0..channels.len() as PatternId;
    match mode {
        SubscriptionMode::All => vec![Subscription::new(dialect, channels, ids.collect()); sessions],
        SubscriptionMode::Single => in_turn(dialect, channels, sessions),
        SubscriptionMode::Random => {
            let mut random = Rng::with_seed(seed);
            let mut choose = || random.choose_multiple(ids.clone(), channels_per_client);
            (0..sessions).map(|_| Subscription::new(dialect, channels, choose())).collect()
        }
    }
}

/// One channel for each session, in turn.
pub fn in_turn(dialect: Dialect, channels: &[PatternName<'_>], sessions: usize) -> Vec<Rc<Subscription>> {
    let ids = 0..channels.len() as PatternId;
    let each: Vec<_> = ids.map(|id| Subscription::new(dialect, channels, vec![id])).collect();
    (0..sessions).map(|session| Rc::clone(&each[session % each.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels() -> Vec<PatternName<'static>> {
        ["BTC.trade", "ETH.trade", "*.social", "SOL.*"]
            .map(|name| PatternName::parse(name.into()).expect(name))
            .into()
    }

    #[test]
    fn every_message_is_one_that_the_protocol_reads() {
        for mode in [SubscriptionMode::All, SubscriptionMode::Single, SubscriptionMode::Random] {
            for subscription in assign(Dialect::Gateway, &channels(), mode, 3, 10, 1) {
                let text = std::str::from_utf8(&subscription.message).expect("JSON");
                let Ok(protocol::ClientMessage::Subscribe(read)) = protocol::ClientMessage::parse(text)
                else {
                    panic!("{text}")
                };
                assert_eq!(read.channels.len(), subscription.patterns.len());
            }
        }
    }

    #[test]
    fn a_session_resumes_after_the_last_event_it_has() {
        let position = Position { partition: 7, offset: 12_345 };
        let subscription = Subscription::after(&channels()[1], 1, position);
        let text = std::str::from_utf8(&subscription.message).expect("JSON");
        let Ok(protocol::ClientMessage::Subscribe(read)) = protocol::ClientMessage::parse(text) else {
            panic!("{text}")
        };
        assert_eq!((&*read.channels[0], read.since["ETH.trade"].get()), ("ETH.trade", r#""7:12345""#));
        assert!(subscription.resumes && *subscription.patterns == [1]);
    }

    #[test]
    fn modes_give_all_one_in_turn_or_a_seeded_choice() {
        let all = assign(Dialect::Gateway, &channels(), SubscriptionMode::All, 1, 3, 0);
        assert!(all.iter().all(|subscription| *subscription.patterns == [0, 1, 2, 3]));
        let single = assign(Dialect::Gateway, &channels(), SubscriptionMode::Single, 1, 6, 0);
        let in_turn: Vec<_> = single.iter().map(|subscription| subscription.patterns[0]).collect();
        assert_eq!(in_turn, [0, 1, 2, 3, 0, 1]);
        let chosen = |seed| -> Vec<_> {
            let random = assign(Dialect::Gateway, &channels(), SubscriptionMode::Random, 2, 200, seed);
            random.iter().map(|subscription| subscription.patterns.to_vec()).collect()
        };
        assert_eq!(chosen(7), chosen(7), "a seed gives the same choice again");
        assert_ne!(chosen(7), chosen(8));
        assert!(chosen(7).iter().all(|patterns| patterns.len() == 2 && patterns[0] != patterns[1]));
    }
}
