//! A shard without its driver, its Kafka consumer and its executor: everything that it decides.
//!
//! Input from these three goes to the shard's parts (`connections` for its sessions, `owner` for its partitions, `mesh` for the
//! other shards); output is stored until the loop takes it. Pure: tests drive several cores in one thread, through every
//! interleaving that the queues allow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;
use wire::{Readings, SocketId};

use super::connections::Connections;
use super::mesh::start::StartReply;
use super::mesh::{Mesh, OwnerEvent, Request};
use super::owner::Owner;
use super::resume::Ask;
use super::time_slice::TimeSlice;
use crate::counters::operations;
use crate::counters::{Counters, RecordSkipped};
use crate::event::frame::Frame;
use crate::event::partition::{Partition, PartitionOffset};
use crate::event::pull::{Chunk, Pull, PullId};
use crate::event::skipped::SkippedRecords;
use crate::kafka::polled::Polled;
use crate::limits;
use crate::log::throttle::LogThrottle;

/// The parts of a shard, and the output for the loop.
pub(crate) struct Core {
    /// This shard's sessions.
    pub connections: Connections,
    /// This shard's partitions.
    pub owner: Owner,
    /// The queues to the other shards.
    pub mesh: Mesh,
    /// Pulls for the replay threads, each with the offset at which the owner's history begins.
    replays_wanted: Vec<(Pull, i64)>,
    /// Pulls of the peers, in order; each peer has few open.
    pulls_wanted: VecDeque<PullWanted>,
    /// Pulls of this shard that the peers have not answered.
    pulls_out: usize,
    end_complaints: LogThrottle,
}

/// A pull of a peer.
struct PullWanted {
    peer: usize,
    pull_id: PullId,
    /// `None` if its session ended.
    pull: Option<Pull>,
}

impl Core {
    /// Made of these parts.
    pub(crate) fn new(connections: Connections, owner: Owner, mesh: Mesh) -> Self {
        Self {
            connections,
            owner,
            mesh,
            replays_wanted: Vec::new(),
            pulls_wanted: VecDeque::new(),
            pulls_out: 0,
            end_complaints: LogThrottle::every(limits::KAFKA_LOG_LINE_INTERVAL),
        }
    }

    /// Takes bytes of a client.
    pub(crate) fn receive(&mut self, socket: SocketId, bytes: &[u8], now: Instant) {
        self.connections.receive(socket, bytes, now, &mut self.owner, &mut self.mesh);
        self.announce_interest();
    }

    /// Reads a slice of the put-aside bytes of one session. Whether there was such a session.
    pub(crate) fn serve_stash(&mut self, now: Instant) -> bool {
        let was_any = self.connections.serve_stash(now, &mut self.owner, &mut self.mesh);
        self.announce_interest();
        was_any
    }

    /// Whether a record may be taken from Kafka: every interested shard has room for it.
    pub(crate) fn may_take(&self) -> bool {
        self.mesh.has_room()
    }

    /// Takes the result of a poll, after [`Core::may_take`].
    pub(crate) fn take(&mut self, polled: Polled, now: Instant) {
        let counters = &mut self.connections.counters;
        match polled {
            Polled::Event(frame) => {
                counters.records += 1;
                counters.records_framed += 1;
                self.publish(&Arc::new(frame));
            }
            Polled::Skipped(gap, skipped) => {
                counters.records += 1;
                counters.records_skipped.add(RecordSkipped::from(skipped));
                self.publish(&Arc::new(gap));
            }
            Polled::Ignored(ignored, owned) => {
                counters.records += 1;
                counters.records_skipped.add(RecordSkipped::from(ignored));
                operations::count(limits::OPERATIONS_PER_STEP);
                if let Some(owned) = owned {
                    self.owner.skip(owned, now);
                    self.tell_skipped(now);
                }
            }
            Polled::Passed(owned) => self.owner.advance_past(owned),
            Polled::Partitions(topic, count) => self.owner.set_partitions(topic, count),
            Polled::Began(began) => {
                let began = began.iter().map(|began| self.owner.partition_started(began)).collect();
                self.tell_layout(&began, now);
            }
            Polled::Layout(expected) => {
                self.owner.set_layout(expected);
                self.tell_layout(&[].into(), now);
            }
            Polled::OffsetJump(jump) => {
                self.owner.note_jump(&jump);
                self.connections.announce(&jump, now);
                for peer in self.mesh.peers().iter() {
                    self.mesh.tell(peer, OwnerEvent::OffsetJump(jump));
                }
            }
            Polled::End(partition, end) => {
                self.owner.end_found(partition, end, now);
                if end.is_none() {
                    self.warn_of_no_end(partition, now);
                }
            }
            Polled::Nothing => {}
        }
    }

