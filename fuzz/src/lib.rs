//! What the fuzz targets share: the gateway's parsers, and ways to feed them in pieces.
//!
//! The gateway's modules are compiled from their sources and not as a dependency: the crate links librdkafka and glommio, which
//! would multiply the time to build the targets, and none of it is fuzzed.

#[path = "../../gateway/src/session/mod.rs"]
pub mod session;

pub mod ingest;

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
