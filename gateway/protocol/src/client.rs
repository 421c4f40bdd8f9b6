//! The messages of clients, parsed from the text of a frame.
//!
//! Parsing never fails silently and never guesses: a text that is not JSON, not of its type's shape or of an unknown type is an
//! error that names the field and the remedy. An error's message is bounded and repeats at most [`ECHO_BYTES_MAX`] bytes of the
//! input. Channel names are passed on unchecked; the caller parses them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::code;
use crate::since::Entries;
pub use crate::since::{Since, read_since};
use crate::text::Text;
pub use crate::text::{ECHO_BYTES_MAX, cut, shorten};

/// A message of a client.
#[derive(Clone, Debug)]
pub enum ClientMessage<'a> {
    /// Subscribes to channels.
    Subscribe(Subscribe<'a>),
    /// Unsubscribes from channels.
    Unsubscribe {
        /// Their names, not yet checked.
        channels: Vec<Cow<'a, str>>,
    },
    /// Asks for a pong.
    Heartbeat,
}

/// The data of `subscribe`.
#[derive(Clone, Debug, Default)]
pub struct Subscribe<'a> {
    /// The names, not yet checked.
    pub channels: Vec<Cow<'a, str>>,
    /// Whether each channel's last event is wanted first.
    pub snapshot: bool,
    /// Whether the acknowledgement must carry positions.
    pub positions: bool,
    /// For each channel that resumes, its unparsed positions; [`read_since`] parses them.
    pub since: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

/// Why a text is not a message of a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// `not_json`, `bad_shape` or `unknown_type`.
    pub code: &'static str,
    /// What is wrong and what to send instead.
    pub message: String,
}

/// The fields stay raw, so that an error can name the wrong one.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    message_type: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    snapshot: Option<&'a RawValue>,
    #[serde(borrow)]
    positions: Option<&'a RawValue>,
    #[serde(borrow)]
    since: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    /// Parses one text frame.
    pub fn parse(text: &'a str) -> Result<Self, ClientError> {
        let Message { message_type, data } = read_object(text, "the message")?;
        let message_type = message_type.ok_or_else(|| {
            bad_shape(r#"the field "type" is missing: send {"type":"subscribe","data":{...}}"#)
        })?;
        let Text(name) = read_field(message_type, "type", "a string")?;
        match &*name {
            "subscribe" => Ok(Self::Subscribe(read_subscribe(data)?)),
            "unsubscribe" => Ok(Self::Unsubscribe { channels: read_channels(&read_data(data)?)? }),
            "heartbeat" => Ok(Self::Heartbeat),
            unknown => Err(ClientError {
                code: code::UNKNOWN_TYPE,
                message: format!(
                    r#"the type "{}" is unknown: send subscribe, unsubscribe or heartbeat"#,
                    shorten(unknown)
                ),
            }),
        }
    }
}

fn read_subscribe<'a>(data: Option<&'a RawValue>) -> Result<Subscribe<'a>, ClientError> {
    let data = read_data(data)?;
    let Entries(since) =
        read_optional(data.since, "data.since", "an object of channels, each once, and positions")?;
    Ok(Subscribe {
        channels: read_channels(&data)?,
        snapshot: read_optional(data.snapshot, "data.snapshot", "true or false")?,
        positions: read_optional(data.positions, "data.positions", "true or false")?,
        since,
    })
}

fn read_data<'a>(data: Option<&'a RawValue>) -> Result<Data<'a>, ClientError> {
    let data = data.ok_or_else(|| {
        bad_shape(
            r#"the field "data" is missing: send {"type":"subscribe","data":{"channels":["BTC.trade"]}}"#,
        )
    })?;
    read_object(data.get(), "the field \"data\"")
}

