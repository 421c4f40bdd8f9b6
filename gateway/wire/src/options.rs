//! The driver's options, counters and fill levels.

use std::time::Duration;

use crate::error::SetupError;

/// Sizes of a driver, all fixed for its life.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Maximum sockets, 1 to 1,048,576; an accept beyond is closed at once and counted. The completion queue has room for one
    /// completion of each socket up to about 64,000 (the kernel's limit is 65,536 entries); beyond that, completions wait in
    /// memory that the kernel allocates: slower, but nothing is lost.
    pub sockets: usize,
    /// Sends per enter, 1 to 4,096; a larger batch takes several enters.
    pub batch: usize,
    /// Receive buffers; a power of two of at most 32,768.
    pub buffers: u16,
    /// Bytes of a receive buffer, up to 1 MiB.
    pub buffer_bytes: usize,
    /// Accepts armed at a time, 1 to 4,096; this bounds the accepts of a turn.
    pub accepts: usize,
    /// How long a closed socket waits for the peer's FIN.
    pub linger: Duration,
    /// Bytes of the peer that a closed socket discards while it waits; beyond them it is reset. `usize::MAX` means no bound.
    pub linger_bytes: usize,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            sockets: 16 * 1024,
            batch: 512,
            buffers: 2048,
            buffer_bytes: 2048,
            accepts: 64,
            linger: Duration::from_secs(2),
            linger_bytes: usize::MAX,
        }
    }
}

impl DriverOptions {
    pub(crate) fn check(&self) -> Result<(), SetupError> {
        if !self.buffers.is_power_of_two() || self.buffers > 32_768 {
            return Err(SetupError::Options("receive buffers are a power of two of at most 32,768"));
        }
        if self.sockets == 0 || self.sockets > 1 << 20 || self.batch == 0 || self.batch > 4096 {
            return Err(SetupError::Options("sockets are 1 to 1,048,576, the sends of a batch 1 to 4,096"));
        }
        if !(1..=1 << 20).contains(&self.buffer_bytes) {
            return Err(SetupError::Options("a receive buffer has 1 byte to 1 MiB"));
        }
        if !(1..=4096).contains(&self.accepts) {
            return Err(SetupError::Options("the armed accepts are 1 to 4,096"));
        }
        Ok(())
    }
}

/// Counters since the driver was created, and current fill levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Sockets whose `Closed` is not reported yet.
    pub sockets: usize,
    /// Receive buffers that the kernel has: free, or filled and not yet harvested.
    pub buffers_free: usize,
    /// Receives that found no free buffer and were armed again.
    pub buffers_exhausted: u64,
    /// Cancels that did not find their uncompleted request: its connection, or the listener, was shut down.
    pub cancels_missed: u64,
    /// Completions of a request of an earlier socket in the slot.
    pub completions_stale: u64,
    /// Receives that the owner paused.
    pub receives_paused: u64,
    /// Closed sockets that were reset because the peer continued to send.
    pub lingers_cut: u64,
}
