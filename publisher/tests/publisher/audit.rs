//! Follows `seq` per token and kind, like a reader that must prove it missed nothing.

use std::collections::HashMap;

use rdkafka::message::{Message, OwnedMessage};
use serde_json::Value;

/// The numbers received for each (token, topic).
#[derive(Default)]
pub(crate) struct Audit {
    seen: HashMap<(String, String), Vec<u64>>,
}

impl Audit {
    pub(crate) fn of(records: &[OwnedMessage]) -> Audit {
        let mut audit = Audit::default();
        for record in records {
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            audit.note(&key, record.topic(), seq(record));
        }
        audit
    }

    pub(crate) fn note(&mut self, token: &str, topic: &str, seq: u64) {
        self.seen.entry((token.to_owned(), topic.to_owned())).or_default().push(seq);
    }

    /// Asserts that each token and kind counts 1, 2, 3, .. without a gap, a repetition or a step back.
    pub(crate) fn assert_contiguous(&self) {
        assert!(!self.seen.is_empty(), "nothing was seen");
        for (of, numbers) in &self.seen {
            let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
            assert_eq!(numbers, &expected, "{of:?}");
        }
    }

    /// Asserts order and uniqueness; returns how many numbers are missing below the highest of each.
    pub(crate) fn count_missing(&self) -> u64 {
        let mut missing = 0;
        for (of, numbers) in &self.seen {
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{of:?}: {numbers:?}");
            missing += numbers.last().unwrap() - numbers.len() as u64;
        }
        missing
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = self.seen.keys().map(|(token, _)| token.clone()).collect();
        tokens.sort();
        tokens.dedup();
        tokens
    }
}

/// The record's value as JSON.
pub(crate) fn value(record: &OwnedMessage) -> Value {
    serde_json::from_slice(record.payload().unwrap()).unwrap()
}

fn seq(record: &OwnedMessage) -> u64 {
    value(record)["seq"].as_u64().unwrap()
}
