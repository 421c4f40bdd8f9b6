//! The simulated state of one token: its counters and a price on a random walk. Pure and integer-only, so
//! that a seed gives the same events on every machine.

use fastrand::Rng;

use crate::events::Kind;

/// Prices are integers in units of 10^-8.
pub(crate) const PRICE_DIGITS: u32 = 8;
const DOLLAR: u64 = 10u64.pow(PRICE_DIGITS);
/// Amounts of a token are integers in units of 10^-6.
pub(crate) const AMOUNT_DIGITS: u32 = 6;
/// Amounts of money are in cents.
pub(crate) const MONEY_DIGITS: u32 = 2;

/// A walk stays within this factor of its initial price: plausible for hours, and it can never overflow.
const PRICE_RANGE: u64 = 16;

/// Well-known tokens start at a realistic price: name, price in units of 10^-8, supply.
const KNOWN: [(&str, u64, u64); 5] = [
    ("BTC", 67_000 * DOLLAR, 19_700_000),
    ("ETH", 3_400 * DOLLAR, 120_000_000),
    ("SOL", 150 * DOLLAR, 460_000_000),
    ("DOGE", 15 * DOLLAR / 100, 144_000_000_000),
    ("ODIN", 42 * DOLLAR / 1_000, 21_000_000_000),
];

#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) token: String,
    /// The last `seq` of each kind.
    sequences: [u64; Kind::ALL.len()],
    anchor: u64,
    pub(crate) price: u64,
    /// Slow averages of the price replace its history.
    hour_ago: u64,
    day_ago: u64,
    week_ago: u64,
    pub(crate) supply: u64,
    pub(crate) holders: u64,
    pub(crate) liquidity_cents: u64,
    pub(crate) volume_cents: u64,
    pub(crate) comments: u64,
    pub(crate) favorites: u64,
    pub(crate) renames: u64,
}

impl Market {
    pub(crate) fn new(token: String, random: &mut Rng) -> Market {
        let known = KNOWN.iter().find(|(name, _, _)| *name == token);
        let (price, supply) = known.map_or_else(
            // From 0.0001 to 10, with equal probability for each order of magnitude.
            || (random.u64(1..=10) * 10u64.pow(random.u32(4..8)), random.u64(10..=1_000) * 1_000_000),
            |(_, price, supply)| (*price, *supply),
        );
        Market {
            token,
            sequences: [0; Kind::ALL.len()],
            anchor: price,
            price,
            hour_ago: price,
            day_ago: price,
            week_ago: price,
            supply,
            holders: random.u64(200..50_000),
            liquidity_cents: random.u64(1_000_000..500_000_000),
            volume_cents: random.u64(500_000..100_000_000),
            comments: 0,
            favorites: random.u64(50..20_000),
            renames: 0,
        }
    }

    /// Counts one more event of `kind`.
    pub(crate) fn next_sequence(&mut self, kind: Kind) -> u64 {
        let sequence = &mut self.sequences[kind as usize];
        *sequence += 1;
        *sequence
    }

    /// One step of the walk: up to 0.3% in either direction, and a slight pull back to the anchor.
    pub(crate) fn move_price(&mut self, random: &mut Rng) {
        let (price, anchor) = (self.price as i64, self.anchor as i64);
        let step = price * random.i64(-3_000..=3_000) / 1_000_000;
        let pull = (anchor - price) / 4_096;
        let moved = (price + step + pull).max(1) as u64;
        self.price = moved.clamp((self.anchor / PRICE_RANGE).max(1), self.anchor * PRICE_RANGE);
        self.hour_ago = drift(self.hour_ago, self.price, 64);
        self.day_ago = drift(self.day_ago, self.price, 1_024);
        self.week_ago = drift(self.week_ago, self.price, 8_192);
    }

    /// Chooses the size of a trade: mostly tens of dollars, sometimes thousands. Returns the amount of the
    /// token.
    pub(crate) fn trade(&mut self, random: &mut Rng) -> u64 {
        let cents = (random.u64(500..1_500)) << random.u32(0..10);
        // The volume of the last day: adds the trade and subtracts the part that ages out.
        self.volume_cents = self.volume_cents - self.volume_cents / 20_000 + cents;
        // cents / 10^2 dollars, divided by price / 10^8, in units of 10^-6.
        cents * 1_000_000_000_000 / self.price
    }

    /// Price changes over an hour, a day and a week, in hundredths of a percent.
    pub(crate) fn price_changes(&self) -> [i64; 3] {
        [self.hour_ago, self.day_ago, self.week_ago]
            .map(|past| (self.price as i64 - past as i64) * 10_000 / (past as i64).max(1))
    }

    pub(crate) fn cap_cents(&self) -> u64 {
        let cents = u128::from(self.price) * u128::from(self.supply) / 1_000_000;
        u64::try_from(cents).unwrap_or(u64::MAX)
    }
}

/// Moves `average` towards `value` by one part in `weight`.
fn drift(average: u64, value: u64, weight: i64) -> u64 {
    (average as i64 + (value as i64 - average as i64) / weight) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_wanders_but_never_leaves_its_range() {
        let seed = 7;
        let mut random = Rng::with_seed(seed);
        for token in ["BTC", "DOGE", "UNKNOWN"] {
            let mut market = Market::new(token.to_owned(), &mut random);
            let (mut low, mut high) = (market.price, market.price);
            for _ in 0..200_000 {
                market.move_price(&mut random);
                market.trade(&mut random);
                (low, high) = (low.min(market.price), high.max(market.price));
            }
            assert!(low < high, "seed {seed}: {token} never moved");
            assert!(low >= market.anchor / PRICE_RANGE && high <= market.anchor * PRICE_RANGE, "seed {seed}");
        }
    }
}