    /// Every partition has started and its history is filled: resumes are answered from now on.
    pub(crate) fn set_ready(&mut self, now: Instant) {
        self.owner.set_ready();
        self.answer_waiting(now);
    }

    /// When the oldest deferred question must be answered, unless one can be answered now.
    pub(crate) fn next_answer_due(&self) -> Option<Instant> {
        self.owner.next_due().filter(|_| self.mesh.has_room())
    }

    /// Handles messages of the other shards and answers them, and ends sessions that are marked for it. Whether that was all.
    pub(crate) fn exchange(&mut self, now: Instant) -> bool {
        self.announce_interest();
        self.withdraw_gone();
        self.mesh.flush();
        let ended = self.connections.end_condemned(now);
        let told = self.tell_skipped(now);
        self.answer_waiting(now);
        let heard = self.take_owner_events(now);
        let answered = self.answer_requests(now);
        let has_waiting = self.owner.has_waiting() && self.mesh.has_room();
        ended && told && heard && answered && !has_waiting
    }

    /// Does one step of resumes: answers one pull of a peer, and makes one of this shard's. Whether there was any.
    ///
    /// Apart from [`Core::exchange`], because this work can wait.
    pub(crate) fn replay_some(&mut self, now: Instant) -> bool {
        let answered = self.answer_pull();
        let pulled = self.pulls_out < limits::PULLS_OUT && self.pull(now);
        answered || pulled
    }

    /// When a waiting session pulls again; `None` if the maximum of pulls is open, because then an answer comes first.
    pub(crate) fn next_pull_due(&self) -> Option<Instant> {
        self.connections.next_pull_due().filter(|_| self.pulls_out < limits::PULLS_OUT)
    }

    /// When an announcement of skipped records is due; `None` if it waits for room.
    pub(crate) fn next_skipped_due(&self) -> Option<Instant> {
        self.owner.skipped.next_due().filter(|_| self.mesh.has_room())
    }

    /// Takes a replay thread's answer to a pull.
    pub(crate) fn take_replayed(&mut self, pull_id: PullId, chunk: Chunk, now: Instant) {
        self.connections.take_chunk(pull_id, chunk, now);
    }

    /// Takes the pulls for the replay threads.
    pub(crate) fn take_replays_wanted(&mut self) -> Vec<(Pull, i64)> {
        std::mem::take(&mut self.replays_wanted)
    }

    /// Takes the sessions for which the replay threads need not read any longer, each with its last cursor and the partition that
    /// was last read for it.
    pub(crate) fn take_replays_gone(&mut self) -> Vec<(PullId, Partition)> {
        std::mem::take(&mut self.connections.replays_gone)
    }

    /// Takes the partitions whose end the brokers must be asked for.
    pub(crate) fn take_ends_wanted(&mut self) -> Vec<Partition> {
        self.owner.take_ends_wanted()
    }