fn read_channels<'a>(data: &Data<'a>) -> Result<Vec<Cow<'a, str>>, ClientError> {
    let channels = data.channels.ok_or_else(|| {
        bad_shape(r#"the field "data.channels" is missing: send a list of names such as ["BTC.trade"]"#)
    })?;
    let names: Vec<Text<'a>> =
        read_field(channels, "data.channels", r#"a list of strings such as ["BTC.trade"]"#)?;
    Ok(names.into_iter().map(|Text(name)| name).collect())
}

/// Recognises an object by its first byte, because derived parsers would also accept a list of the fields in order.
fn read_object<'a, T: Deserialize<'a>>(text: &'a str, subject: &str) -> Result<T, ClientError> {
    if !text.trim_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
        return Err(bad_shape(&format!("{subject} has to be an object in braces")));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            bad_shape(&format!("{subject} has a field twice: send each once"))
        }
        _ => not_json(&error),
    })
}

fn read_optional<'a, T: Deserialize<'a> + Default>(
    value: Option<&'a RawValue>,
    field: &str,
    expected: &str,
) -> Result<T, ClientError> {
    value.map_or_else(|| Ok(T::default()), |value| read_field(value, field, expected))
}

fn read_field<'a, T: Deserialize<'a>>(
    value: &'a RawValue,
    field: &str,
    expected: &str,
) -> Result<T, ClientError> {
    serde_json::from_str(value.get())
        .map_err(|_| bad_shape(&format!("the field \"{field}\" has to be {expected}")))
}

fn not_json(error: &serde_json::Error) -> ClientError {
    let (line, column) = (error.line(), error.column());
    let message =
        format!("the text is not JSON (line {line}, column {column}): send one JSON object per frame");
    ClientError { code: code::NOT_JSON, message }
}

