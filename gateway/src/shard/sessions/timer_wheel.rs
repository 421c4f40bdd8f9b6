//! A wheel of deadlines, one per session: its handshake, its next ping, its silence, its unfinished message.
//!
//! Traffic never touches the wheel. When a session's entry is due, the caller asks the session what is due and inserts it at its
//! next deadline; a session needs an earlier entry only when an earlier deadline begins. Pure: time is passed. Entries fire up to
//! one tick late, never early.

use std::time::{Duration, Instant};

/// The resolution of deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Ticks of one round: 64 s, above the longest deadline (the idle timeout of 60 s).
const TICKS: usize = 256;

/// Entries by tick.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    started_at: Instant,
    /// The next tick to fire.
    next_tick: u64,
    ticks: Vec<Vec<Entry<T>>>,
    len: usize,
}

/// A session, and the tick of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<T> {
    /// The session.
    pub session: T,
    /// Distinguishes the session's newest entry from one that an earlier deadline has replaced.
    pub tick: u64,
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started_at: now,
            next_tick: 0,
            ticks: std::iter::repeat_with(Vec::new).take(TICKS).collect(),
            len: 0,
        }
    }

    /// The first tick that is not before `deadline`, at most one round ahead.
    pub(crate) fn tick_of(&self, deadline: Instant) -> u64 {
        let after = deadline.saturating_duration_since(self.started_at);
        let tick = after.as_nanos().div_ceil(TICK.as_nanos()) as u64;
        tick.clamp(self.next_tick, self.next_tick + TICKS as u64 - 1)
    }

    /// Puts a session at a tick of [`Wheel::tick_of`].
    pub(crate) fn insert(&mut self, session: T, tick: u64) {
        self.ticks[tick as usize % TICKS].push(Entry { session, tick });
        self.len += 1;
    }

    /// An entry that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Entry<T>> {
        let elapsed_ticks =
            (now.saturating_duration_since(self.started_at).as_nanos() / TICK.as_nanos()) as u64;
        while self.next_tick <= elapsed_ticks {
            let slot = &mut self.ticks[self.next_tick as usize % TICKS];
            if let Some(entry) = slot.pop() {
                self.len -= 1;
                return Some(entry);
            }
            // A burst must not keep its memory.
            *slot = Vec::new();
            self.next_tick += 1;
        }
        None
    }

    /// When the next tick fires.
    #[cfg(test)]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        (self.len > 0).then(|| self.started_at + TICK * self.next_tick as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fires_within_one_tick_after_its_deadline_and_never_before() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let mut waiting = 0;
        let mut now = start;
        for _ in 0..10_000 {
            let deadline = now + Duration::from_millis(random.u64(..60_000));
            wheel.insert(deadline, wheel.tick_of(deadline));
            waiting += 1;
            now += Duration::from_millis(random.u64(..40));
            while let Some(Entry { session: deadline, .. }) = wheel.pop_due(now) {
                assert!(deadline <= now, "seed {seed}: early");
                assert!(now < deadline + TICK + Duration::from_millis(40), "seed {seed}: late");
                waiting -= 1;
            }
        }
        now += Duration::from_secs(61);
        while wheel.pop_due(now).is_some() {
            waiting -= 1;
        }
        assert_eq!((waiting, wheel.next_deadline()), (0, None), "seed {seed}");
    }
}