    /// The counters, with the present sizes.
    pub(crate) fn count(&mut self, readings: &Readings) -> Counters {
        let mut counters = self.connections.count(readings);
        let history = self.owner.history();
        counters.history_frames = history.frames() as u64;
        counters.history_bytes = history.bytes() as u64;
        counters.history_evicted = history.evicted();
        counters.last_values = self.owner.last_values().channels() as u64;
        counters.last_values_evicted = self.owner.last_values().evicted();
        let misplaced_tokens = self.owner.misplaced_tokens();
        counters.records_misplaced = misplaced_tokens.records();
        counters.tokens_misplaced = misplaced_tokens.tokens() as u64;
        counters.tokens_misplaced_dropped = misplaced_tokens.dropped();
        counters.mesh_backlog = self.mesh.backlog() as u64;
        let (questions, bytes) = self.owner.deferred();
        counters.questions_deferred = questions as u64;
        counters.questions_deferred_bytes = bytes as u64;
        counters.questions_hurried = self.owner.questions_hurried();
        counters.questions_withdrawn = self.owner.questions_withdrawn();
        counters
    }

    /// Tells the peers the changes of this shard's interest.
    pub(crate) fn announce_interest(&mut self) {
        self.mesh.announce(self.connections.channels.take_changes());
    }

    fn publish(&mut self, frame: &Arc<Frame>) {
        if !self.owner.store_frame(frame) {
            return;
        }
        for peer in self.connections.broadcast(frame).iter() {
            self.connections.counters.mesh_frames += 1;
            self.mesh.tell(peer, OwnerEvent::Event(Arc::clone(frame)));
        }
    }

    /// Takes owner events, at least one: the queue that stops a peer is emptied whatever this shard waits for.
    fn take_owner_events(&mut self, now: Instant) -> bool {
        let mut slice = TimeSlice::begin(limits::EXCHANGE_DURATION);
        for _ in 0..limits::NEWS_PER_TURN {
            let Some((peer, events)) = self.mesh.next_event() else { return true };
            match events {
                OwnerEvent::Event(frame) => _ = self.connections.broadcast(&frame),
                OwnerEvent::OffsetJump(jump) => self.connections.announce(&jump, now),
                OwnerEvent::Skipped(skips) => self.announce_skipped(skips, now),
                OwnerEvent::Layout(known, began) => self.connections.set_layout(peer, known, &began, now),
                OwnerEvent::StartReply(begun) => self.connections.take_start_reply(peer, begun, now),
                OwnerEvent::Chunk(pull_id, chunk) => {
                    self.pulls_out -= 1;
                    self.connections.take_chunk(pull_id, chunk, now);
                }
            }
            if slice.is_over() {
                return false;
            }
        }
        false
    }

    fn answer_requests(&mut self, now: Instant) -> bool {
        let until = self.owner.turn_ends_at();
        let mut slice = TimeSlice::begin(limits::EXCHANGE_DURATION);
        for _ in 0..limits::REQUESTS_PER_TURN {
            if self.owner.operations() >= until {
                return false;
            }
            let Some((peer, request)) = self.mesh.next_request() else { return true };
            operations::count(limits::OPERATIONS_PER_STEP);
            match request {
                Request::Interest(interest) => self.connections.channels.set_interest(peer, &interest),
                Request::Start(begin) => {
                    let answer = self.owner.answer_start(peer, begin, now).map(|begun| (peer, begun));
                    self.answer(answer, now);
                }
                Request::Pull(pull) => {
                    self.pulls_wanted.push_back(PullWanted { peer, pull_id: pull.pull_id, pull: Some(pull) });
                }
                Request::Withdraw(socket) => {
                    self.owner.withdraw(peer, socket);
                    let of_it = self.pulls_wanted.iter_mut();
                    of_it
                        .filter(|it| it.peer == peer && it.pull_id.socket == socket)
                        .for_each(|it| it.pull = None);
                }
            }
            if slice.is_over() {
                return false;
            }
        }
        false
    }

