//! How a session is brought what it missed: it pulls, chunk by chunk, and whoever holds the records answers.
//!
//! The shard that owns the partition answers from its history; what is older the replay thread reads from Kafka again.
//! Plain data that passes between threads.

use std::net::IpAddr;
use std::sync::Arc;

use protocol::GapReason;
use wire::SocketId;

use super::frame::Frame;
use super::partition::Partition;
use super::skipped;
use super::wants::Wants;

/// Names one pull of one session, so that its answer finds the way back; of a session that is gone it finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullId {
    /// Whose.
    pub socket: SocketId,
    /// Which cursor of the session; a number is never used twice in a session.
    pub cursor: u32,
}

/// "What comes next in this partition?"
#[derive(Clone, Debug)]
pub struct Pull {
    /// Whose.
    pub pull_id: PullId,
    /// The client's address, of IPv6 its /64: those who are read for take turns by it.
    pub client: IpAddr,
    /// Whose events are wanted, and from where.
    pub wants: Arc<Wants>,
    /// Where.
    pub partition: Partition,
    /// The first offset that was not looked at.
    pub from: i64,
    /// What the chunk before said, see [`Chunk::decided_by`].
    pub decided_by: Option<u64>,
}

/// The answer to a pull.
#[derive(Debug)]
pub struct Chunk {
    /// The offset that was asked for.
    pub from: i64,
    /// Offsets before the first frame that are nowhere to be had: the last of them, and why.
    pub lost: Option<(i64, GapReason)>,
    /// The frames that are wanted, by rising offset, at most `limits::CHUNK_BYTES` of them or one.
    pub frames: Vec<Arc<Frame>>,
    /// Of every token: one range for the records before `next` that were skipped, see [`super::skipped`].
    pub skipped: Option<skipped::Range>,
    /// The next offset that is not looked at yet.
    pub next: i64,
    /// How it goes on.
    pub then: PullContinuation,
    /// About how many bytes of records were read from Kafka again for it, wanted or not.
    pub read_bytes: u64,
    /// What is wanted lies beyond what the owner knows of the log. The brokers are asked where that ends, and their answer of this
    /// number decides whether it comes so far or is another one.
    pub decided_by: Option<u64>,
}

impl Chunk {
    /// The answer to a session that is gone.
    pub fn withdrawn() -> Self {
        Self::empty(0, 0, PullContinuation::Wait)
    }

    /// One that brings nothing.
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

/// How a pull goes on after its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullContinuation {
    /// Pull again.
    More,
    /// The owner has no more: what it says after this answer is what follows, and there is nothing to pull.
    Live,
    /// The owner has not come so far itself: pull again a little later.
    Wait,
    /// The log ends below the offset asked for, as the brokers say: the position is of another log, whose topic was recreated since.
    Reset,
    /// History begins above the offset asked for: what is before this one, which lies inside of it, the replay thread has.
    Older(i64),
}
