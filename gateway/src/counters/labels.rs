//! The values of the metrics' labels, as enums: never a label per channel or client.

/// Counts of one enum's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByLabel<const N: usize>([u64; N]);

impl<const N: usize> Default for ByLabel<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> ByLabel<N> {
    /// Adds one to the count of this value.
    pub fn add<L: Label<N>>(&mut self, label: L) {
        self.0[label.index()] += 1;
    }

    /// Each value's text and count.
    pub fn iter<L: Label<N>>(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::TEXTS.into_iter().zip(self.0)
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// An enum whose values are the values of a metric's label.
pub trait Label<const N: usize>: Copy {
    /// The label's texts, in the order of the variants.
    const TEXTS: [&'static str; N];
    /// The place of the value's text in `TEXTS`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident [$count:literal] { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Label<$count> for $name {
            const TEXTS: [&'static str; $count] = [$($text),*];
            fn index(self) -> usize {
                self as usize
            }
        }

        impl $name {
            /// The label's text.
            pub fn text(self) -> &'static str {
                Self::TEXTS[self.index()]
            }
        }
    };
}

labels! {
    /// Why a session ended.
    Disconnect[13] {
        /// The client's close frame.
        ClientClosed => "client_closed",
        /// The client sent FIN without a close frame.
        ClientGone => "client_gone",
        /// The connection broke: it was reset, or bytes were unacknowledged for too long.
        ConnectionLost => "connection_lost",
        /// No frame from the client for 60 s.
        Idle => "idle",
        /// The outbox was full of events.
        SlowConsumer => "slow_consumer",
        /// The client sent messages and did not read the answers.
        Flood => "flood",
        /// The client broke the WebSocket protocol (1002) or sent text that is not UTF-8 (1007).
        ProtocolError => "protocol_error",
        /// A message above WS_MAX_MESSAGE_BYTES (1009).
        MessageTooBig => "message_too_big",
        /// A message of more than 128 fragments.
        TooManyFragments => "too_many_fragments",
        /// A message was incomplete for 10 s.
        MessageTimeout => "message_timeout",
        /// The shard's limit for incomplete messages was reached.
        InboundMemory => "inbound_memory",
        /// The gateway drains.
        Drain => "drain",
        /// The process exceeded WS_MEMORY_LIMIT, and the session was one of the largest.
        MemoryLimit => "memory_limit",
    }
}

labels! {
    /// Why a connection did not become a session.
    Refusal[11] {
        /// The gateway drains.
        Draining => "draining",
        /// CONN_RATE_LIMIT_IP_*.
        IpRate => "ip_rate",
        /// CONN_RATE_LIMIT_GLOBAL_*.
        GlobalRate => "global_rate",
        /// WS_MAX_CONNECTIONS.
        MaxConnections => "at_max_connections",
        /// WS_CPU_REJECT_THRESHOLD.
        CpuOverload => "cpu_overload",
        /// WS_MEMORY_LIMIT.
        MemoryLimit => "memory_limit",
        /// WS_MAX_CONNECTIONS_PER_IP.
        IpConnections => "ip_connections",
        /// Sockets ran short before its request was complete.
        SocketsShort => "sockets_short",
        /// Not the request of a WebSocket client, see docs/PROTOCOL.md.
        BadRequest => "bad_request",
        /// The request was incomplete for 5 s.
        HandshakeTimeout => "handshake_timeout",
        /// The client left before its request was complete.
        ClientGone => "client_gone",
    }
}

labels! {
    /// Why a record did not become an event.
    RecordSkipped[5] {
        /// No key.
        NoKey => "no_key",
        /// The key is not a token.
        BadKey => "bad_key",
        /// Delivered before.
        Duplicate => "duplicate",
        /// Above WS_MAX_RECORD_BYTES; a gap was sent.
        TooLong => "too_long",
        /// Not UTF-8; a gap was sent.
        NotUtf8 => "not_utf8",
    }
}

labels! {
    /// Why a session was not read for a while.
    ReceivePause[4] {
        /// Its messages cost more than its share of the shard.
        Operations => "operations",
        /// Control frames beyond WS_MESSAGE_*.
        Messages => "messages",
        /// WS_INBOUND_*.
        Bytes => "bytes",
        /// The bytes that it sent wait for its turn.
        Backlog => "backlog",
    }
}

labels! {
    /// Why no records were taken from Kafka.
    PauseReason[2] {
        /// WS_CPU_PAUSE_THRESHOLD.
        Cpu => "cpu",
        /// WS_MAX_KAFKA_RATE.
        Rate => "rate",
    }
}

labels! {
    /// Why a range of positions was not delivered.
    GapCause[8] {
        /// The outbox was full.
        SlowConsumer => "slow_consumer",
        /// Kafka no longer had the range.
        Retention => "retention",
        /// The topic was recreated.
        Reset => "reset",
        /// WS_MAX_LAG.
        Lag => "lag",
        /// A replay was given up.
        Replay => "replay",
        /// A record that cannot be framed.
        Skipped => "skipped",
        /// WS_RESUME_MAX_AGE.
        TooOld => "too_old",
        /// WS_RESUME_MAX_BYTES.
        TooMuch => "too_much",
    }
}

labels! {
    /// The target of a plain HTTP request.
    HttpRoute[5] {
        /// `/health` and the paths below it.
        Health => "health",
        /// `/metrics`.
        Metrics => "metrics",
        /// `/`.
        Console => "console",
        /// Any other path.
        NotFound => "not_found",
        /// The request was refused before it had a route.
        Refused => "refused",
    }
}

impl From<protocol::GapReason> for GapCause {
    fn from(reason: protocol::GapReason) -> Self {
        match reason {
            protocol::GapReason::SlowConsumer => Self::SlowConsumer,
            protocol::GapReason::Retention => Self::Retention,
            protocol::GapReason::Reset => Self::Reset,
            protocol::GapReason::Lag => Self::Lag,
            protocol::GapReason::Replay => Self::Replay,
            protocol::GapReason::Skipped => Self::Skipped,
            protocol::GapReason::TooOld => Self::TooOld,
            protocol::GapReason::TooMuch => Self::TooMuch,
        }
    }
}
