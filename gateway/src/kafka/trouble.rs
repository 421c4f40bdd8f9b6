//! Turns librdkafka's text about an unusable broker into a sentence for an operator: what happened, and what to do.
//!
//! Pure. The texts are those of librdkafka 2.3 (`rd_kafka_broker_fail` and its callers in rdkafka_broker.c, rdkafka_sasl.c and
//! rdkafka_transport.c). Unknown texts are passed on unchanged, without the parts that only help to debug librdkafka.

/// A sentence about a broker, from the reason in librdkafka's error: `HOST:PORT/NAME: WORDS (after 3ms in state X)`.
///
/// `was_reached`: all brokers have been reached before, so an address that is unreachable now is not wrong.
pub(crate) fn sentence(reason: &str, was_reached: bool) -> String {
    let words = reason.split_once(" (after ").map_or(reason, |(words, _)| words);
    // The connection to the group's coordinator has no number, and its address comes from another broker.
    let (words, is_coordinator) =
        words.strip_prefix("GroupCoordinator: ").map_or((words, false), |words| (words, true));
    let Some((broker, words)) = words.split_once(": ") else { return words.to_owned() };
    let (address, name) = broker.rsplit_once('/').unwrap_or((broker, ""));
    // librdkafka authenticates with SASL before a connection has a name, and shows the scheme until then.
    let address = address.rsplit_once("://").map_or(address, |(_, address)| address);
    match Failure::of(words) {
        // A broker gets its number from the answer of another broker.
        Failure::Unreachable(why) if !was_reached && (is_coordinator || name.parse::<i32>().is_ok()) => {
            format!(
                "Kafka answers and names {address}, which cannot be reached: {why}. Correct advertised.listeners \
             (Redpanda: --advertise-kafka-addr), or the way there"
            )
        }
        Failure::Unreachable(why) => format!("{address}: {why}"),
        Failure::NotKafka => {
            format!(
                "{address} answers, but not as Kafka does: another service, or a TLS listener (KAFKA_SECURITY_PROTOCOL)"
            )
        }
        Failure::Tls(why) => format!(
            "{address}: TLS failed: {why}. Check KAFKA_SECURITY_PROTOCOL and ssl.ca.location in KAFKA_PROPERTIES"
        ),
        Failure::WrongCredentials(why) => {
            format!("{address} refused KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: {why}")
        }
        Failure::NoSasl(why) => format!(
            "{address} refused SASL: {why}. Is it a listener without SASL (KAFKA_SECURITY_PROTOCOL), or with another \
             KAFKA_SASL_MECHANISM?"
        ),
        Failure::Unknown => format!("{address}: {words}"),
    }
}

enum Failure<'a> {
    Unreachable(String),
    NotKafka,
    Tls(&'a str),
    WrongCredentials(&'a str),
    NoSasl(&'a str),
    Unknown,
}

impl<'a> Failure<'a> {
    fn of(words: &'a str) -> Self {
        if let Some(words) = words.strip_prefix("Connect to ")
            && let Some((_, why)) = words.split_once(" failed: ")
        {
            return Self::Unreachable(lower_case(why));
        }
        if words.starts_with("Connection setup timed out") {
            return Self::Unreachable("no answer (a firewall?)".to_owned());
        }
        if words.starts_with("Failed to resolve") {
            return Self::Unreachable("the host name cannot be resolved".to_owned());
        }
        if let Some((_, why)) = words.split_once("SSL handshake failed: ") {
            return Self::Tls(why);
        }
        if words.contains("SASL authentication error") || words.contains("SaslAuthenticateRequest failed") {
            return Self::WrongCredentials(words.rsplit(": ").next().unwrap_or(words));
        }
        if words.contains("SASL") || words.contains("SaslHandshake") {
            return Self::NoSasl(words);
        }
        let is_no_kafka = ["Invalid response size", "ApiVersion", "Protocol parse failure"]
            .iter()
            .any(|part| words.contains(part));
        if is_no_kafka { Self::NotKafka } else { Self::Unknown }
    }
}

/// "Connection refused" within a sentence.
fn lower_case(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_librdkafka_become_a_sentence_with_a_remedy() {
        for (reason, expected) in [
            (
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                "127.0.0.1:1: connection refused",
            ),
            (
                "no-such.invalid:9092/bootstrap: Failed to resolve 'no-such.invalid:9092': Name or service not known (after 1ms in \
                 state CONNECT)",
                "no-such.invalid:9092: the host name cannot be resolved",
            ),
            (
                "10.0.0.9:9092/1: Connect to ipv4#10.0.0.9:9092 failed: Connection refused (after 0ms in state CONNECT)",
                "Kafka answers and names 10.0.0.9:9092, which cannot be reached: connection refused. Correct advertised.listeners \
                 (Redpanda: --advertise-kafka-addr), or the way there",
            ),
            (
                "10.0.0.9:9092/3: Connection setup timed out in state CONNECT (after 30000ms in state CONNECT)",
                "Kafka answers and names 10.0.0.9:9092, which cannot be reached: no answer (a firewall?). Correct \
                 advertised.listeners (Redpanda: --advertise-kafka-addr), or the way there",
            ),
            (
                "GroupCoordinator: 10.0.0.9:9092: Connect to ipv4#10.0.0.9:9092 failed: Connection refused (after 0ms in state \
                 CONNECT, 32 identical error(s) suppressed)",
                "Kafka answers and names 10.0.0.9:9092, which cannot be reached: connection refused. Correct advertised.listeners \
                 (Redpanda: --advertise-kafka-addr), or the way there",
            ),
            (
                "127.0.0.1:80/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase \
                 receive.message.max.bytes (after 0ms in state APIVERSION_QUERY)",
                "127.0.0.1:80 answers, but not as Kafka does: another service, or a TLS listener (KAFKA_SECURITY_PROTOCOL)",
            ),
            (
                "sasl_plaintext://k:9092/bootstrap: SASL authentication error: Authentication failed: Invalid username or password \
                 (after 302ms in state AUTH_REQ)",
                "k:9092 refused KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: Invalid username or password",
            ),
            (
                "ssl://k:9092/bootstrap: SSL handshake failed: certificate verify failed (after 5ms in state SSL_HANDSHAKE)",
                "k:9092: TLS failed: certificate verify failed. Check KAFKA_SECURITY_PROTOCOL and ssl.ca.location in \
                 KAFKA_PROPERTIES",
            ),
            ("k:9092/2: something new (after 5ms in state UP)", "k:9092: something new"),
            ("3/3 brokers are down", "3/3 brokers are down"),
            ("", ""),
        ] {
            assert_eq!(sentence(reason, false), expected, "{reason}");
        }
        assert_eq!(
            sentence(
                "k:9092/2: Connect to ipv4#10.0.0.2:9092 failed: Connection refused (after 0ms in state CONNECT)",
                true
            ),
            "k:9092: connection refused",
            "a broker that was stopped"
        );
    }
}
