//! The platform's 8 kinds and 23 event types, with their frequencies. Constants only.

/// The subject of an event. Each kind has one topic, and clients subscribe to the channel `{token}.{kind}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it all
pub enum Kind {
    Trade,
    Liquidity,
    Balances,
    Metadata,
    Social,
    Community,
    Creation,
    Analytics,
}

impl Kind {
    /// Every kind, in the order of [`TOPICS`].
    pub const ALL: [Kind; 8] = [
        Kind::Trade,
        Kind::Liquidity,
        Kind::Balances,
        Kind::Metadata,
        Kind::Social,
        Kind::Community,
        Kind::Creation,
        Kind::Analytics,
    ];

    /// The kind's part of a channel name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Trade => "trade",
            Kind::Liquidity => "liquidity",
            Kind::Balances => "balances",
            Kind::Metadata => "metadata",
            Kind::Social => "social",
            Kind::Community => "community",
            Kind::Creation => "creation",
            Kind::Analytics => "analytics",
        }
    }

    /// The Kafka topic of this kind.
    pub const fn topic(self) -> &'static str {
        TOPICS[self as usize]
    }
}

/// The Kafka topics, in the order of [`Kind::ALL`].
pub use protocol::channel::TOPICS;

/// The type of an event; the `type` field of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it all
pub enum EventType {
    TradeExecuted,
    BuyCompleted,
    SellCompleted,
    LiquidityAdded,
    LiquidityRemoved,
    LiquidityRebalanced,
    PriceDeltaUpdated,
    AnalyticsRecalculated,
    HolderCountUpdated,
    TrendingUpdated,
    CommentPosted,
    FavoriteToggled,
    CommentUpvoted,
    CommentPinned,
    MetadataUpdated,
    TokenNameChanged,
    TokenFlagsChanged,
    BalanceUpdated,
    TransferCompleted,
    SocialLinksUpdated,
    TwitterVerified,
    TokenCreated,
    TokenListed,
}

impl EventType {
    /// Every event type.
    pub const ALL: [EventType; 23] = [
        EventType::TradeExecuted,
        EventType::BuyCompleted,
        EventType::SellCompleted,
        EventType::LiquidityAdded,
        EventType::LiquidityRemoved,
        EventType::LiquidityRebalanced,
        EventType::PriceDeltaUpdated,
        EventType::AnalyticsRecalculated,
        EventType::HolderCountUpdated,
        EventType::TrendingUpdated,
        EventType::CommentPosted,
        EventType::FavoriteToggled,
        EventType::CommentUpvoted,
        EventType::CommentPinned,
        EventType::MetadataUpdated,
        EventType::TokenNameChanged,
        EventType::TokenFlagsChanged,
        EventType::BalanceUpdated,
        EventType::TransferCompleted,
        EventType::SocialLinksUpdated,
        EventType::TwitterVerified,
        EventType::TokenCreated,
        EventType::TokenListed,
    ];

    /// The name in the value.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The kind of this event type, which also determines the topic.
    pub const fn kind(self) -> Kind {
        self.row().1
    }

    /// The frequency of the event type, out of [`WEIGHT_TENTHS_TOTAL`].
    pub const fn weight_tenths(self) -> u16 {
        self.row().2
    }

    const fn row(self) -> (&'static str, Kind, u16) {
        match self {
            EventType::TradeExecuted => ("TRADE_EXECUTED", Kind::Trade, 200),
            EventType::BuyCompleted => ("BUY_COMPLETED", Kind::Trade, 150),
            EventType::SellCompleted => ("SELL_COMPLETED", Kind::Trade, 150),
            EventType::LiquidityAdded => ("LIQUIDITY_ADDED", Kind::Liquidity, 80),
            EventType::LiquidityRemoved => ("LIQUIDITY_REMOVED", Kind::Liquidity, 80),
            EventType::LiquidityRebalanced => ("LIQUIDITY_REBALANCED", Kind::Liquidity, 1),
            EventType::PriceDeltaUpdated => ("PRICE_DELTA_UPDATED", Kind::Analytics, 70),
            EventType::AnalyticsRecalculated => ("ANALYTICS_RECALCULATED", Kind::Analytics, 70),
            EventType::HolderCountUpdated => ("HOLDER_COUNT_UPDATED", Kind::Analytics, 20),
            EventType::TrendingUpdated => ("TRENDING_UPDATED", Kind::Analytics, 10),
            EventType::CommentPosted => ("COMMENT_POSTED", Kind::Community, 50),
            EventType::FavoriteToggled => ("FAVORITE_TOGGLED", Kind::Community, 20),
            EventType::CommentUpvoted => ("COMMENT_UPVOTED", Kind::Community, 10),
            EventType::CommentPinned => ("COMMENT_PINNED", Kind::Community, 2),
            EventType::MetadataUpdated => ("METADATA_UPDATED", Kind::Metadata, 50),
            EventType::TokenNameChanged => ("TOKEN_NAME_CHANGED", Kind::Metadata, 3),
            EventType::TokenFlagsChanged => ("TOKEN_FLAGS_CHANGED", Kind::Metadata, 3),
            EventType::BalanceUpdated => ("BALANCE_UPDATED", Kind::Balances, 30),
            EventType::TransferCompleted => ("TRANSFER_COMPLETED", Kind::Balances, 1),
            EventType::SocialLinksUpdated => ("SOCIAL_LINKS_UPDATED", Kind::Social, 10),
            EventType::TwitterVerified => ("TWITTER_VERIFIED", Kind::Social, 2),
            EventType::TokenCreated => ("TOKEN_CREATED", Kind::Creation, 5),
            EventType::TokenListed => ("TOKEN_LISTED", Kind::Creation, 5),
        }
    }

    /// The event type that owns `ticket`, a number below [`WEIGHT_TENTHS_TOTAL`]: one lookup per event
    /// instead of a scan over the weights.
    pub(crate) fn drawn_by(ticket: usize) -> EventType {
        TICKETS[ticket]
    }
}

/// The sum of all weights.
pub const WEIGHT_TENTHS_TOTAL: usize = {
    let mut total = 0;
    let mut i = 0;
    while i < EventType::ALL.len() {
        total += EventType::ALL[i].weight_tenths() as usize;
        i += 1;
    }
    total
};

const _: () = assert!(WEIGHT_TENTHS_TOTAL == 1022);

/// Each event type, repeated according to its weight.
static TICKETS: [EventType; WEIGHT_TENTHS_TOTAL] = {
    let mut tickets = [EventType::TradeExecuted; WEIGHT_TENTHS_TOTAL];
    let (mut i, mut next) = (0, 0);
    while i < EventType::ALL.len() {
        let end = next + EventType::ALL[i].weight_tenths() as usize;
        while next < end {
            tickets[next] = EventType::ALL[i];
            next += 1;
        }
        i += 1;
    }
    tickets
};
