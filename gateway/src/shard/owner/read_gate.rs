//! Decides whether a shard takes records from Kafka now. A pause discards nothing: records wait first in librdkafka's bounded
//! queue, then in Kafka.
//!
//! Two causes pause: the process's overload, and this shard's share of WS_MAX_KAFKA_RATE. Neither pauses before the shard is
//! ready: it then fills its history, and a rate limit would only delay its clients.
//!
//! Pure: time and the overload are passed. A token that is taken is kept until a record uses it.

use std::time::Instant;

use crate::admission::token_bucket::TokenBucket;
use crate::counters::{Counters, PauseReason};
use crate::limits;
use crate::limits::Rate;

/// The token bucket, and the present pause.
#[derive(Debug)]
pub(crate) struct ReadGate {
    rate: Option<(Rate, TokenBucket)>,
    has_token: bool,
    paused: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    reason: PauseReason,
    /// The time up to which it is counted.
    counted_to: Instant,
    /// When it ends by itself.
    until: Option<Instant>,
}

impl ReadGate {
    /// For one of `shards` shards, which share this many records a second; `None`: no limit.
    pub(crate) fn new(records_per_s: Option<u32>, shards: usize, now: Instant) -> Self {
        let rate = records_per_s.map(|records_per_s| {
            let per_s = f64::from(records_per_s) / shards as f64;
            let burst = (per_s * limits::KAFKA_RATE_BURST.as_secs_f64()).ceil().max(1.0) as u32;
            let rate = Rate { burst, per_s };
            (rate, TokenBucket::full(&rate, now))
        });
        Self { rate, has_token: false, paused: None }
    }

    /// Whether a record may be taken.
    pub(crate) fn is_open(&mut self, is_overloaded: bool, now: Instant, counters: &mut Counters) -> bool {
        if is_overloaded {
            self.pause(PauseReason::Cpu, None, now, counters);
            return false;
        }
        if self.paused.and_then(|pause| pause.until).is_some_and(|until| now < until) {
            return false;
        }
        if let (Some((rate, bucket)), false) = (&mut self.rate, self.has_token) {
            if let Err(wait) = bucket.take(rate, now) {
                let until = now + wait.max(limits::KAFKA_RATE_PAUSE_LEAST);
                self.pause(PauseReason::Rate, Some(until), now, counters);
                return false;
            }
            self.has_token = true;
        }
        self.count(now, counters);
        self.paused = None;
        true
    }

    /// A record was taken.
    pub(crate) fn took(&mut self) {
        self.has_token = false;
    }

    /// When the shard must check again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.paused.and_then(|pause| pause.until)
    }

    /// Updates the counters.
    pub(crate) fn count(&mut self, now: Instant, counters: &mut Counters) {
        counters.is_paused = u64::from(self.paused.is_some());
        if let Some(pause) = &mut self.paused {
            counters.paused_s += now.saturating_duration_since(pause.counted_to).as_secs_f64();
            pause.counted_to = pause.counted_to.max(now);
        }
    }

    fn pause(&mut self, reason: PauseReason, until: Option<Instant>, now: Instant, counters: &mut Counters) {
        self.count(now, counters);
        if self.paused.is_none_or(|pause| pause.reason != reason) {
            counters.kafka_pauses.add(reason);
        }
        self.paused = Some(Pause { reason, counted_to: now, until });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counters::ByLabel;

    fn pauses(cpu: u64, rate: u64) -> ByLabel<2> {
        let mut pauses = ByLabel::default();
        (0..cpu).for_each(|_| pauses.add(PauseReason::Cpu));
        (0..rate).for_each(|_| pauses.add(PauseReason::Rate));
        pauses
    }

    #[test]
    fn without_a_rate_only_the_overload_pauses() {
        let (start, mut counters) = (Instant::now(), Counters::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut read_gate = ReadGate::new(None, 2, start);
        for _ in 0..1000 {
            assert!(read_gate.is_open(false, start, &mut counters));
            read_gate.took();
        }
        assert!(!read_gate.is_open(true, at(1), &mut counters));
        assert!(!read_gate.is_open(true, at(2), &mut counters));
        assert_eq!(read_gate.next_due(), None, "nobody knows when it is over");
        read_gate.count(at(4), &mut counters);
        assert_eq!((counters.is_paused, counters.paused_s, counters.kafka_pauses), (1, 3.0, pauses(1, 0)));
        assert!(read_gate.is_open(false, at(5), &mut counters));
        read_gate.count(at(9), &mut counters);
        assert_eq!((counters.is_paused, counters.paused_s), (0, 4.0));
    }

    #[test]
    fn a_poll_that_finds_nothing_uses_no_token() {
        let (start, mut counters) = (Instant::now(), Counters::default());
        let mut read_gate = ReadGate::new(Some(1), 1, start);
        for _ in 0..100 {
            assert!(read_gate.is_open(false, start, &mut counters));
        }
        read_gate.took();
        assert!(!read_gate.is_open(false, start, &mut counters));
        let due = read_gate.next_due().unwrap();
        assert!(due.duration_since(start).abs_diff(Duration::from_secs(1)) < Duration::from_millis(1));
        assert!(!read_gate.is_open(false, start + Duration::from_millis(500), &mut counters));
        assert!(read_gate.is_open(false, due, &mut counters));
        assert_eq!((read_gate.next_due(), counters.kafka_pauses), (None, pauses(0, 1)));
    }

    #[test]
    fn an_overload_in_a_pause_for_the_rate_is_a_pause_of_its_own() {
        let (start, mut counters) = (Instant::now(), Counters::default());
        let mut read_gate = ReadGate::new(Some(1), 1, start);
        assert!(read_gate.is_open(false, start, &mut counters));
        read_gate.took();
        assert!(!read_gate.is_open(false, start, &mut counters));
        assert!(!read_gate.is_open(true, start, &mut counters));
        assert!(!read_gate.is_open(true, start + Duration::from_secs(3), &mut counters));
        assert!(read_gate.is_open(false, start + Duration::from_secs(4), &mut counters));
        assert_eq!((counters.paused_s, counters.kafka_pauses), (4.0, pauses(1, 1)));
    }

    #[test]
    fn the_shards_together_take_the_rate_and_hardly_less() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for records_per_s in [1, 7, 25, 300, 20_000, 1_000_000] {
            let (shards, seconds) = (random.usize(1..5), 40);
            let start = Instant::now();
            let mut taken = 0u64;
            for _ in 0..shards {
                let mut counters = Counters::default();
                let mut read_gate = ReadGate::new(Some(records_per_s), shards, start);
                let (mut now, end) = (start, start + Duration::from_secs(seconds));
                while now < end {
                    for _ in 0..random.usize(1..limits::RECORDS_PER_TURN) {
                        if read_gate.is_open(false, now, &mut counters) {
                            read_gate.took();
                            taken += 1;
                        }
                    }
                    // A turn, or a sleep until the given time.
                    now = read_gate
                        .next_due()
                        .filter(|due| *due > now)
                        .unwrap_or(now + Duration::from_micros(10));
                }
            }
            let rate = f64::from(records_per_s);
            let allowed = rate * seconds as f64;
            let bursts = shards as f64 + rate * limits::KAFKA_RATE_BURST.as_secs_f64() * 2.0;
            let taken = taken as f64;
            assert!(taken <= allowed + bursts, "{taken} of {allowed}");
            assert!(taken >= allowed * 0.9 - bursts, "{taken} of {allowed}");
        }
    }
}
