//! Parses each distinct text once.
//!
//! The gateway sends the same bytes of an event to every session, so at 12,000 sessions all but one of 12,000
//! parses would give the same result. A text is looked up by the hash of its bytes among the recently parsed
//! texts and compared with the match byte by byte, so a hash collision costs a parse and never gives a wrong
//! result. A hit costs a hash and a comparison of a few hundred bytes; parsing the JSON costs microseconds.
//!
//! The cache is bounded in texts and in bytes. The oldest texts are evicted first, and an evicted text is
//! parsed again when it is needed again.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

const TEXTS_MAX: usize = 8_192;
const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    text: Box<[u8]>,
    head: T,
}

/// Parse results of recent texts.
#[derive(Debug)]
pub struct ParseCache<T> {
    /// Oldest first. The numbers in `index` start at `forgotten`.
    recent: VecDeque<Entry<T>>,
    index: HashTable<u64>,
    forgotten: u64,
    bytes: usize,
    hasher: DefaultHashBuilder,
}

impl<T> Default for ParseCache<T> {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            index: HashTable::new(),
            forgotten: 0,
            bytes: 0,
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T: Copy> ParseCache<T> {
    /// Returns the cached result for this text, or the result of `read`. Errors are not cached.
    pub fn get_or_parse<E>(&mut self, text: &[u8], read: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T, E> {
        let hash = self.hasher.hash_one(text);
        let (recent, forgotten) = (&self.recent, self.forgotten);
        let entry = |number: u64| &recent[(number - forgotten) as usize];
        if let Some(number) = self.index.find(hash, |number| *entry(*number).text == *text) {
            return Ok(entry(*number).head);
        }
        let head = read(text)?;
        self.remember(hash, text, head);
        Ok(head)
    }

    fn remember(&mut self, hash: u64, text: &[u8], head: T) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        while self.recent.len() == TEXTS_MAX || self.bytes + text.len() > TEXT_BYTES_MAX {
            self.forget_oldest();
        }
        let number = self.forgotten + self.recent.len() as u64;
        self.recent.push_back(Entry { hash, text: text.into(), head });
        self.bytes += text.len();
        let (recent, forgotten) = (&self.recent, self.forgotten);
        self.index.insert_unique(hash, number, |number| recent[(*number - forgotten) as usize].hash);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.recent.front().expect("the bounds are above one text");
        if let Ok(found) = self.index.find_entry(oldest.hash, |number| *number == self.forgotten) {
            found.remove();
        }
        self.bytes -= oldest.text.len();
        self.recent.pop_front();
        self.forgotten += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    #[test]
    fn each_distinct_text_is_read_once_and_answers_with_its_own_head() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cache = ParseCache::default();
        let reads = Cell::new(0);
        for _ in 0..50_000 {
            let number = random.u64(..1_000);
            let text = format!("{number}{}", "x".repeat((number % 50) as usize));
            let head = cache.get_or_parse(text.as_bytes(), |_| {
                reads.set(reads.get() + 1);
                Ok::<_, Infallible>(number)
            });
            assert_eq!(head, Ok(number), "seed {seed}");
        }
        assert!(reads.get() <= 1_000, "seed {seed}: {} reads", reads.get());
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_read_again() {
        let mut cache = ParseCache::default();
        for number in 0..3 * TEXTS_MAX as u64 {
            cache.get_or_parse(&number.to_le_bytes(), |_| Ok::<_, Infallible>(number)).expect("never fails");
        }
        assert_eq!((cache.recent.len(), cache.index.len()), (TEXTS_MAX, TEXTS_MAX));
        assert_eq!(cache.get_or_parse(&0u64.to_le_bytes(), |_| Ok::<_, Infallible>(7)), Ok(7));
        for number in 0..100u64 {
            let text = vec![number as u8; 1024 * 1024];
            cache.get_or_parse(&text, |_| Ok::<_, Infallible>(number)).expect("never fails");
        }
        assert!(cache.bytes <= TEXT_BYTES_MAX);
        assert_eq!(cache.recent.len(), cache.index.len());
        assert_eq!(cache.bytes, cache.recent.iter().map(|entry| entry.text.len()).sum::<usize>());
    }

    #[test]
    fn an_error_is_not_remembered() {
        let mut cache = ParseCache::default();
        assert_eq!(cache.get_or_parse(b"x", |_| Err::<u64, _>("no")), Err("no"));
        assert_eq!(cache.get_or_parse(b"x", |_| Ok::<u64, &str>(1)), Ok(1));
    }
}
