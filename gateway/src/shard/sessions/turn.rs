//! Where a session stands with egress.

/// A queue of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Control bytes, or the last bytes of a connection.
    Control,
    /// Events.
    Live,
    /// What a session that resumes has missed.
    Bulk,
}

/// Where a session stands with egress: in which queues, in each at most once, and whether its socket is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn(u8);

impl Turn {
    const FULL: u8 = 1 << 7;

    /// Whether the socket takes no more until the driver says so.
    pub fn is_full(self) -> bool {
        self.0 & Self::FULL != 0
    }

    /// The socket takes no more, or takes bytes again.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.0 = if is_full { self.0 | Self::FULL } else { self.0 & !Self::FULL };
    }

    /// Whether it stands in a queue.
    pub(crate) fn is_in(self, queue: Queue) -> bool {
        self.0 & 1 << queue as u8 != 0
    }

    /// It stands in a queue from now on.
    pub(crate) fn enter(&mut self, queue: Queue) {
        self.0 |= 1 << queue as u8;
    }

    /// It has left a queue.
    pub(crate) fn leave(&mut self, queue: Queue) {
        self.0 &= !(1 << queue as u8);
    }
}
