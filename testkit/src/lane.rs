//! Channels identified by numbers, because millions of deliveries are recorded and compared.

use std::fmt;

use protocol::kind_of_topic;

use crate::TOPICS;

/// The events of one channel in one partition, which are delivered in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Number of the token: 17 is the token `T17`.
    pub token: u16,
    /// Index of the kind's topic in [`TOPICS`].
    pub kind: u8,
    /// Partition of the kind's topic.
    pub partition: i32,
}

/// The channels of a subscription: one channel or, where a part is `None`, a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// The token; `None` means all.
    pub token: Option<u16>,
    /// The kind; `None` means all.
    pub kind: Option<u8>,
}

impl Selection {
    /// Parses `T17.trade` or a wildcard; `None` for tokens or topics that [`Lane`] cannot represent.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "*" {
            return Some(Self { token: None, kind: None });
        }
        let (token, kind) = name.rsplit_once('.')?;
        let token = match token {
            "*" => None,
            token => Some(token.strip_prefix('T')?.parse().ok()?),
        };
        let kind = match kind {
            "*" => None,
            kind => Some(kind_number(kind)?),
        };
        Some(Self { token, kind })
    }

    /// Whether it selects the lane's events.
    pub fn selects(self, lane: Lane) -> bool {
        self.token.is_none_or(|token| token == lane.token) && self.kind.is_none_or(|kind| kind == lane.kind)
    }

    /// Whether there are channels that both select.
    pub fn overlaps(self, other: Self) -> bool {
        meet(self.token, other.token) && meet(self.kind, other.kind)
    }

    /// Whether it selects every channel that `other` selects.
    pub fn covers(self, other: Self) -> bool {
        (self.token.is_none() || self.token == other.token)
            && (self.kind.is_none() || self.kind == other.kind)
    }
}

fn meet<T: PartialEq + Copy>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The kind's name in a channel.
pub fn kind_name(number: u8) -> &'static str {
    kind_of_topic(TOPICS[usize::from(number)])
}

/// The index of the kind's topic; `None` if there is none.
pub fn kind_number(kind: &str) -> Option<u8> {
    let place = TOPICS.iter().position(|topic| kind_of_topic(topic) == kind)?;
    u8::try_from(place).ok()
}

impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.token {
            None if self.kind.is_none() => return formatter.write_str("*"),
            Some(token) => write!(formatter, "T{token}.")?,
            None => formatter.write_str("*.")?,
        }
        formatter.write_str(self.kind.map_or("*", kind_name))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "T{}.{} {}", self.token, kind_name(self.kind), self.partition)
    }
}