fn bad_shape(message: &str) -> ClientError {
    ClientError { code: code::BAD_SHAPE, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> ClientError {
        ClientMessage::parse(text).expect_err(text)
    }

    #[test]
    fn a_subscription_is_read_with_all_its_options() {
        let text = r#" {"type":"subscribe","data":{"channels":["BTC.trade","\u0042.x"],"snapshot":true,"positions":true,
            "since":{"BTC.trade":"7:1","*.trade":["0:1"]},"later":1},"id":7} "#;
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(text) else {
            panic!("a subscription")
        };
        assert_eq!(subscribe.channels, ["BTC.trade", "B.x"]);
        assert!(matches!(subscribe.channels[0], Cow::Borrowed(_)), "names without escapes are not copied");
        assert!(subscribe.snapshot && subscribe.positions);
        assert_eq!(subscribe.since["BTC.trade"].get(), "\"7:1\"");
        assert_eq!(subscribe.since.len(), 2);
    }

    #[test]
    fn options_that_are_absent_or_null_are_off() {
        let text = r#"{"data":{"since":null,"channels":[],"snapshot":null},"type":"subscribe"}"#;
        let Ok(ClientMessage::Subscribe(subscribe)) = ClientMessage::parse(text) else {
            panic!("a subscription")
        };
        assert!(!subscribe.snapshot && !subscribe.positions && subscribe.since.is_empty());
    }

    #[test]
    fn unsubscribe_and_heartbeat_are_read() {
        let text = r#"{"type":"unsubscribe","data":{"channels":["BTC.trade"]}}"#;
        assert!(
            matches!(ClientMessage::parse(text), Ok(ClientMessage::Unsubscribe { channels }) if channels == ["BTC.trade"])
        );
        for text in [r#"{"type":"heartbeat"}"#, r#"{"type":"heartbeat","data":[1]}"#] {
            assert!(matches!(ClientMessage::parse(text), Ok(ClientMessage::Heartbeat)));
        }
    }

    #[test]
    fn a_json_error_names_its_position() {
        for text in [
            "",
            "hello",
            "{",
            "{\"type\":}",
            "{\"type\":\"heartbeat\"} x",
            "[1,",
            "\u{feff}{}",
            "{\"a\":\"\u{1}\"}",
        ] {
            assert_eq!(error_of(text).code, "not_json", "{text:?}");
        }
        assert!(error_of("{\n  x").message.contains("line 2, column 3"));
    }

    #[test]
    fn an_error_about_the_shape_names_the_field() {
        for (text, field) in [
            ("[]", "the message"),
            ("null", "the message"),
            (r#"["subscribe",{"channels":[]}]"#, "the message"),
            ("{}", "\"type\""),
            (r#"{"type":null}"#, "\"type\""),
            (r#"{"type":7}"#, "\"type\""),
            (r#"{"type":"subscribe","type":"subscribe"}"#, "twice"),
            (r#"{"type":"subscribe"}"#, "\"data\""),
            (r#"{"type":"unsubscribe","data":null}"#, "\"data\""),
            (r#"{"type":"subscribe","data":["x"]}"#, "\"data\""),
            (r#"{"type":"subscribe","data":{"channels":[],"channels":[]}}"#, "\"data\""),
            (r#"{"type":"subscribe","data":{}}"#, "\"data.channels\""),
            (r#"{"type":"subscribe","data":{"channels":"BTC.trade"}}"#, "\"data.channels\""),
            (r#"{"type":"unsubscribe","data":{"channels":["a",1]}}"#, "\"data.channels\""),
            (r#"{"type":"subscribe","data":{"channels":[],"snapshot":1}}"#, "\"data.snapshot\""),
            (r#"{"type":"subscribe","data":{"channels":[],"positions":"yes"}}"#, "\"data.positions\""),
            (r#"{"type":"subscribe","data":{"channels":[],"since":"7:1"}}"#, "\"data.since\""),
            (r#"{"type":"subscribe","data":{"channels":[],"since":{"A.x":"0:1","A.x":"0:2"}}}"#, "each once"),
            (r#"{"type":"subscribe","data":{"channels":["\ud800"]}}"#, "\"data.channels\""),
        ] {
            let error = error_of(text);
            assert_eq!(error.code, "bad_shape", "{text}");
            assert!(error.message.contains(field), "{text}: {}", error.message);
        }
    }

    #[test]
    fn an_unknown_type_is_repeated_only_in_part() {
        let error = error_of(r#"{"type":"Subscribe"}"#);
        assert_eq!((error.code, error.message.contains("Subscribe")), ("unknown_type", true));
        let error = error_of(&format!(r#"{{"type":"{}"}}"#, "\u{e9}".repeat(60_000)));
        assert_eq!(error.message.matches('\u{e9}').count(), (ECHO_BYTES_MAX - 3) / 2);
    }

    #[test]
    fn a_shortened_text_is_whole_when_it_fits_and_free_of_hidden_characters() {
        let fits = "\u{1F600}".repeat(ECHO_BYTES_MAX / 4);
        assert_eq!(shorten(&fits), fits);
        assert_eq!(
            shorten(&format!("{fits}x")),
            format!("{}...", "\u{1F600}".repeat(ECHO_BYTES_MAX / 4 - 1))
        );
        assert_eq!(shorten("a\u{0}b\n"), "a?b?");
        assert_eq!(shorten("\u{202e}a\u{200b}b\u{2028}\u{feff}\u{e9} c"), "?a?b??\u{e9} c");
    }

    #[test]
    fn nesting_without_end_does_not_overflow() {
        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        let object = "{\"a\":".repeat(300_000);
        for text in [
            deep.clone(),
            object,
            format!(r#"{{"type":{deep}}}"#),
            format!(r#"{{"type":"subscribe","data":{deep}}}"#),
            format!(r#"{{"type":"subscribe","data":{{"channels":{deep}}}}}"#),
            format!(r#"{{"type":"subscribe","data":{{"channels":[],"since":{deep}}}}}"#),
        ] {
            assert!(error_of(&text).message.len() < 256);
        }
        let text = format!(r#"{{"type":"heartbeat","data":{deep}}}"#);
        assert!(matches!(ClientMessage::parse(&text), Ok(ClientMessage::Heartbeat)));
    }

    #[test]
    fn no_text_panics_and_every_error_is_bounded() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let whole = r#"{"type":"subscribe","data":{"channels":["BTC.trade","\u00e9"],"snapshot":true,"since":{"a":"1:2"}}}"#;
        for _ in 0..20_000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..random.usize(1..4) {
                let index = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[index] = random.u8(..),
                    1 => bytes.truncate(index + 1),
                    _ => bytes.insert(index, b"{}[]\",:\\"[random.usize(..8)]),
                }
            }
            if let Err(error) = ClientMessage::parse(&String::from_utf8_lossy(&bytes)) {
                assert!(error.message.len() <= 512, "{}", error.message);
            }
        }
    }
}
