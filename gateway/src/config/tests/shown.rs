//! What is printed of a configuration, and whether the table, the raw fields and the page agree.

use super::super::table::{OF_THE_GO_SERVER, PREFIXES, variable};
use super::super::*;
use super::{BROKERS, config, printed, with_dev};

const CONFIG_MD: &str = include_str!("../../../../docs/CONFIG.md");

#[test]
fn a_secret_is_shown_nowhere() {
    let config = config(&[
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_USERNAME", "odin"),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
        ("KAFKA_PROPERTIES", "ssl.key.password=hunter2,client.rack=eu-1"),
    ]);
    let (print, debug) = (printed(&config), format!("{config:?}"));
    assert!(!print.contains("hunter2") && !debug.contains("hunter2"), "{print}\n{debug}");
    assert!(print.contains("KAFKA_SASL_PASSWORD=***\n"), "{print}");
    assert!(print.contains("KAFKA_PROPERTIES=ssl.key.password=***,client.rack=eu-1\n"), "{print}");
}

#[test]
fn every_variable_is_printed_in_the_tables_order_with_defaults_marked() {
    let config = config(&[("WS_OUTBOX_BYTES", "2097152")]);
    let names: Vec<&str> = config.settings.iter().map(|setting| setting.name).collect();
    // The alias of the group is shown under the group's name.
    let expected: Vec<&str> = VARIABLES
        .iter()
        .map(|variable| variable.name)
        .filter(|name| *name != "KAFKA_CONSUMER_GROUP")
        .collect();
    assert_eq!(names, expected);
    let print = printed(&config);
    assert!(print.contains("WS_OUTBOX_BYTES=2MiB\n"), "{print}");
    assert!(print.contains("WS_OUTBOX_FRAMES=4096  # default\n"), "{print}");
    assert_eq!(print.lines().count(), expected.len());
}

#[test]
fn what_is_printed_is_the_same_configuration_when_read_back() {
    for dev in [false, true] {
        let pairs: &[(&str, &str)] = if dev { &[] } else { &[BROKERS, ("KAFKA_START", "90s")] };
        let first = with_dev(pairs, dev).unwrap();
        let print = printed(&first);
        let read: Vec<(&str, &str)> = print
            .lines()
            .map(|line| line.split("  # default").next().unwrap().split_once('=').unwrap())
            // Setting it without --dev is what is warned of.
            .filter(|(name, _)| dev || *name != "DEV_EVENT_RATE")
            .filter(|(name, _)| !dev || !["KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM"].contains(name))
            .collect();
        let second = with_dev(&read, dev).unwrap();
        assert_eq!(Config { settings: Vec::new(), ..first }, Config { settings: Vec::new(), ..second });
    }
}

#[test]
fn the_table_and_the_raw_fields_are_the_same_names() {
    // An unknown field is an error of envy, an absent one is `None`.
    let pairs = VARIABLES.iter().map(|variable| (variable.name.to_owned(), "x".to_owned())).collect();
    raw::from_pairs(pairs);
    let mut names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), VARIABLES.len());
    assert!(OF_THE_GO_SERVER.iter().all(|name| variable(name).is_none()));
    assert!(PREFIXES.iter().all(|prefix| prefix.ends_with('_')));
}

#[test]
fn the_page_has_every_variable_with_its_default_and_no_other() {
    let rows: Vec<(&str, &str)> = CONFIG_MD
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.split_once("` | ").expect("a row has a name and a default"))
        .map(|(name, rest)| {
            (name, rest.split(" | ").next().expect("a split has a first part").trim_matches('`'))
        })
        .collect();
    let expected: Vec<(&str, &str)> =
        VARIABLES.iter().map(|variable| (variable.name, variable.default)).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_page_names_every_variable_that_is_accepted_and_does_nothing() {
    assert!(OF_THE_GO_SERVER.iter().all(|name| CONFIG_MD.contains(&format!("`{name}`"))));
}
