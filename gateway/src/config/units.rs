//! The spelling of single values: numbers, bytes, durations, switches, words. Pure.
//!
//! Every parser answers with a sentence that says what is allowed, for [`super::ConfigError`] to show beside the variable's
//! name; no parser knows which variable it reads. Every `show_` function writes what its parser reads.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{KIB, TOPIC_NAME_BYTES};

const BYTE_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", KIB as u64)];

/// A whole number within the range.
pub(crate) fn number<T>(text: &str, allowed: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse()
        .ok()
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| format!("allowed is a whole number from {} to {}", allowed.start(), allowed.end()))
}

/// A decimal number within the range; `NaN` is in none.
pub(crate) fn decimal(text: &str, allowed: &RangeInclusive<f64>) -> Result<f64, String> {
    text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        format!("allowed is a number from {} to {}, for example 1 or 1.5", allowed.start(), allowed.end())
    })
}

/// A number of bytes, or one of KiB, MiB, GiB or TiB (`64KiB`), within the range.
///
/// `64K` and `64KB` are refused: half of the world means 64,000 by them.
pub(crate) fn bytes(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    count_of_bytes(text).filter(|bytes| allowed.contains(bytes)).ok_or_else(|| {
        format!(
            "allowed is {} to {}, as a number of bytes or with KiB, MiB, GiB or TiB",
            show_bytes(*allowed.start()),
            show_bytes(*allowed.end())
        )
    })
}

fn count_of_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() || unit.eq_ignore_ascii_case("B") {
        return Some(number);
    }
    let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The shortest spelling that loses nothing.
pub(crate) fn show_bytes(bytes: u64) -> String {
    BYTE_UNITS
        .iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// A duration with its unit (`15s`, `500ms`, `5m`) within the range.
pub(crate) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    humantime::parse_duration(text).ok().filter(|duration| allowed.contains(duration)).ok_or_else(|| {
        format!(
            "allowed is a duration from {} to {}, for example 500ms, 15s, 5m or 1h",
            show_duration(*allowed.start()),
            show_duration(*allowed.end())
        )
    })
}

/// As [`duration`] reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// `on` or `off`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    word(text, &[("on", true), ("off", false)])
}

/// As [`switch`] reads it.
pub(crate) fn show_switch(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

/// One of some words, in whatever case.
pub(crate) fn word<T: Copy>(text: &str, allowed: &[(&str, T)]) -> Result<T, String> {
    allowed.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(
        || {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            match names.as_slice() {
                [only] => format!("allowed is {only}"),
                [others @ .., last] => format!("allowed is {} or {last}", others.join(", ")),
                [] => unreachable!("a word is chosen among some"),
            }
        },
    )
}

/// A name that is shown by brokers and in logs: printable, not endless.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_graphic();
    if (1..=TOPIC_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("allowed are 1 to {TOPIC_NAME_BYTES} printable ASCII characters without spaces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<u64> = 0..=u64::MAX;

    #[test]
    fn bytes_are_read_as_a_number_or_with_a_binary_unit() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64KiB", 64 << 10),
            ("64 kib", 64 << 10),
            ("1MiB", 1 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(bytes(text, &ANY), Ok(expected), "{text}");
        }
    }

    #[test]
    fn ambiguous_negative_and_overflowing_bytes_are_refused() {
        for text in ["", "KiB", "64K", "64KB", "-1", "+1", "1.5GiB", "99999999TiB", "18446744073709551616"] {
            assert!(bytes(text, &ANY).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_bytes_are_read_back_as_the_same_number() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10_000 {
            let count = random.u64(..) >> random.u32(0..64) << random.u32(0..32);
            assert_eq!(bytes(&show_bytes(count), &ANY), Ok(count), "{}", show_bytes(count));
        }
    }

    #[test]
    fn durations_need_a_unit_and_are_shown_as_they_are_read() {
        let allowed = Duration::ZERO..=Duration::from_secs(3600);
        for text in ["500ms", "15s", "5m", "1h"] {
            let parsed = duration(text, &allowed).unwrap();
            assert_eq!(show_duration(parsed), text);
        }
        for text in ["15", "s", "-1s", "2h", "5 parsecs"] {
            assert!(duration(text, &allowed).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_range_or_the_words() {
        assert_eq!(number("x", &(1..=9)).unwrap_err(), "allowed is a whole number from 1 to 9");
        assert_eq!(number("10", &(1..=9)).unwrap_err(), "allowed is a whole number from 1 to 9");
        assert!(decimal("NaN", &(0.0..=1.0)).unwrap_err().starts_with("allowed is a number from 0 to 1"));
        assert_eq!(switch("yes").unwrap_err(), "allowed is on or off");
        assert!(bytes("1", &(1024..=1 << 20)).unwrap_err().starts_with("allowed is 1KiB to 1MiB"));
    }
}
