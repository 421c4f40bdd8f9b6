//! The drain at the end of the process: when each session is closed, and when a shard may stop serving the others.
//!
//! A draining shard makes a [`ShardDrain`] of its sessions: all of them, in random order, at an even pace over WS_DRAIN. So the
//! clients reconnect elsewhere one after the other, and the clients of one office or proxy, which connected together, are not
//! closed together. Pure: the caller passes the time and closes the sessions.
//!
//! Shards end together. Until the last session of the process is closed, each shard continues to read its partitions, to answer
//! the others and to answer plain HTTP, whether or not it has sessions of its own. Until the last connection of the process is
//! closed, it continues to empty its queues of the mesh. [`SharedDrain`] counts the shards that have reached each state. A shard
//! reaches each state once, because it accepts no sessions while it drains, so the counts only grow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// The order and the pace in which a shard closes its sessions.
#[derive(Debug)]
pub(crate) struct ShardDrain<T> {
    /// The remaining sessions, the next one last.
    waiting: Vec<T>,
    /// The number of sessions at the beginning.
    sessions: usize,
    began: Instant,
    lasts: Duration,
}

impl<T> ShardDrain<T> {
    /// Closes these sessions over `lasts`: the first at once, the last one step before the end.
    pub(crate) fn begin(mut sessions: Vec<T>, lasts: Duration, now: Instant, random: &mut Rng) -> Self {
        random.shuffle(&mut sessions);
        Self { sessions: sessions.len(), waiting: sessions, began: now, lasts }
    }

    /// The next session that is due. A session that ended by itself keeps its place.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        self.waiting.pop()
    }

    /// When the next session is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let closed = self.sessions - self.waiting.len();
        let after_ns = self.lasts.as_nanos() * closed as u128 / self.sessions as u128;
        Some(self.began + Duration::from_nanos(after_ns as u64))
    }
}

/// Shutdown progress, shared between threads.
#[derive(Debug)]
pub struct SharedDrain {
    has_begun: AtomicBool,
    shards: usize,
    drained: AtomicUsize,
    closed: AtomicUsize,
}

impl SharedDrain {
    /// For this number of serving shards.
    pub fn new(shards: usize) -> Self {
        Self {
            has_begun: AtomicBool::new(false),
            shards,
            drained: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        }
    }

    /// Begins the drain of every shard; `false` if it had begun before.
    pub fn begin(&self) -> bool {
        !self.has_begun.swap(true, Ordering::AcqRel)
    }

    /// Whether the process drains.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// One more shard has no session and accepts none.
    pub fn note_drained(&self) {
        self.drained.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all shards have closed their sessions.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) == self.shards
    }

    /// One more shard has no connection and accepts none.
    pub fn note_closed(&self) {
        self.closed.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all shards have closed their connections.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) == self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed sessions in each second since the beginning.
    fn closes_per_s(drains: &mut [ShardDrain<usize>], began: Instant) -> Vec<usize> {
        let mut closes = vec![0; 12];
        // A shard reads the clock at least this often.
        for milliseconds in (0..12_000).step_by(50) {
            let now = began + Duration::from_millis(milliseconds);
            for drain in &mut *drains {
                while drain.pop_due(now).is_some() {
                    closes[milliseconds as usize / 1000] += 1;
                }
            }
        }
        closes
    }

    fn seeded() -> Rng {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        Rng::with_seed(seed)
    }

    #[test]
    fn no_second_has_much_more_than_its_share_of_the_closes_however_uneven_the_shards() {
        let (mut random, began) = (seeded(), Instant::now());
        for shards in [vec![12_000], vec![3_000; 4], vec![11_990, 9, 1, 0], vec![400; 30]] {
            let mut drains: Vec<_> = shards
                .iter()
                .map(|&sessions| {
                    ShardDrain::begin((0..sessions).collect(), Duration::from_secs(10), began, &mut random)
                })
                .collect();
            let closes = closes_per_s(&mut drains, began);
            assert_eq!(closes.iter().sum::<usize>(), 12_000, "{shards:?}: {closes:?}");
            assert!(
                closes[..10].iter().all(|&closes| (1_100..1_300).contains(&closes)),
                "{shards:?}: {closes:?}"
            );
            assert!(drains.iter().all(|drain| drain.next_due().is_none()), "{shards:?}");
        }
    }

    #[test]
    fn every_session_goes_once_and_neighbours_do_not_go_together() {
        let (mut random, began) = (seeded(), Instant::now());
        let mut drain = ShardDrain::begin((0..1_000).collect(), Duration::from_secs(10), began, &mut random);
        let mut order: Vec<usize> =
            std::iter::from_fn(|| drain.pop_due(began + Duration::from_secs(10))).collect();
        let steps = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        // Two of a thousand are expected.
        assert!(steps < 20, "{steps}");
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1_000));
    }

    #[test]
    fn without_a_duration_all_go_at_once_and_without_sessions_nothing_is_due() {
        let (mut random, now) = (seeded(), Instant::now());
        let mut drain = ShardDrain::begin(vec![1, 2, 3], Duration::ZERO, now, &mut random);
        assert_eq!(std::iter::from_fn(|| drain.pop_due(now)).count(), 3);
        let mut drain = ShardDrain::begin(Vec::<u8>::new(), Duration::from_secs(10), now, &mut random);
        assert_eq!((drain.next_due(), drain.pop_due(now)), (None, None));
    }

    #[test]
    fn a_shard_that_was_late_catches_up_and_the_pace_stays() {
        let (mut random, began) = (seeded(), Instant::now());
        let mut drain = ShardDrain::begin((0..100).collect(), Duration::from_secs(10), began, &mut random);
        let later = began + Duration::from_millis(2_950);
        assert_eq!(std::iter::from_fn(|| drain.pop_due(later)).count(), 30);
        assert_eq!(drain.next_due(), Some(began + Duration::from_secs(3)));
    }

    #[test]
    fn shards_are_drained_and_closed_together() {
        let shared = SharedDrain::new(2);
        assert!(!shared.has_begun() && shared.begin() && shared.has_begun());
        assert!(!shared.begin(), "the second signal");
        shared.note_drained();
        assert!(!shared.is_drained());
        shared.note_drained();
        shared.note_closed();
        assert!(shared.is_drained() && !shared.is_closed());
        shared.note_closed();
        assert!(shared.is_closed());
    }
}
