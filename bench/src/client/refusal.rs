//! Refused sessions, parsed and counted by reason. Pure.
//!
//! The reasons are those of docs/PROTOCOL.md, each with its HTTP status; anything else gets the reason
//! [`OTHER`]. The number of reasons is therefore bounded, whatever a server answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The gateway has no CPU for more sessions.
pub const CPU_OVERLOAD: &str = "cpu_overload";
/// Another status, another `error`, or a session that was closed before it began.
pub const OTHER: &str = "other";
/// The reasons for which a valid handshake can be refused, each with its status.
const KNOWN: [(&str, u16); 7] = [
    ("draining", 503),
    ("ip_connections", 429),
    ("ip_rate", 429),
    ("global_rate", 429),
    ("at_max_connections", 503),
    (CPU_OVERLOAD, 503),
    ("memory_limit", 503),
];

/// A refused handshake or channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Description of the refusal.
    pub why: String,
    /// One of the reasons of this module, or [`OTHER`].
    pub reason: &'static str,
    /// Seconds to wait before a retry, at least one; `None` if the server gives none.
    pub retry_after_s: Option<u64>,
}

/// The refusals for one reason. The fields are JSON keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct RefusalCount {
    pub reason: &'static str,
    pub count: u64,
    pub without_retry_after: u64,
    pub retry_after_s_least: Option<u64>,
    pub retry_after_s_most: Option<u64>,
}

/// All refusals of a run.
#[derive(Clone, Debug, Default)]
pub struct Refusals(BTreeMap<&'static str, RefusalCount>);

impl Refusal {
    /// A refused handshake with this status, `Retry-After` header and body.
    pub fn of_handshake(why: String, status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body<'b> {
            error: &'b str,
        }
        let error = serde_json::from_slice::<Body<'_>>(body).map_or("", |body| body.error);
        let known = KNOWN.into_iter().find(|known| *known == (error, status));
        let seconds = retry_after.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
        Self { why, reason: known.map_or(OTHER, |(reason, _)| reason), retry_after_s: seconds }
    }

    /// A session refused after its handshake.
    pub fn of_session(why: String) -> Self {
        Self { why, reason: OTHER, retry_after_s: None }
    }
}

impl Refusals {
    /// Counts a refusal.
    pub fn count(&mut self, refusal: &Refusal) {
        let Refusal { reason, retry_after_s, .. } = refusal;
        let of_reason = self.0.entry(reason).or_insert(RefusalCount {
            reason,
            count: 0,
            without_retry_after: 0,
            retry_after_s_least: *retry_after_s,
            retry_after_s_most: None,
        });
        of_reason.count += 1;
        of_reason.without_retry_after += u64::from(retry_after_s.is_none());
        let least = of_reason.retry_after_s_least.into_iter().chain(*retry_after_s).min();
        of_reason.retry_after_s_least = least;
        of_reason.retry_after_s_most = of_reason.retry_after_s_most.max(*retry_after_s);
    }

    /// The counts, by reason.
    pub fn counts(&self) -> impl Iterator<Item = &RefusalCount> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_counts_with_its_own_status_only() {
        for (status, body, reason) in [
            (503, r#"{"error":"cpu_overload","message":"no CPU"}"#, CPU_OVERLOAD),
            (429, r#"{"error":"ip_rate","message":"too many"}"#, "ip_rate"),
            (503, r#"{"error":"memory_limit"}"#, "memory_limit"),
            (429, r#"{"error":"cpu_overload"}"#, OTHER),
            (503, r#"{"error":"tired"}"#, OTHER),
            (503, "busy", OTHER),
            (503, r#"{"error":"cpu_overload""#, OTHER),
        ] {
            let refusal = Refusal::of_handshake(String::new(), status, None, body.as_bytes());
            assert_eq!(refusal.reason, reason, "{status} {body}");
        }
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_above_zero() {
        for (text, seconds) in [
            (Some("10"), Some(10)),
            (Some("0"), None),
            (Some("soon"), None),
            (Some("-1"), None),
            (Some("1.5"), None),
            (None, None),
        ] {
            let refusal = Refusal::of_handshake(String::new(), 503, text, b"{}");
            assert_eq!(refusal.retry_after_s, seconds, "{text:?}");
        }
    }

    #[test]
    fn refusals_are_counted_by_reason_with_the_extremes_of_their_retry_after() {
        let mut refusals = Refusals::default();
        let body = br#"{"error":"cpu_overload"}"#;
        for retry_after in [Some("7"), None, Some("3"), Some("9")] {
            refusals.count(&Refusal::of_handshake(String::new(), 503, retry_after, body));
        }
        refusals.count(&Refusal::of_session("closed with 1013".to_owned()));
        let of = |reason, count, without_retry_after, least, most| RefusalCount {
            reason,
            count,
            without_retry_after,
            retry_after_s_least: least,
            retry_after_s_most: most,
        };
        let expected = [of(CPU_OVERLOAD, 4, 1, Some(3), Some(9)), of(OTHER, 1, 1, None, None)];
        assert!(refusals.counts().eq(&expected), "{refusals:?}");
    }
}
