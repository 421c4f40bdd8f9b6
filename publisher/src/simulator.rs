//! Makes events: which token, which event type, what value. Pure and seeded: no I/O, no clock, no thread. The same
//! seed, tokens and timestamps give the same events.
//!
//! Invariant: `seq` goes up by 1 per token and kind, starting at 1. It depends on nothing but the events made, so
//! pauses and changes of rate cannot disturb it.

use std::collections::HashMap;

use fastrand::Rng;

use crate::events::{EventType, WEIGHT_TENTHS_TOTAL};
use crate::market::Market;
use crate::tokens::{self, TokensError};
use crate::value::{Address, Scene, address};

/// How many users trade. They come back, as real ones do; their addresses fit a core's cache.
const USERS: usize = 512;

/// Where one event goes. Its value is in the buffer that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened; it also tells the kind and the topic.
    pub event_type: EventType,
    /// The token it happened to: the record's key.
    pub token: &'a str,
    /// Its number among the events of this token and kind.
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
    /// A platform that trades `tokens`. See [`tokens::check`] for what a token may be.
    pub fn new(tokens: Vec<String>, seed: u64) -> Result<Simulator, TokensError> {
        tokens::check(&tokens)?;
        let mut random = Rng::with_seed(seed);
        let users = (0..USERS).map(|_| address(&mut random)).collect();
        let markets = tokens.into_iter().map(|token| Market::new(token, &mut random)).collect();
        Ok(Simulator { random, markets, users })
    }

    /// Trades `tokens` from now on. Tokens that stay go on where they are, `seq` included; those that leave are
    /// forgotten.
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

    /// How many tokens are traded.
    pub fn token_count(&self) -> usize {
        self.markets.len()
    }

    /// Makes the next event and puts its value, a JSON object, into `value_out` in place of what was there.
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
