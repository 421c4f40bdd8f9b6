//! The rate of replays from Kafka for one session. Pure.
//!
//! A token permits a number of bytes. Resumes that begin soon after one that took a token share the rest of its bytes: a client
//! that reconnects and subscribes channel by channel needs one token, and has no more read for it than with one message.

use std::time::{Duration, Instant};

use crate::admission::token_bucket::TokenBucket;
use crate::limits;
use crate::limits::Rate;

/// The token bucket, and the last token's rest.
#[derive(Debug)]
pub struct Replays {
    bucket: TokenBucket,
    /// When the last token was taken, and its remaining bytes.
    granted: Option<(Instant, u64)>,
}

impl Replays {
    /// For a session without replays so far.
    pub fn new(rate: &Rate, now: Instant) -> Self {
        Self { bucket: TokenBucket::full(rate, now), granted: None }
    }

    /// Takes a token for a resume, unless it shares one. Returns the permitted bytes; a token permits `bytes`.
    ///
    /// # Errors
    /// There is no token: the time until the next.
    pub fn take(&mut self, rate: &Rate, bytes: u64, now: Instant) -> Result<u64, Duration> {
        if let Some((at, left)) = &mut self.granted
            && *left > 0
            && now < *at + limits::REPLAYS_SHARED
        {
            let may_read = *left;
            *left = left.saturating_sub(bytes.div_ceil(limits::REPLAYS_SHARED_PARTS));
            return Ok(may_read);
        }
        self.bucket.take(rate, now)?;
        self.granted = Some((now, bytes));
        Ok(bytes)
    }

    /// Notes bytes that were read.
    pub fn charge(&mut self, bytes: u64) {
        if let Some((_, left)) = &mut self.granted {
            *left = left.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_that_are_given_back_before_anything_was_read_are_not_allowed_for_ever() {
        let (rate, now) = (Rate { burst: 1, per_s: 0.01 }, Instant::now());
        for bytes in [1000, u64::MAX] {
            let mut replays = Replays::new(&rate, now);
            let allowed = (0..1000).filter(|_| replays.take(&rate, bytes, now).is_ok()).count() as u64;
            assert!((2..=1 + limits::REPLAYS_SHARED_PARTS).contains(&allowed), "{allowed}");
        }
    }
}
