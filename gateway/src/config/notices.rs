//! Warnings about variables that are set and have no effect. They show names, never values.

use super::reading::Setting;
use super::security::Security;
use super::table::{
    KAFKA_SASL_PASSWORD, KAFKA_SASL_USERNAME, OF_THE_GO_SERVER, PREFIXES, VARIABLES, variable,
};
use super::units;

/// Edits between a misspelled name and the one that is suggested.
const TYPO_DISTANCE_MAX: usize = 2;

/// One warning for all variables of the Go server, and one for each unknown variable with a prefix of the gateway's.
pub(crate) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (of_the_go_server, others): (Vec<&str>, Vec<&str>) =
        names.partition(|name| OF_THE_GO_SERVER.contains(name));
    let mut notices = Vec::new();
    if !of_the_go_server.is_empty() {
        notices.push(format!("variables of the Go server have no effect: {}", of_the_go_server.join(", ")));
    }
    notices.extend(others.into_iter().filter(|name| is_unknown(name)).map(of_unknown_name));
    notices
}

/// Credentials that are never sent to a broker: most likely KAFKA_SECURITY_PROTOCOL was forgotten.
pub(crate) fn of_unused_credentials(settings: &[Setting], security: &Security) -> Option<String> {
    let names: Vec<&str> = settings
        .iter()
        .filter(|setting| !setting.is_default)
        .map(|setting| setting.name)
        .filter(|name| [KAFKA_SASL_USERNAME.name, KAFKA_SASL_PASSWORD.name].contains(name))
        .collect();
    (security.sasl().is_none() && !names.is_empty()).then(|| {
        format!("no effect without KAFKA_SECURITY_PROTOCOL=SASL_SSL or SASL_PLAINTEXT: {}", names.join(", "))
    })
}

/// A history above half of the memory limit: outboxes, buffers and librdkafka's queues need the other half.
pub(crate) fn of_a_large_history(history_bytes: u64, memory_bytes: Option<u64>) -> Option<String> {
    let memory_bytes = memory_bytes.filter(|memory_bytes| history_bytes > memory_bytes / 2)?;
    Some(format!(
        "WS_HISTORY_BYTES={} is more than half of the memory that the process may use ({}): lower it to {} or less",
        units::show_bytes(history_bytes),
        units::show_size(memory_bytes),
        units::show_bytes((memory_bytes / 2) >> 20 << 20),
    ))
}

fn is_unknown(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    variable(name).is_none() && PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
}

fn of_unknown_name(name: &str) -> String {
    match nearest(name) {
        Some(nearest) => format!("unknown variable {name}: did you mean {nearest}?"),
        None => format!("unknown variable {name}: --help lists the variables"),
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
        assert_eq!(
            notices,
            ["variables of the Go server have no effect: HTTP_READ_TIMEOUT, WS_MAX_GOROUTINES"]
        );
    }

    #[test]
    fn an_unknown_name_with_our_prefix_is_named_with_the_nearest_known_one() {
        for (name, expected) in [
            ("WS_MAX_CONECTIONS", "unknown variable WS_MAX_CONECTIONS: did you mean WS_MAX_CONNECTIONS?"),
            ("KAFKA_BORKERS", "unknown variable KAFKA_BORKERS: did you mean KAFKA_BROKERS?"),
            ("ws_addr", "unknown variable ws_addr: did you mean WS_ADDR?"),
            ("WS_MAX_PATIENCE", "unknown variable WS_MAX_PATIENCE: --help lists the variables"),
            ("CONN_RATE_OF_OLD", "unknown variable CONN_RATE_OF_OLD: --help lists the variables"),
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
        let notice = of_a_large_history(16 << 30, Some(25_232_932_864)).expect("too large");
        assert!(notice.ends_with("may use (23.5GiB): lower it to 12032MiB or less"), "{notice}");
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
