//! Writes an event's value, `{"type":..,"timestamp":..,"seq":..,"data":{..}}`, directly into a reused buffer:
//! no tree of JSON values, no allocation per event.
//!
//! Nothing written here needs escaping: tokens contain no such character (see [`crate::tokens`]) and all
//! other text is generated here.

use fastrand::Rng;

use crate::digits::{decimal, hexadecimal, signed_decimal, text, whole};
use crate::events::EventType;
use crate::market::{AMOUNT_DIGITS, MONEY_DIGITS, Market, PRICE_DIGITS};

/// A user's address as written in values: `0x` and 40 hexadecimal digits.
pub(crate) type Address = [u8; 42];

const COMMENTS: [&str; 8] = [
    "Holding since day one, not selling a single coin.",
    "Volume is picking up, watch the next hour.",
    "Can someone explain the last dip?",
    "Liquidity looks healthy today.",
    "The new roadmap is out, worth a read.",
    "Took some profit here, good luck all.",
    "Great community, see you at the next call!",
    "Chart looks like it wants higher.",
];

const DESCRIPTIONS: [&str; 4] = [
    "Community token with a fixed supply and locked liquidity.",
    "Trades around the clock on Odin.",
    "Made by its holders, for its holders.",
    "Bridged from its home chain, one to one.",
];

const EXCHANGES: [&str; 4] = ["Odin", "Kraken", "Coinbase", "Uniswap"];

/// The inputs of a value.
pub(crate) struct Scene<'a> {
    pub(crate) market: &'a mut Market,
    pub(crate) users: &'a [Address],
    pub(crate) random: &'a mut Rng,
}

