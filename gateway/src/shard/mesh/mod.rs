//! The queues between shards.
//!
//! From each shard to each other there are two, both bounded and both in order: `events`, what an owner of partitions tells the
//! home of sessions, and `requests`, what a home asks an owner. An answer is news: what an owner says after it, in the same
//! queue, happened after it. That order is what makes an acknowledged subscription exact and the end of a resume seamless.
//!
//! Nobody ever waits here. A shard takes a record from Kafka, or a request from a peer, only while every queue of news that it
//! could have to write to has room ([`Mesh::has_room`], [`Mesh::next_request`]); and it takes news in any case, so the queue that
//! stops one shard is emptied by the other. Requests for which there is no room stay in a backlog, and while it is long the
//! shard reads no clients ([`Mesh::is_backed_up`]).

pub(crate) mod first_offsets;
pub mod layout;
pub mod start;

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

/// What an owner tells a home.
#[derive(Debug)]
pub enum OwnerEvent {
    /// An event, or the gap in its place, that the home wants.
    Event(Arc<Frame>),
    /// Offsets of a partition that will not come.
    OffsetJump(OffsetJump),
    /// Records of a partition that were skipped, for those who hear every token.
    Skipped(SkippedRecords),
    /// How far all partitions of the owner have come, and which of them begin now, and where.
    Layout(Known, Arc<[PartitionOffset]>),
    /// The answer to [`Request::Start`].
    StartReply(StartReply),
    /// The answer to [`Request::Pull`].
    Chunk(PullId, Chunk),
}

/// What a home asks an owner.
#[derive(Debug)]
pub enum Request {
    /// The home has a first subscriber of a channel or wildcard, or none any more.
    Interest(Interest),
    /// Where do these subscriptions begin? Asked after their interest was told.
    Start(StartRequest),
    /// What comes next for this session?
    Pull(Pull),
    /// This session is gone: nobody waits for what it has asked.
    Withdraw(SocketId),
}

/// One shard's ends of all its queues.
pub struct Mesh {
    shard: usize,
    /// By peer; none to itself.
    links: Vec<Option<Link>>,
    /// Peers that were written to since they were last woken.
    touched: ShardSet,
    /// Where the next round over the peers begins, so that nobody is always first.
    first: usize,
}

struct Link {
    events_out: Producer<OwnerEvent>,
    events_in: Consumer<OwnerEvent>,
    requests_out: Producer<Request>,
    requests_in: Consumer<Request>,
    /// Requests for which there was no room.
    backlog: VecDeque<Request>,
    /// News for which there was room, and then was not: the queue's own count may run ahead of what it takes.
    spilled: VecDeque<OwnerEvent>,
}

impl Mesh {
    /// The meshes of so many shards, with queues of (about) these lengths.
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

    /// The shard whose ends these are.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are, this one included.
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

    /// Tells every peer whom this shard has subscribers for, and no longer.
    pub fn announce(&mut self, changes: Vec<Interest>) {
        for change in changes {
            for peer in self.peers().iter() {
                self.ask(peer, Request::Interest(change.clone()));
            }
        }
    }

    /// Whether one more piece of news can be told to each peer.
    pub fn has_room(&self) -> bool {
        self.links.iter().flatten().all(Link::has_room)
    }

    /// Tells a peer, for whom there is room.
    pub fn tell(&mut self, peer: usize, events: OwnerEvent) {
        let Some(link) = &mut self.links[peer] else { return };
        link.spilled.push_back(events);
        if link.flush() {
            self.touched.insert(peer);
        }
    }

    /// Asks a peer, as soon as there is room.
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

    /// Whether so many requests wait for room that no client should be heard before there is.
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

    /// The oldest news of some peer.
    pub fn next_event(&mut self) -> Option<(usize, OwnerEvent)> {
        self.next_of(|link| link.events_in.try_pop())
    }

    /// The oldest request of some peer that can be answered: for whose answer there is room.
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

    /// Peers that were written to since the last call: they may sleep.
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

/// Whether some of them had room.
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
