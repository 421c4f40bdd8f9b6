//! Questions that wait for their answer: for the owner to be ready, or for the brokers to tell where logs end. Pure.
//!
//! What happens to a partition meanwhile is written down once ([`Change`]) and taken over by each question when it is looked at,
//! so that no event costs more because many wait. Looking at them is a walk over all ([`DeferredQuestions::reconsider_all`]) that goes on from
//! turn to turn.
//!
//! Bounded in number, in bytes and for each session; a session that is gone takes its questions with it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use hashbrown::HashMap;
use smallvec::SmallVec;
use wire::SocketId;

use crate::event::partition::Partition;
use crate::limits;
use crate::shard::mesh::start::StartRequest;

/// A question, with how far our partitions had come when it came. From there on its home withholds what it is about, whoever
/// else wants it, so that is where the answer has to begin, however late it is.
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
    /// For these ends: for the answer of that number, which was asked for after the question came.
    pub(crate) ends: Vec<(Partition, u64)>,
    /// When it is answered whatever it still waits for.
    due: Instant,
    /// The number of the last change that it has taken over.
    seen: u64,
    bytes: usize,
}

/// What happened to a partition while questions waited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// It began: its delivery begins here.
    Began(i64),
    /// Its topic was recreated: the cut is here.
    Reset(i64),
    /// Its delivery begins here, which may be below the cut.
    Lowered(i64),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DeferredQuestions {
    /// In the order in which they came.
    questions: BTreeMap<u64, Deferred>,
    by_session: HashMap<(usize, SocketId), SmallVec<[u64; 2]>>,
    questions_made: u64,
    bytes: usize,
    /// Those that some question may not have taken over, with their numbers.
    changes: VecDeque<(u64, Partition, Change)>,
    changes_made: u64,
    /// Which question is looked at next, and how many are.
    walk_at: u64,
    walk_left: usize,
}

impl DeferredQuestions {
    /// A question is to wait until `due`, which is never earlier than that of the one before.
    ///
    /// # Errors
    /// It is handed back: too many wait.
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
            // It stands where the walk has still to come by.
            self.walk_left += 1;
        }
        Ok(())
    }

    /// A question that waits for nothing but its turn: it is looked at next.
    ///
    /// # Errors
    /// It is handed back: too many wait.
    pub(crate) fn push_complete(&mut self, question: Question, due: Instant) -> Result<(), Question> {
        self.push(question, Vec::new(), due).map_err(|(question, _)| question)?;
        if self.walk_left == 0 {
            (self.walk_at, self.walk_left) = (self.questions_made, 1);
        }
        Ok(())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.questions.len()
    }

    /// Their memory, about: what they share with their sessions included.
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

    /// Something happened to a partition. Questions that came before hear of it.
    pub(crate) fn note(&mut self, partition: Partition, change: Change) {
        if !self.questions.is_empty() {
            self.changes_made += 1;
            self.changes.push_back((self.changes_made, partition, change));
            self.reconsider_all();
        }
    }

    /// Every question is to be looked at, once from now on.
    pub(crate) fn reconsider_all(&mut self) {
        self.walk_left = self.questions.len();
    }

    /// Whether some are still to be looked at.
    pub(crate) fn is_walking(&self) -> bool {
        self.walk_left > 0 && !self.questions.is_empty()
    }

    /// The number of the next question that is to be looked at.
    pub(crate) fn walk(&mut self) -> Option<u64> {
        if self.walk_left == 0 || self.questions.is_empty() {
            self.walk_left = 0;
            // Everyone has taken them over.
            self.changes.clear();
            return None;
        }
        self.walk_left -= 1;
        let next = self.questions.range(self.walk_at..).next().or_else(|| self.questions.first_key_value());
        let number = next.map(|(&number, _)| number)?;
        self.walk_at = number + 1;
        Some(number)
    }

    /// This question, and the changes that it has not taken over, which count as taken over now.
    pub(crate) fn look_at(&mut self, number: u64) -> Option<(&mut Deferred, Vec<(Partition, Change)>)> {
        let deferred = self.questions.get_mut(&number)?;
        let seen = self.changes.partition_point(|(change, ..)| *change <= deferred.seen);
        let changes = self.changes.range(seen..).map(|&(_, partition, change)| (partition, change)).collect();
        deferred.seen = self.changes_made;
        Some((deferred, changes))
    }

    /// Takes a question out.
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

    /// Forgets what a session has asked. How many questions that were.
    pub(crate) fn withdraw(&mut self, home: usize, socket: SocketId) -> usize {
        let numbers = self.by_session.remove(&(home, socket)).unwrap_or_default();
        let removed = numbers.iter().filter_map(|number| self.questions.remove(number));
        self.bytes -= removed.map(|deferred| deferred.bytes).sum::<usize>();
        numbers.len()
    }
}

/// About; the ends that a question waits for may still grow by a few, and so may its cut.
fn bytes_of(question: &Question, ends: &[(Partition, u64)]) -> usize {
    // A B-tree that is made of all its entries at once has full nodes: 11 entries, one above them, and links.
    let cut = question.cut.len().div_ceil(12) * 14 * size_of::<(Partition, i64)>();
    size_of::<Deferred>() + cut + size_of_val(ends) + question.begin.bytes()
}
