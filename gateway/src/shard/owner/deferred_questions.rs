//! Deferred questions: start requests that wait for the owner to be ready, or for the brokers to tell where logs end. Pure.
//!
//! A change of a partition is written down once ([`Change`]) and applied by each question when it is looked at, so that no event
//! costs more because many questions wait. Looking at them is a walk over all ([`DeferredQuestions::reconsider_all`]) that
//! continues from turn to turn.
//!
//! Bounded in number, in bytes and per session; the end of a session removes its questions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use hashbrown::HashMap;
use smallvec::SmallVec;
use wire::SocketId;

use crate::event::partition::Partition;
use crate::limits;
use crate::shard::mesh::start::StartRequest;

/// A question, with the next offsets of this owner's partitions at its arrival. From then on its home withholds what it covers,
/// so the answer must begin there, however late it is.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) home: usize,
    pub(crate) begin: StartRequest,
    pub(crate) cut: BTreeMap<Partition, i64>,
}

/// A question that waits.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) question: Question,
    /// The ends that it waits for: each partition, with the number of an answer that was requested after the question arrived.
    pub(crate) ends: Vec<(Partition, u64)>,
    /// When it is answered with what is known.
    due: Instant,
    /// The number of the last change that it has applied.
    seen: u64,
    bytes: usize,
}

/// A change of a partition while questions waited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// It started: its delivery begins here.
    Began(i64),
    /// Its topic was recreated: the cut is here.
    Reset(i64),
    /// Its delivery begins here, which may be below the cut.
    Lowered(i64),
}

/// The questions in order, and the changes that they have not all applied.
#[derive(Debug, Default)]
pub(crate) struct DeferredQuestions {
    /// By arrival.
    questions: BTreeMap<u64, Deferred>,
    by_session: HashMap<(usize, SocketId), SmallVec<[u64; 2]>>,
    questions_made: u64,
    bytes: usize,
    /// Numbered changes that some question may not have applied.
    changes: VecDeque<(u64, Partition, Change)>,
    changes_made: u64,
    /// The next question of the walk, and how many remain.
    walk_at: u64,
    walk_left: usize,
}

impl DeferredQuestions {
    /// Defers a question until `due`, which is never earlier than the previous question's.
    ///
    /// # Errors
    /// Returns the question: too many wait.
    pub(crate) fn push(
        &mut self,
        question: Question,
        ends: Vec<(Partition, u64)>,
        due: Instant,
    ) -> Result<(), (Question, Vec<(Partition, u64)>)> {
        let bytes = bytes_of(&question, &ends);
        let session = (question.home, question.begin.pull_id.socket);
        let of_session = self.by_session.get(&session).map_or(0, SmallVec::len);
        let is_over = self.questions.len() >= limits::QUESTIONS_DEFERRED
            || of_session >= limits::QUESTIONS_DEFERRED_PER_SESSION
            || self.bytes + bytes > limits::QUESTIONS_DEFERRED_BYTES;
        if is_over {
            return Err((question, ends));
        }
        self.questions_made += 1;
        self.bytes += bytes;
        self.by_session.entry(session).or_default().push(self.questions_made);
        let deferred = Deferred { question, ends, due, seen: self.changes_made, bytes };
        self.questions.insert(self.questions_made, deferred);
        if self.walk_left > 0 {
            // The walk has yet to reach its place.
            self.walk_left += 1;
        }
        Ok(())
    }

    /// Adds a question that waits only for its turn: it is looked at next.
    ///
    /// # Errors
    /// Returns the question: too many wait.
    pub(crate) fn push_complete(&mut self, question: Question, due: Instant) -> Result<(), Question> {
        self.push(question, Vec::new(), due).map_err(|(question, _)| question)?;
        if self.walk_left == 0 {
            (self.walk_at, self.walk_left) = (self.questions_made, 1);
        }
        Ok(())
    }

    /// The number of questions.
    pub(crate) fn len(&self) -> usize {
        self.questions.len()
    }

    /// Their approximate memory, including what they share with their sessions.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first of them is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.questions.first_key_value().map(|(_, deferred)| deferred.due)
    }

    /// The number of the first, if it is due.
    pub(crate) fn overdue(&self, now: Instant) -> Option<u64> {
        let (&number, deferred) = self.questions.first_key_value()?;
        (deferred.due <= now).then_some(number)
    }

    /// Notes a change of a partition, for the questions that arrived before it.
    pub(crate) fn note(&mut self, partition: Partition, change: Change) {
        if !self.questions.is_empty() {
            self.changes_made += 1;
            self.changes.push_back((self.changes_made, partition, change));
            self.reconsider_all();
        }
    }

    /// Begins a walk over every question.
    pub(crate) fn reconsider_all(&mut self) {
        self.walk_left = self.questions.len();
    }

    /// Whether the walk is not finished.
    pub(crate) fn is_walking(&self) -> bool {
        self.walk_left > 0 && !self.questions.is_empty()
    }

    /// The number of the next question of the walk.
    pub(crate) fn walk(&mut self) -> Option<u64> {
        if self.walk_left == 0 || self.questions.is_empty() {
            self.walk_left = 0;
            // Every question has applied them.
            self.changes.clear();
            return None;
        }
        self.walk_left -= 1;
        let next = self.questions.range(self.walk_at..).next().or_else(|| self.questions.first_key_value());
        let number = next.map(|(&number, _)| number)?;
        self.walk_at = number + 1;
        Some(number)
    }

    /// This question, and the changes that it has not applied, which count as applied now.
    pub(crate) fn look_at(&mut self, number: u64) -> Option<(&mut Deferred, Vec<(Partition, Change)>)> {
        let deferred = self.questions.get_mut(&number)?;
        let seen = self.changes.partition_point(|(change, ..)| *change <= deferred.seen);
        let changes = self.changes.range(seen..).map(|&(_, partition, change)| (partition, change)).collect();
        deferred.seen = self.changes_made;
        Some((deferred, changes))
    }

    /// Removes a question.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Deferred> {
        let deferred = self.questions.remove(&number)?;
        self.bytes -= deferred.bytes;
        let session = (deferred.question.home, deferred.question.begin.pull_id.socket);
        if let Some(numbers) = self.by_session.get_mut(&session) {
            numbers.retain(|it| *it != number);
            if numbers.is_empty() {
                self.by_session.remove(&session);
            }
        }
        Some(deferred)
    }

    /// Removes the questions of a session. Returns their number.
    pub(crate) fn withdraw(&mut self, home: usize, socket: SocketId) -> usize {
        let numbers = self.by_session.remove(&(home, socket)).unwrap_or_default();
        let removed = numbers.iter().filter_map(|number| self.questions.remove(number));
        self.bytes -= removed.map(|deferred| deferred.bytes).sum::<usize>();
        numbers.len()
    }
}

/// Approximate; the awaited ends may still grow by a few, and so may the cut.
fn bytes_of(question: &Question, ends: &[(Partition, u64)]) -> usize {
    // A B-tree that is made of all its entries at once has full nodes: 11 entries, one above them, and links.
    let cut = question.cut.len().div_ceil(12) * 14 * size_of::<(Partition, i64)>();
    size_of::<Deferred>() + cut + size_of_val(ends) + question.begin.bytes()
}
