//! Request bodies: JSON, checked. Each rejection is a sentence that says what to send instead.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::pacer;
use crate::tokens;

/// The default rate of a start.
const RATE_DEFAULT: f64 = 100.0;

const START_EXAMPLE: &str = r#"send {"rate": 100, "tokenIds": ["BTC", "ETH"]}"#;
const RATE_EXAMPLE: &str = r#"send {"rate": 250}"#;

/// A checked `POST /start`.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) rate: u32,
    pub(super) tokens: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StartBody {
    rate: Option<f64>,
    token_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateBody {
    rate: f64,
}

pub(super) fn start(body: &[u8]) -> Result<Start, String> {
    let body: StartBody = parse(body, START_EXAMPLE)?;
    let rate = pacer::check_rate(body.rate.unwrap_or(RATE_DEFAULT)).map_err(|error| error.to_string())?;
    tokens::check(&body.token_ids).map_err(|error| error.to_string())?;
    Ok(Start { rate, tokens: body.token_ids })
}

pub(super) fn rate(body: &[u8]) -> Result<u32, String> {
    let body: RateBody = parse(body, RATE_EXAMPLE)?;
    pacer::check_rate(body.rate).map_err(|error| error.to_string())
}

fn parse<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        // serde quotes the invalid input, which may be a megabyte long.
        let cause: String = error.to_string().chars().take(200).collect();
        format!("the body is not what is expected ({cause}); {example}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_a_rate_gets_the_default() {
        let request = start(br#"{"tokenIds":["BTC","ETH"]}"#).expect("valid");
        assert_eq!((request.rate, request.tokens.len()), (100, 2));
    }

    #[test]
    fn every_bad_start_is_refused_with_its_remedy() {
        let cases = [
            ("", "send {"),
            ("{", "send {"),
            ("[]", "send {"),
            ("nonsense", "send {"),
            (r#"{"rate":100}"#, "tokenIds"),
            (r#"{"rate":"100","tokenIds":["BTC"]}"#, "send {"),
            (r#"{"rate":NaN,"tokenIds":["BTC"]}"#, "send {"),
            (r#"{"rate":1e999,"tokenIds":["BTC"]}"#, "send {"),
            (r#"{"rate":0,"tokenIds":["BTC"]}"#, "from 1 to 200000"),
            (r#"{"rate":-5,"tokenIds":["BTC"]}"#, "from 1 to 200000"),
            (r#"{"rate":2.5,"tokenIds":["BTC"]}"#, "from 1 to 200000"),
            (r#"{"rate":200001,"tokenIds":["BTC"]}"#, "from 1 to 200000"),
            (r#"{"tokenIds":[]}"#, "at least one token"),
            (r#"{"tokenIds":"BTC"}"#, "send {"),
            (r#"{"tokenIds":[1]}"#, "send {"),
            (r#"{"tokenIds":["B*"]}"#, "not usable"),
            (r#"{"tokenIds":["BTC","BTC"]}"#, "listed twice"),
            (r#"{"tokenIds":["BTC"],"tokens":["ETH"]}"#, "unknown field `tokens`"),
        ];
        for (body, remedy) in cases {
            let refusal = start(body.as_bytes()).expect_err(body);
            assert!(refusal.contains(remedy), "{body}: {refusal}");
        }
    }

    #[test]
    fn every_bad_rate_is_refused_with_its_remedy() {
        for body in ["", "5", r#"{"rate":null}"#, r#"{"rate":[1]}"#, r#"{}"#] {
            assert!(rate(body.as_bytes()).expect_err(body).contains("send {"), "{body}");
        }
        assert!(rate(br#"{"rate":0}"#).expect_err("zero").contains("from 1 to 200000"));
        assert_eq!(rate(br#"{"rate":200000}"#), Ok(200_000));
    }

    #[test]
    fn a_refusal_does_not_echo_a_megabyte() {
        let body = format!(r#"{{"rate":"{}","tokenIds":["BTC"]}}"#, "9".repeat(900_000));
        assert!(start(body.as_bytes()).expect_err("a string").len() < 500);
    }
}
