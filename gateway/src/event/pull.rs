//! How a session gets what it missed: it pulls, chunk by chunk, and the owner of the partition or a replay thread answers.
//!
//! The owner answers from its history; a replay thread reads older records from Kafka. Plain data that passes between threads.

use std::net::IpAddr;
use std::sync::Arc;

use protocol::GapReason;
use wire::SocketId;

use super::frame::Frame;
use super::partition::Partition;
use super::skipped;
use super::wants::Wants;

/// Identifies one pull of one session, so that its answer reaches the session. The answer to a closed session is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullId {
    /// The session's socket.
    pub socket: SocketId,
    /// The cursor's number; numbers are unique within a session.
    pub cursor: u32,
}

/// The request for the next frames of a partition.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The pull's id.
    pub pull_id: PullId,
    /// The client's address, or its /64 of IPv6: the replay threads serve addresses in turn.
    pub client: IpAddr,
    /// The wanted tokens, and each one's first offset.
    pub wants: Arc<Wants>,
    /// The partition.
    pub partition: Partition,
    /// The first offset to look at.
    pub from: i64,
    /// The previous chunk's [`Chunk::decided_by`].
    pub decided_by: Option<u64>,
}

/// The answer to a pull.
#[derive(Debug)]
pub struct Chunk {
    /// The first offset of the request.
    pub from: i64,
    /// Lost offsets before the first frame: the last of them, and the reason.
    pub lost: Option<(i64, GapReason)>,
    /// The wanted frames by ascending offset: at most `limits::CHUNK_BYTES` of them, or one.
    pub frames: Vec<Arc<Frame>>,
    /// If the session wants every token: one range for the skipped records before `next`, see [`super::skipped`].
    pub skipped: Option<skipped::Range>,
    /// The next offset to look at.
    pub next: i64,
    /// How the pull continues.
    pub then: PullContinuation,
    /// Approximate bytes of records that were read from Kafka for it, wanted or not.
    pub read_bytes: u64,
    /// The wanted offset is beyond the end of the log that the owner knows. The brokers are asked for the end, and their answer
    /// with this number decides whether the log reaches that far or is another one.
    pub decided_by: Option<u64>,
}

impl Chunk {
    /// The answer to a closed session.
    pub fn withdrawn() -> Self {
        Self::empty(0, 0, PullContinuation::Wait)
    }

    /// A chunk without frames.
    pub fn empty(from: i64, next: i64, then: PullContinuation) -> Self {
        Self {
            from,
            lost: None,
            frames: Vec::new(),
            skipped: None,
            next,
            then,
            read_bytes: 0,
            decided_by: None,
        }
    }
}

/// How a pull continues after its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullContinuation {
    /// Pull again.
    More,
    /// The owner has no more frames: what it sends after this answer follows directly, so there is nothing to pull.
    Live,
    /// The owner has not read that far itself: pull again a little later.
    Wait,
    /// The brokers say that the log ends below the requested offset: the position belongs to a topic that was recreated since.
    Reset,
    /// The history begins above the requested offset. A replay thread has the records before this offset, which lies inside the
    /// history.
    Older(i64),
}
