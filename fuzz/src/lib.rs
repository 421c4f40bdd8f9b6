//! What the fuzz targets share: the gateway's parsers, and ways to feed them in pieces.
//!
//! The gateway's modules are compiled from their sources and not as a dependency: the crate links librdkafka and glommio, which
//! would multiply the time to build the targets, and none of it is fuzzed.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

// The targets call a part of it.
#[allow(dead_code)]
#[path = "../../gateway/src/websocket/mod.rs"]
pub mod websocket;

pub mod admission;
pub mod event;
pub mod shard;

/// What the modules above need of the gateway's limits.
pub mod limits {
    /// 1024 bytes.
    pub const KIB: usize = 1024;
}

/// Calls `feed` with the bytes in pieces of random lengths, until it returns false.
pub fn in_pieces<'a>(bytes: &'a [u8], seed: u64, mut feed: impl FnMut(&'a [u8]) -> bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let longest = 1 << random.u32(..8);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.usize(1..=longest).min(rest.len()));
        if !feed(piece) {
            return;
        }
        rest = after;
    }
}

/// The first byte of an input, which chooses how the rest is used, and the rest.
pub fn choice(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// A socket for tungstenite: it has received `input`, and takes what is written.
pub struct Memory<'a> {
    /// What is still to be read.
    pub input: &'a [u8],
    /// What was written.
    pub output: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite by itself as the server, with the same limit as the gateway's.
pub fn reference(message_bytes_max: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
        .accept_unmasked_frames(false);
    WebSocketContext::new(Role::Server, Some(config))
}
