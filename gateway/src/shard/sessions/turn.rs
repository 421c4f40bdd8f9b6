//! The queues of egress that a session is in.

/// A queue of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Control bytes, or the last bytes of a connection.
    Control,
    /// Events.
    Live,
    /// Replayed events of a session that resumes.
    Bulk,
}

/// The queues that a session is in, in each at most once, and whether its socket is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn(u8);

impl Turn {
    const FULL: u8 = 1 << 7;

    /// Whether the socket takes no more bytes until the driver reports that it does.
    pub fn is_full(self) -> bool {
        self.0 & Self::FULL != 0
    }

    /// Notes whether the socket takes bytes.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.0 = if is_full { self.0 | Self::FULL } else { self.0 & !Self::FULL };
    }

    /// Whether it is in a queue.
    pub(crate) fn is_in(self, queue: Queue) -> bool {
        self.0 & 1 << queue as u8 != 0
    }

    /// Notes that it is in a queue.
    pub(crate) fn enter(&mut self, queue: Queue) {
        self.0 |= 1 << queue as u8;
    }

    /// Notes that it left a queue.
    pub(crate) fn leave(&mut self, queue: Queue) {
        self.0 &= !(1 << queue as u8);
    }
}
