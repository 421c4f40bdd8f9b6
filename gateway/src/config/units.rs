//! The spelling of single values: numbers, bytes, durations, switches, words. Pure.
//!
//! The error of a parser is a sentence that [`super::ConfigError`] shows behind `NAME=value: `: what the value must be. No parser
//! knows which variable it reads. Every `show_` function writes what its parser reads.

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
        .ok_or_else(|| format!("must be a whole number from {} to {}", allowed.start(), allowed.end()))
}

/// A decimal number within the range; `NaN` is in none.
pub(crate) fn decimal(text: &str, allowed: &RangeInclusive<f64>) -> Result<f64, String> {
    text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        format!("must be a number from {} to {}, for example 1 or 1.5", allowed.start(), allowed.end())
    })
}

/// A percentage within the range.
pub(crate) fn percent(text: &str, allowed: &RangeInclusive<f64>) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').trim_end().parse().ok();
    number.filter(|number| allowed.contains(number)).ok_or_else(|| match number {
        Some(share) if share > 0.0 && share < 1.0 => {
            format!("must be a percentage: write {}", (share * 1000.0).round() / 10.0)
        }
        _ => format!("must be a percentage from {} to {}, for example 75", allowed.start(), allowed.end()),
    })
}

/// A number of bytes, alone or with KiB, MiB, GiB or TiB (`64KiB`), within the range.
///
/// `64K` and `64KB` are refused, because they mean 64,000 to some people and 65,536 to others.
pub(crate) fn bytes(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    bytes_in(&BYTE_UNITS, text, allowed)
}

/// As [`bytes`], and with `K`, `M` or `G` as Docker means them: a Compose file passes the same value as its `mem_limit`
/// (docs.docker.com, Compose file reference, "Specifying byte values").
pub(crate) fn memory_bytes(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    const DOCKER_UNITS: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", KIB as u64)];
    bytes_in(&[BYTE_UNITS.as_slice(), &DOCKER_UNITS].concat(), text, allowed)
}

fn bytes_in(units: &[(&str, u64)], text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => Some(*factor),
        None => (unit.is_empty() || unit.eq_ignore_ascii_case("B")).then_some(1),
    };
    let number: Option<u64> = number.parse().ok();
    if let (Some(number), None) = (number, factor)
        && let Some(meant) = unit.chars().next().and_then(binary_unit)
    {
        return Err(format!("unknown unit {unit}: write {number}{meant}"));
    }
    let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| allowed.contains(bytes)).ok_or_else(|| {
        format!(
            "must be {} to {}, as a number of bytes or with KiB, MiB, GiB or TiB",
            show_bytes(*allowed.start()),
            show_bytes(*allowed.end())
        )
    })
}

/// The binary unit that begins with this letter.
fn binary_unit(letter: char) -> Option<&'static str> {
    BYTE_UNITS.iter().map(|(name, _)| *name).find(|name| name.starts_with(letter.to_ascii_uppercase()))
}

/// The shortest spelling that loses nothing.
pub(crate) fn show_bytes(bytes: u64) -> String {
    BYTE_UNITS
        .iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// A size for people, with one decimal at most: `23.5GiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = BYTE_UNITS.iter().find(|(_, factor)| bytes >= *factor);
    unit.map_or_else(
        || bytes.to_string(),
        |(name, factor)| {
            let tenths = (bytes as f64 / *factor as f64 * 10.0).round();
            format!("{}{name}", tenths / 10.0)
        },
    )
}

/// A duration with its unit (`15s`, `500ms`, `5m`) within the range.
pub(crate) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    humantime::parse_duration(text).ok().filter(|duration| allowed.contains(duration)).ok_or_else(|| {
        let (least, most) = (show_duration(*allowed.start()), show_duration(*allowed.end()));
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("has no unit: write {text}s ({least} to {most})")
        } else {
            format!("must be a duration from {least} to {most}, for example 500ms, 15s, 5m or 1h")
        }
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
                [only] => format!("must be {only}"),
                [others @ .., last] => format!("must be {} or {last}", others.join(", ")),
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
        Err(format!("must be 1 to {TOPIC_NAME_BYTES} printable ASCII characters without spaces"))
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
    fn an_unknown_unit_of_bytes_is_answered_with_the_known_one() {
        for (text, expected) in [
            ("4MB", "unknown unit MB: write 4MiB"),
            ("64k", "unknown unit k: write 64KiB"),
            ("2 Gb", "unknown unit Gb: write 2GiB"),
            ("1T", "unknown unit T: write 1TiB"),
        ] {
            assert_eq!(bytes(text, &ANY).unwrap_err(), expected);
        }
        assert!(bytes("4X", &ANY).unwrap_err().starts_with("must be 0 to"));
    }

    #[test]
    fn memory_is_also_read_in_dockers_units() {
        for (text, expected) in
            [("14848M", 14848 << 20), ("2g", 2 << 30), ("64K", 64 << 10), ("1GiB", 1 << 30)]
        {
            assert_eq!(memory_bytes(text, &ANY), Ok(expected), "{text}");
        }
        assert_eq!(memory_bytes("4MB", &ANY).unwrap_err(), "unknown unit MB: write 4MiB");
    }

    #[test]
    fn a_share_is_answered_with_its_percentage() {
        let allowed = 1.0..=100.0;
        assert_eq!((percent("75", &allowed), percent("75 %", &allowed)), (Ok(75.0), Ok(75.0)));
        assert_eq!(percent("0.75", &allowed).unwrap_err(), "must be a percentage: write 75");
        assert_eq!(percent("0.005", &allowed).unwrap_err(), "must be a percentage: write 0.5");
        for text in ["0", "101", "-1", "NaN", "", "%", "half"] {
            assert_eq!(
                percent(text, &allowed).unwrap_err(),
                "must be a percentage from 1 to 100, for example 75",
                "{text}"
            );
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_answered_with_one() {
        let allowed = Duration::ZERO..=Duration::from_secs(3600);
        assert_eq!(duration("10", &allowed).unwrap_err(), "has no unit: write 10s (0s to 1h)");
        assert!(duration("", &allowed).unwrap_err().starts_with("must be a duration from 0s to 1h"));
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
    fn a_size_is_shown_with_one_decimal() {
        for (bytes, expected) in
            [(0, "0"), (1023, "1023"), (1 << 30, "1GiB"), (25_232_932_864, "23.5GiB"), (1536, "1.5KiB")]
        {
            assert_eq!(show_size(bytes), expected);
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
        assert_eq!(number("x", &(1..=9)).unwrap_err(), "must be a whole number from 1 to 9");
        assert_eq!(number("10", &(1..=9)).unwrap_err(), "must be a whole number from 1 to 9");
        assert!(decimal("NaN", &(0.0..=1.0)).unwrap_err().starts_with("must be a number from 0 to 1"));
        assert_eq!(switch("yes").unwrap_err(), "must be on or off");
        assert!(bytes("1", &(1024..=1 << 20)).unwrap_err().starts_with("must be 1KiB to 1MiB"));
    }
}
