//! The slots of a driver's sockets. Pure bookkeeping: no system call is made here.

use std::os::fd::OwnedFd;
#[cfg(test)]
use std::os::fd::{AsRawFd, RawFd};

use crate::kernel::{GENERATION_MASK, Operation, Tag};

/// Identifies one socket of one driver for its whole life. A slot is reused after its socket has closed, under the next
/// generation, so a stale `SocketId` never reaches another socket. The order of ids has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    slot: u32,
    generation: u32,
}

impl SocketId {
    /// Makes an id like a driver's, for tests of an owner without a driver.
    pub fn imagined(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Below the driver's number of sockets: an index into the owner's own table.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    pub(crate) fn tag(self, operation: Operation) -> Tag {
        Tag::new(operation, self.generation, self.slot)
    }

    pub(crate) fn of(tag: Tag) -> Self {
        Self { slot: tag.slot(), generation: tag.generation() }
    }
}

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketState {
    /// A connect is in progress.
    Connecting,
    Open,
    /// The FIN follows the last byte; the peer's FIN is awaited.
    Lingering,
    /// Armed requests are being cancelled; the descriptor closes with the last one's completion.
    Cancelling,
}

/// Requests that the kernel holds for a socket, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed(u8);

impl Armed {
    pub(crate) const RECEIVE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(2);
    pub(crate) const CANCEL_RECEIVE: Self = Self(4);
    pub(crate) const CANCEL_WRITABLE: Self = Self(8);

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// A socket that has not closed yet.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    pub(crate) stage: SocketState,
    pub(crate) armed: Armed,
    /// The receiving side has ended: FIN or an error. Nothing is armed for it again.
    pub(crate) receive_ended: bool,
    /// The owner has paused reading.
    pub(crate) is_paused: bool,
    /// Bytes that were read and discarded since the close.
    pub(crate) lingered_bytes: usize,
}

impl Socket {
    /// Whether the peer's bytes are to be read.
    pub(crate) fn wants_to_receive(&self) -> bool {
        !self.receive_ended
            && match self.stage {
                SocketState::Open => !self.is_paused,
                SocketState::Lingering => true,
                SocketState::Connecting | SocketState::Cancelling => false,
            }
    }
}

#[cfg(test)]
impl Socket {
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// A table of fixed size; free slots are reused last in, first out, while they are in the cache.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Sockets {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(capacity, Slot::default);
        Self { slots, free: (0..capacity as u32).rev().collect() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The number of occupied slots.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns `None` (and the descriptor closes) if every slot is occupied.
    pub(crate) fn insert(&mut self, fd: OwnedFd, stage: SocketState) -> Option<SocketId> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(Socket {
            fd,
            stage,
            armed: Armed::default(),
            receive_ended: false,
            is_paused: false,
            lingered_bytes: 0,
        });
        Some(SocketId { slot: index, generation: slot.generation })
    }

    /// Returns `None` if the socket has closed.
    pub(crate) fn find(&mut self, id: SocketId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.slot())?;
        if slot.generation == id.generation { slot.socket.as_mut() } else { None }
    }

    pub(crate) fn peek(&self, id: SocketId) -> Option<&Socket> {
        let slot = self.slots.get(id.slot())?;
        if slot.generation == id.generation { slot.socket.as_ref() } else { None }
    }

    /// Removes the socket, which invalidates its id. The slot stays occupied until `free`.
    pub(crate) fn remove(&mut self, id: SocketId) -> Option<Socket> {
        let slot = self.slots.get_mut(id.slot())?;
        if slot.generation != id.generation {
            return None;
        }
        let socket = slot.socket.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        Some(socket)
    }

    /// Frees the slot of a removed socket for its next generation.
    pub(crate) fn free(&mut self, id: SocketId) {
        debug_assert!(self.slots[id.slot()].socket.is_none(), "the socket was removed");
        self.free.push(id.slot);
    }
}
