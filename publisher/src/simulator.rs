//! Creates events: chooses token, event type and value. Pure and seeded: no I/O, no clock, no thread. The
//! same seed, tokens and timestamps give the same events.
//!
//! Invariant: `seq` increases by 1 per token and kind, starting at 1. It depends only on the created events,
//! so pauses and changes of rate cannot affect it.

use std::collections::HashMap;

use fastrand::Rng;

use crate::events::{EventType, WEIGHT_TENTHS_TOTAL};
use crate::market::Market;
use crate::tokens::{self, TokensError};
use crate::value::{Address, Scene, address};

/// Number of users that trade. They recur, as real users do, and their addresses fit into a core's cache.
const USERS: usize = 512;

/// Destination of one event. Its value is in the buffer that the caller passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event type, which also determines the kind and the topic.
    pub event_type: EventType,
    /// The token of the event: the record's key.
    pub token: &'a str,
    /// The event's number among the events of this token and kind.
    pub seq: u64,
}

/// A simulated trading platform.
#[derive(Debug)]
pub struct Simulator {
    random: Rng,
    markets: Vec<Market>,
    users: Vec<Address>,
}

impl Simulator {
    /// Creates a platform that trades `tokens`. See [`tokens::check`] for valid tokens.
    pub fn new(tokens: Vec<String>, seed: u64) -> Result<Simulator, TokensError> {
        tokens::check(&tokens)?;
        let mut random = Rng::with_seed(seed);
        let users = (0..USERS).map(|_| address(&mut random)).collect();
        let markets = tokens.into_iter().map(|token| Market::new(token, &mut random)).collect();
        Ok(Simulator { random, markets, users })
    }

    /// Trades `tokens` from now on. Tokens that stay keep their state, `seq` included; the state of the
    /// others is discarded.
    pub fn set_tokens(&mut self, tokens: Vec<String>) -> Result<(), TokensError> {
        tokens::check(&tokens)?;
        let mut known: HashMap<String, Market> =
            self.markets.drain(..).map(|market| (market.token.clone(), market)).collect();
        for token in tokens {
            let market = known.remove(&token);
            self.markets.push(market.unwrap_or_else(|| Market::new(token, &mut self.random)));
        }
        Ok(())
    }

    /// Number of traded tokens.
    pub fn token_count(&self) -> usize {
        self.markets.len()
    }

    /// Creates the next event and replaces the contents of `value_out` by its value, a JSON object.
    pub fn next_event(&mut self, timestamp_ms: u64, value_out: &mut Vec<u8>) -> Event<'_> {
        let event_type = EventType::drawn_by(self.random.usize(..WEIGHT_TENTHS_TOTAL));
        let chosen = self.random.usize(..self.markets.len());
        let market = &mut self.markets[chosen];
        let seq = market.next_sequence(event_type.kind());
        value_out.clear();
        let mut scene = Scene { market, users: &self.users, random: &mut self.random };
        scene.write(event_type, timestamp_ms, seq, value_out);
        Event { event_type, token: &self.markets[chosen].token, seq }
    }
}
