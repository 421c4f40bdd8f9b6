//! The queues between shards.
//!
//! From each shard to each other there are two, both bounded and both in order: `events`, from an owner of partitions to a home
//! of sessions, and `requests`, from a home to an owner. Answers are owner events: whatever an owner sends after an answer, in
//! the same queue, happened after it. That order makes an acknowledged subscription exact and the end of a resume seamless.
//!
//! Nothing blocks here. A shard takes a record from Kafka, or a request from a peer, only while every queue of owner events that
//! it might write to has room ([`Mesh::has_room`], [`Mesh::next_request`]). It always takes owner events, so the queue that stops
//! one shard is emptied by the other. Requests without room stay in a backlog, and while it is long the shard reads no clients
//! ([`Mesh::is_backed_up`]).

pub(crate) mod first_offsets;
pub(crate) mod layout;
pub(crate) mod start;

use std::collections::VecDeque;
use std::sync::Arc;

use glommio::channels::spsc_queue::{self, Consumer, Producer};
use wire::SocketId;

use self::layout::Known;
use self::start::{StartReply, StartRequest};
use crate::event::channel_index::Interest;
use crate::event::frame::Frame;
use crate::event::partition::PartitionOffset;
use crate::event::pull::{Chunk, Pull, PullId};
use crate::event::shard_set::ShardSet;
use crate::event::skipped::SkippedRecords;
use crate::kafka::polled::OffsetJump;
use crate::limits;

/// A message of an owner to a home.
#[derive(Debug)]
pub enum OwnerEvent {
    /// An event that the home is interested in, or the gap in its place.
    Event(Arc<Frame>),
    /// Offsets of a partition that will not be delivered.
    OffsetJump(OffsetJump),
    /// Skipped records of a partition, for sessions that subscribe to every token.
    Skipped(SkippedRecords),
    /// How far all partitions of the owner have started, and the ones that start now with their first offsets.
    Layout(Known, Arc<[PartitionOffset]>),
    /// The answer to [`Request::Start`].
    StartReply(StartReply),
    /// The answer to [`Request::Pull`].
    Chunk(PullId, Chunk),
}

/// A message of a home to an owner.
#[derive(Debug)]
pub enum Request {
    /// The home has its first subscriber of a channel or wildcard, or lost its last one.
    Interest(Interest),
    /// Asks where these subscriptions begin; sent after their interest.
    Start(StartRequest),
    /// Asks for the next frames of a session.
    Pull(Pull),
    /// This session has ended: its questions and pulls need no answer.
    Withdraw(SocketId),
}

/// One shard's ends of all its queues.
pub struct Mesh {
    shard: usize,
    /// By peer; `None` for the shard itself.
    links: Vec<Option<Link>>,
    /// Peers that were written to since they were last woken.
    touched: ShardSet,
    /// Where the next round over the peers begins, so that no peer is always first.
    first: usize,
}

struct Link {
    events_out: Producer<OwnerEvent>,
    events_in: Consumer<OwnerEvent>,
    requests_out: Producer<Request>,
    requests_in: Consumer<Request>,
    /// Requests without room.
    backlog: VecDeque<Request>,
    /// Owner events for which there seemed to be room: the queue's own count may run ahead of what it accepts.
    spilled: VecDeque<OwnerEvent>,
}

impl Mesh {
    /// The meshes of this number of shards, with queues of (about) these lengths.
    pub fn connect(shards: usize, events: usize, requests: usize) -> Vec<Self> {
        let mut meshes: Vec<_> = (0..shards)
            .map(|shard| Self {
                shard,
                links: (0..shards).map(|_| None).collect(),
                touched: ShardSet::default(),
                first: 0,
            })
            .collect();
        for one in 0..shards {
            for other in one + 1..shards {
                let (link, back) = Link::pair(events, requests);
                meshes[one].links[other] = Some(link);
                meshes[other].links[one] = Some(back);
            }
        }
        meshes
    }

    /// The number of this shard.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The number of shards, this one included.
    pub fn shards(&self) -> usize {
        self.links.len()
    }

    /// Every other shard.
    pub fn peers(&self) -> ShardSet {
        ShardSet::all_but(self.shard, self.shards())
    }

    /// Every shard.
    pub fn everyone(&self) -> ShardSet {
        let mut everyone = self.peers();
        everyone.insert(self.shard);
        everyone
    }