    /// Answers deferred questions, as far as the peers have room. An answer is sent at once, so that whatever follows it happened
    /// after it.
    fn answer_waiting(&mut self, now: Instant) {
        if self.mesh.has_room() {
            let answers = self.owner.answer_waiting(now);
            self.answer(answers, now);
        }
    }

    /// Tells the owners which sessions ended before their answers, behind the requests of these sessions.
    fn withdraw_gone(&mut self) {
        while let Some(socket) = self.connections.gone.pop() {
            self.owner.withdraw(self.mesh.shard(), socket);
            for peer in self.mesh.peers().iter() {
                self.mesh.ask(peer, Request::Withdraw(socket));
            }
        }
    }

    fn warn_of_no_end(&mut self, partition: Partition, now: Instant) {
        if let Some(suppressed) = self.end_complaints.allow(now) {
            warn!(
                kind = &*self.owner.kinds()[partition.topic],
                partition = partition.number,
                suppressed,
                "the brokers cannot tell where a partition ends, and clients resume beyond what was read of it; asking again"
            );
        }
    }

    fn answer_pull(&mut self) -> bool {
        if !self.mesh.has_room() {
            return false;
        }
        let Some(PullWanted { peer, pull_id, pull }) = self.pulls_wanted.pop_front() else { return false };
        let chunk = pull.map_or_else(Chunk::withdrawn, |pull| self.owner.pull(&pull));
        self.mesh.tell(peer, OwnerEvent::Chunk(pull_id, chunk));
        true
    }

    /// Makes a pull for a session. Whether there was one that pulls.
    fn pull(&mut self, now: Instant) -> bool {
        let Some(ask) = self.connections.next_ask(now) else { return self.connections.has_pulls() };
        match ask {
            Ask::Replay(pull, until) => self.replays_wanted.push((pull, until)),
            Ask::Owner(pull) => {
                let owner = pull.partition.owner(self.mesh.shards());
                if owner == self.mesh.shard() {
                    let chunk = self.owner.pull(&pull);
                    self.connections.take_chunk(pull.pull_id, chunk, now);
                } else {
                    self.pulls_out += 1;
                    self.mesh.ask(owner, Request::Pull(pull));
                }
            }
        }
        true
    }

    fn answer(&mut self, answers: impl IntoIterator<Item = (usize, StartReply)>, now: Instant) {
        for (home, begun) in answers {
            if home == self.mesh.shard() {
                self.connections.take_start_reply(home, begun, now);
            } else {
                self.mesh.tell(home, OwnerEvent::StartReply(begun));
            }
        }
    }

    /// Announces skipped records that are due, as far as the peers have room. Whether that was all that has room.
    fn tell_skipped(&mut self, now: Instant) -> bool {
        let mut slice = TimeSlice::begin(limits::EXCHANGE_DURATION);
        while self.mesh.has_room() {
            let Some(skips) = self.owner.skipped.take_due(now) else { return true };
            self.announce_skipped(skips, now);
            for peer in self.mesh.peers().iter() {
                self.mesh.tell(peer, OwnerEvent::Skipped(skips));
            }
            if slice.is_over() {
                return false;
            }
        }
        true
    }

    fn announce_skipped(&mut self, skips: SkippedRecords, now: Instant) {
        self.connections.announce_skipped(skips, &self.owner.kinds()[skips.partition.topic], now);
    }

    /// Tells every shard, this one included, how far this shard's partitions have started.
    fn tell_layout(&mut self, began: &Arc<[PartitionOffset]>, now: Instant) {
        let Some(known) = self.owner.known() else { return };
        self.connections.set_layout(self.mesh.shard(), Arc::clone(&known), began, now);
        for peer in self.mesh.peers().iter() {
            self.mesh.tell(peer, OwnerEvent::Layout(Arc::clone(&known), Arc::clone(began)));
        }
    }
}

#[cfg(test)]
#[path = "tests/core.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/core_waiting.rs"]
mod waiting_tests;
