//! Details of Centrifugo: its configuration, its path, the length of its envelope.

use std::io::{self, Write as _};

use tempfile::TempPath;

use crate::host::producer::KIND;

/// The record header that names the channel.
pub(super) const CHANNEL_HEADER: &str = "centrifugo-channels";
/// The path that sessions connect to.
pub(super) const PATH: &str = "/connection/websocket";
/// The script in the same folder explains the template.
const TEMPLATE: &str = include_str!("../../peers/centrifugo.json.template");

/// Writes the configuration to a file.
pub(super) fn write_configuration(port: u16, bootstrap: &str, fetch_wait_ms: u32) -> io::Result<TempPath> {
    let mut file = tempfile::Builder::new().prefix("odin-bench-centrifugo-").suffix(".json").tempfile()?;
    file.write_all(configuration(port, bootstrap, fetch_wait_ms).as_bytes())?;
    Ok(file.into_temp_path())
}

fn configuration(port: u16, bootstrap: &str, fetch_wait_ms: u32) -> String {
    let brokers: Vec<_> = bootstrap.split(',').collect();
    TEMPLATE
        .replace("@PORT@", &port.to_string())
        .replace("@BROKERS@", &serde_json::json!(brokers).to_string())
        .replace("@FETCH_MAX_WAIT@", &format!("{fetch_wait_ms}ms"))
}

/// The value length for a message of `payload_bytes`.
pub(super) fn value_bytes(payload_bytes: usize, token: &str) -> usize {
    let envelope = format!(r#"{{"push":{{"channel":"{token}.{KIND}","pub":{{"data":}}}}}}"#);
    payload_bytes.saturating_sub(envelope.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_json_and_names_every_broker() {
        let text = configuration(8_123, "127.0.0.1:1,127.0.0.1:2", 5);
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["http_server"]["port"], 8_123);
        let kafka = &read["consumers"][0]["kafka"];
        assert_eq!(kafka["brokers"], serde_json::json!(["127.0.0.1:1", "127.0.0.1:2"]));
        assert_eq!(kafka["fetch_max_wait"], "5ms");
        assert_eq!(kafka["topics"][0], crate::host::producer::TOPIC);
        assert_eq!(kafka["publication_data_mode"]["channels_header"], CHANNEL_HEADER);
        assert!(!text.contains('@'), "{text}");
    }

    #[test]
    fn its_envelope_around_the_value_makes_the_payload() {
        let value = "x".repeat(value_bytes(256, "BTC"));
        let message = format!(r#"{{"push":{{"channel":"BTC.trade","pub":{{"data":{value}}}}}}}"#);
        assert_eq!(message.len(), 256);
    }
}