    /// Tells every peer the changes of this shard's interest.
    pub fn announce(&mut self, changes: Vec<Interest>) {
        for change in changes {
            for peer in self.peers().iter() {
                self.ask(peer, Request::Interest(change.clone()));
            }
        }
    }

    /// Whether every peer has room for one more owner event.
    pub fn has_room(&self) -> bool {
        self.links.iter().flatten().all(Link::has_room)
    }

    /// Sends an owner event to a peer that has room.
    pub fn tell(&mut self, peer: usize, events: OwnerEvent) {
        let Some(link) = &mut self.links[peer] else { return };
        link.spilled.push_back(events);
        if link.flush() {
            self.touched.insert(peer);
        }
    }

    /// Sends a request to a peer, as soon as there is room.
    pub fn ask(&mut self, peer: usize, request: Request) {
        let Some(link) = &mut self.links[peer] else { return };
        link.backlog.push_back(request);
        if link.flush() {
            self.touched.insert(peer);
        }
    }

    /// Sends what had no room before.
    pub fn flush(&mut self) {
        for (peer, link) in self.links.iter_mut().enumerate() {
            if link.as_mut().is_some_and(Link::flush) {
                self.touched.insert(peer);
            }
        }
    }

    /// Whether the backlog is so long that no client may be read.
    pub fn is_backed_up(&self) -> bool {
        self.links.iter().flatten().any(|link| link.backlog.len() > limits::MESH_BACKLOG)
    }

    /// Requests that wait for room.
    pub fn backlog(&self) -> usize {
        self.links.iter().flatten().map(|link| link.backlog.len()).sum()
    }

    /// Whether something waits for room.
    pub fn has_backlog(&self) -> bool {
        self.links.iter().flatten().any(|link| !link.backlog.is_empty() || !link.spilled.is_empty())
    }

    /// The oldest owner event of the next peer.
    pub fn next_event(&mut self) -> Option<(usize, OwnerEvent)> {
        self.next_of(|link| link.events_in.try_pop())
    }

    /// The oldest request of the next peer whose answer has room.
    pub fn next_request(&mut self) -> Option<(usize, Request)> {
        self.next_of(|link| if link.has_room() { link.requests_in.try_pop() } else { None })
    }

    fn next_of<T>(&mut self, mut pop: impl FnMut(&Link) -> Option<T>) -> Option<(usize, T)> {
        let shards = self.links.len();
        for step in 0..shards {
            let peer = (self.first + step) % shards;
            if let Some(found) = self.links[peer].as_ref().and_then(&mut pop) {
                self.first = peer + 1;
                return Some((peer, found));
            }
        }
        None
    }

    /// Takes the peers that were written to since the last call: they may be asleep.
    pub fn take_touched(&mut self) -> ShardSet {
        std::mem::take(&mut self.touched)
    }
}

impl Link {
    fn pair(events: usize, requests: usize) -> (Self, Self) {
        let (events_there, events_here) = (spsc_queue::make(events), spsc_queue::make(events));
        let (requests_there, requests_here) = (spsc_queue::make(requests), spsc_queue::make(requests));
        let one = Self {
            events_out: events_there.0,
            events_in: events_here.1,
            requests_out: requests_there.0,
            requests_in: requests_here.1,
            backlog: VecDeque::new(),
            spilled: VecDeque::new(),
        };
        let other = Self {
            events_out: events_here.0,
            events_in: events_there.1,
            requests_out: requests_here.0,
            requests_in: requests_there.1,
            backlog: VecDeque::new(),
            spilled: VecDeque::new(),
        };
        (one, other)
    }

    fn has_room(&self) -> bool {
        self.spilled.is_empty() && self.events_out.free_space() > 0
    }

    /// Whether something was sent.
    fn flush(&mut self) -> bool {
        push_all(&mut self.backlog, &self.requests_out) | push_all(&mut self.spilled, &self.events_out)
    }
}

/// Whether a queue had room.
fn push_all<T>(waiting: &mut VecDeque<T>, queue: &Producer<T>) -> bool {
    let before = waiting.len();
    while let Some(oldest) = waiting.pop_front() {
        if let Some(refused) = queue.try_push(oldest) {
            waiting.push_front(refused);
            break;
        }
    }
    waiting.len() < before
}

#[cfg(test)]
#[path = "tests/mesh.rs"]
mod tests;