impl Scene<'_> {
    /// Advances the token's market by one event and writes the event's value.
    pub(crate) fn write(&mut self, event_type: EventType, timestamp_ms: u64, seq: u64, out: &mut Vec<u8>) {
        text(out, "{\"type\":\"");
        text(out, event_type.name());
        text(out, "\",\"timestamp\":");
        whole(out, timestamp_ms);
        text(out, ",\"seq\":");
        whole(out, seq);
        text(out, ",\"data\":{");
        match event_type {
            EventType::TradeExecuted | EventType::BuyCompleted | EventType::SellCompleted => self.trade(out),
            EventType::LiquidityAdded => self.liquidity(out, true),
            EventType::LiquidityRemoved => self.liquidity(out, false),
            EventType::LiquidityRebalanced => self.rebalance(out),
            EventType::PriceDeltaUpdated => self.price_delta(out),
            EventType::AnalyticsRecalculated => self.analytics(out),
            EventType::HolderCountUpdated => self.holder_count(out),
            EventType::TrendingUpdated => self.trending(out),
            EventType::CommentPosted => self.comment_posted(out),
            EventType::FavoriteToggled => self.favorite(out),
            EventType::CommentUpvoted => self.comment_upvoted(out),
            EventType::CommentPinned => self.comment_pinned(out),
            EventType::MetadataUpdated => self.metadata(out),
            EventType::TokenNameChanged => self.name_changed(out),
            EventType::TokenFlagsChanged => self.flags(out),
            EventType::BalanceUpdated => self.balance(out),
            EventType::TransferCompleted => self.transfer(out),
            EventType::SocialLinksUpdated => self.social_links(out),
            EventType::TwitterVerified => self.twitter(out),
            EventType::TokenCreated => self.created(out),
            EventType::TokenListed => self.listed(out),
        }
        text(out, "}}");
    }

    fn trade(&mut self, out: &mut Vec<u8>) {
        self.market.move_price(self.random);
        let amount = self.market.trade(self.random);
        text(out, "\"price\":");
        decimal(out, self.market.price, PRICE_DIGITS);
        text(out, ",\"amount\":");
        decimal(out, amount, AMOUNT_DIGITS);
        text(out, ",\"buyer\":\"");
        self.user(out);
        text(out, "\",\"seller\":\"");
        self.user(out);
        text(out, "\",\"txHash\":\"");
        self.transaction(out);
        text(out, "\"");
    }

    fn liquidity(&mut self, out: &mut Vec<u8>, is_added: bool) {
        let total = self.market.liquidity_cents;
        let amount = 1 + total * self.random.u64(1..=100) / 10_000;
        self.market.liquidity_cents = if is_added { total + amount } else { total - amount };
        // Kept within the range of a typical pool, so that a long run neither empties nor overfills it.
        self.market.liquidity_cents = self.market.liquidity_cents.clamp(100_000, 100_000_000_000);
        text(out, "\"amount\":");
        decimal(out, amount, MONEY_DIGITS);
        text(out, ",\"provider\":\"");
        self.user(out);
        text(out, "\",\"totalLiquidity\":");
        decimal(out, self.market.liquidity_cents, MONEY_DIGITS);
    }

    fn rebalance(&mut self, out: &mut Vec<u8>) {
        let old = self.random.u64(4_000..=6_000);
        text(out, "\"oldRatio\":");
        decimal(out, old, 4);
        text(out, ",\"newRatio\":");
        decimal(out, old + self.random.u64(0..=400) - 200, 4);
        text(out, ",\"totalLiquidity\":");
        decimal(out, self.market.liquidity_cents, MONEY_DIGITS);
    }

    fn price_delta(&mut self, out: &mut Vec<u8>) {
        text(out, "\"price\":");
        decimal(out, self.market.price, PRICE_DIGITS);
        for (name, change) in ["delta1h", "delta24h", "delta7d"].iter().zip(self.market.price_changes()) {
            text(out, ",\"");
            text(out, name);
            text(out, "\":");
            signed_decimal(out, change, 2);
        }
    }

    fn analytics(&self, out: &mut Vec<u8>) {
        text(out, "\"volume24h\":");
        decimal(out, self.market.volume_cents, MONEY_DIGITS);
        text(out, ",\"marketCap\":");
        decimal(out, self.market.cap_cents(), MONEY_DIGITS);
        text(out, ",\"liquidity\":");
        decimal(out, self.market.liquidity_cents, MONEY_DIGITS);
    }

    fn holder_count(&mut self, out: &mut Vec<u8>) {
        let before = self.market.holders;
        self.market.holders = (before + self.random.u64(0..=12)).saturating_sub(5).max(1);
        text(out, "\"holderCount\":");
        whole(out, self.market.holders);
        text(out, ",\"change\":");
        signed_decimal(out, self.market.holders as i64 - before as i64, 0);
    }

    fn trending(&mut self, out: &mut Vec<u8>) {
        text(out, "\"rank\":");
        whole(out, self.random.u64(1..=100));
        text(out, ",\"score\":");
        decimal(out, self.random.u64(0..=10_000), 2);
    }

    fn comment_posted(&mut self, out: &mut Vec<u8>) {
        self.market.comments += 1;
        let newest = self.market.comments;
        self.comment(out, newest);
        text(out, ",\"content\":\"");
        text(out, COMMENTS[self.random.usize(..COMMENTS.len())]);
        text(out, "\"");
    }

    fn comment_upvoted(&mut self, out: &mut Vec<u8>) {
        self.earlier_comment(out);
        text(out, ",\"upvotes\":");
        whole(out, self.random.u64(1..=500));
    }

    fn comment_pinned(&mut self, out: &mut Vec<u8>) {
        self.earlier_comment(out);
        text(out, ",\"pinned\":true");
    }

    fn earlier_comment(&mut self, out: &mut Vec<u8>) {
        let number = self.random.u64(1..=self.market.comments.max(1));
        self.comment(out, number);
    }

    fn comment(&mut self, out: &mut Vec<u8>, number: u64) {
        text(out, "\"commentId\":\"");
        text(out, &self.market.token);
        text(out, "-");
        whole(out, number);
        text(out, "\",\"author\":\"");
        self.user(out);
        text(out, "\"");
    }

    fn favorite(&mut self, out: &mut Vec<u8>) {
        let is_favorite = self.random.u32(0..100) < 60;
        let count = self.market.favorites;
        self.market.favorites = if is_favorite { count + 1 } else { count.saturating_sub(1) };
        text(out, "\"user\":\"");
        self.user(out);
        text(out, if is_favorite { "\",\"favorited\":true" } else { "\",\"favorited\":false" });
        text(out, ",\"favoriteCount\":");
        whole(out, self.market.favorites);
    }

    fn metadata(&mut self, out: &mut Vec<u8>) {
        self.name(out);
        text(out, ",\"description\":\"");
        text(out, DESCRIPTIONS[self.random.usize(..DESCRIPTIONS.len())]);
        text(out, "\"");
    }

    fn name_changed(&mut self, out: &mut Vec<u8>) {
        text(out, "\"previousName\":\"");
        self.display_name(out);
        text(out, "\",");
        self.market.renames += 1;
        self.name(out);
    }

    fn name(&self, out: &mut Vec<u8>) {
        text(out, "\"name\":\"");
        self.display_name(out);
        text(out, "\",\"symbol\":\"");
        text(out, &self.market.token);
        text(out, "\"");
    }

    fn display_name(&self, out: &mut Vec<u8>) {
        text(out, &self.market.token);
        text(out, " Token");
        if self.market.renames > 0 {
            text(out, " v");
            whole(out, self.market.renames + 1);
        }
    }

    fn flags(&mut self, out: &mut Vec<u8>) {
        text(out, "\"flags\":{");
        for (name, separator) in [("verified", ","), ("featured", ","), ("trending", "}")] {
            text(out, "\"");
            text(out, name);
            text(out, if self.random.bool() { "\":true" } else { "\":false" });
            text(out, separator);
        }
    }

    fn balance(&mut self, out: &mut Vec<u8>) {
        let balance = self.random.u64(1_000_000..1_000_000_000_000);
        let change = self.random.u64(1..=balance) as i64;
        text(out, "\"user\":\"");
        self.user(out);
        text(out, "\",\"balance\":");
        decimal(out, balance, AMOUNT_DIGITS);
        text(out, ",\"change\":");
        signed_decimal(out, if self.random.bool() { change } else { -change }, AMOUNT_DIGITS);
    }

    fn transfer(&mut self, out: &mut Vec<u8>) {
        text(out, "\"from\":\"");
        self.user(out);
        text(out, "\",\"to\":\"");
        self.user(out);
        text(out, "\",\"amount\":");
        decimal(out, self.random.u64(1_000_000..1_000_000_000_000), AMOUNT_DIGITS);
        text(out, ",\"txHash\":\"");
        self.transaction(out);
        text(out, "\"");
    }

    fn social_links(&self, out: &mut Vec<u8>) {
        text(out, "\"links\":{\"twitter\":\"https://x.example/");
        text(out, &self.market.token);
        text(out, "\",\"telegram\":\"https://t.example/");
        text(out, &self.market.token);
        text(out, "\",\"website\":\"https://www.example.com/");
        text(out, &self.market.token);
        text(out, "\"}");
    }

    fn twitter(&mut self, out: &mut Vec<u8>) {
        text(out, "\"handle\":\"@");
        text(out, &self.market.token);
        text(out, "\",\"verified\":true,\"followers\":");
        whole(out, self.random.u64(100..1_000_000));
    }

    fn created(&mut self, out: &mut Vec<u8>) {
        text(out, "\"creator\":\"");
        self.user(out);
        text(out, "\",");
        self.name(out);
        text(out, ",\"supply\":");
        whole(out, self.market.supply);
    }

    fn listed(&mut self, out: &mut Vec<u8>) {
        text(out, "\"exchange\":\"");
        text(out, EXCHANGES[self.random.usize(..EXCHANGES.len())]);
        text(out, "\",\"initialPrice\":");
        decimal(out, self.market.price, PRICE_DIGITS);
    }

    fn user(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.users[self.random.usize(..self.users.len())]);
    }

    fn transaction(&mut self, out: &mut Vec<u8>) {
        for _ in 0..4 {
            hexadecimal(out, self.random.u64(..));
        }
    }
}

/// A random user address.
pub(crate) fn address(random: &mut Rng) -> Address {
    let mut digits = Vec::with_capacity(48);
    for _ in 0..3 {
        hexadecimal(&mut digits, random.u64(..));
    }
    let mut address = *b"0x0000000000000000000000000000000000000000";
    address[2..].copy_from_slice(&digits[..40]);
    address
}
