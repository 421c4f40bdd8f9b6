//! What deserves a warning though it is no error: variables that are set and do nothing. Names only, never values.

use super::reading::Setting;
use super::security::Security;
use super::table::{
    KAFKA_SASL_PASSWORD, KAFKA_SASL_USERNAME, OF_THE_GO_SERVER, PREFIXES, VARIABLES, variable,
};
use super::units;

/// As many mistakes as a typo makes.
const TYPO_DISTANCE_MAX: usize = 2;

/// One sentence for all of the Go server's variables, one for each unknown name that is meant for the gateway.
pub(crate) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (of_the_go_server, others): (Vec<&str>, Vec<&str>) =
        names.partition(|name| OF_THE_GO_SERVER.contains(name));
    let mut notices = Vec::new();
    if !of_the_go_server.is_empty() {
        notices.push(format!("of the Go server, without effect here: {}", of_the_go_server.join(", ")));
    }
    notices.extend(others.into_iter().filter(|name| is_unknown(name)).map(of_unknown_name));
    notices
}

/// A name and a password that no broker will ever be shown: most likely the protocol was forgotten.
pub(crate) fn of_unused_credentials(settings: &[Setting], security: &Security) -> Option<String> {
    let names: Vec<&str> = settings
        .iter()
        .filter(|setting| !setting.is_default)
        .map(|setting| setting.name)
        .filter(|name| [KAFKA_SASL_USERNAME.name, KAFKA_SASL_PASSWORD.name].contains(name))
        .collect();
    (security.sasl().is_none() && !names.is_empty())
        .then(|| format!("without effect unless KAFKA_SECURITY_PROTOCOL says SASL: {}", names.join(", ")))
}

/// The rest of the process (outboxes, buffers, librdkafka's queues) needs the other half.
pub(crate) fn of_a_large_history(history_bytes: u64, memory_bytes: Option<u64>) -> Option<String> {
    let memory_bytes = memory_bytes.filter(|memory_bytes| history_bytes > memory_bytes / 2)?;
    Some(format!(
        "WS_HISTORY_BYTES={} is more than half of the memory that the process may use ({}): lower it to {} or less",
        units::show_bytes(history_bytes),
        units::show_bytes(memory_bytes),
        units::show_bytes(memory_bytes / 2),
    ))
}

fn is_unknown(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    variable(name).is_none() && PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
}

fn of_unknown_name(name: &str) -> String {
    match nearest(name) {
        Some(nearest) => format!("{name} has no effect in this version: is {nearest} meant?"),
        None => format!("{name} has no effect in this version"),
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    VARIABLES
        .iter()
        .map(|variable| (strsim::osa_distance(&upper, variable.name), variable.name))
        .filter(|(distance, _)| *distance <= TYPO_DISTANCE_MAX)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_servers_variables_share_one_warning() {
        let notices = of_names(["HTTP_READ_TIMEOUT", "WS_ADDR", "WS_MAX_GOROUTINES"].into_iter());
        assert_eq!(notices, ["of the Go server, without effect here: HTTP_READ_TIMEOUT, WS_MAX_GOROUTINES"]);
    }

    #[test]
    fn an_unknown_name_with_our_prefix_is_told_with_what_was_probably_meant() {
        for (name, expected) in [
            (
                "WS_MAX_CONECTIONS",
                "WS_MAX_CONECTIONS has no effect in this version: is WS_MAX_CONNECTIONS meant?",
            ),
            ("KAFKA_BORKERS", "KAFKA_BORKERS has no effect in this version: is KAFKA_BROKERS meant?"),
            ("ws_addr", "ws_addr has no effect in this version: is WS_ADDR meant?"),
            ("WS_MAX_PATIENCE", "WS_MAX_PATIENCE has no effect in this version"),
            ("CONN_RATE_OF_OLD", "CONN_RATE_OF_OLD has no effect in this version"),
        ] {
            assert_eq!(of_names([name].into_iter()), [expected]);
        }
    }

    #[test]
    fn a_history_of_more_than_half_the_memory_is_told_with_what_fits() {
        let notice = of_a_large_history(256 << 20, Some(384 << 20)).expect("too large");
        assert_eq!(
            notice,
            "WS_HISTORY_BYTES=256MiB is more than half of the memory that the process may use (384MiB): lower it to 192MiB \
             or less"
        );
        assert_eq!(of_a_large_history(256 << 20, Some(512 << 20)), None);
        assert_eq!(of_a_large_history(256 << 20, None), None);
    }

    #[test]
    fn known_names_and_strangers_are_passed_over() {
        assert!(
            of_names(["WS_ADDR", "PATH", "LOG_LEVEL", "HTTP_PROXY", "MY_WS_ADDR"].into_iter()).is_empty()
        );
    }
}
