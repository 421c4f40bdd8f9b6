//! The Kafka part of the configuration: the brokers, and what is read. `security` has the credentials.
//!
//! librdkafka itself checks KAFKA_PROPERTIES.

use std::fmt;
use std::time::Duration;

use protocol::{kind_is_valid, kind_of_topic};

use super::error::{Fault, MASK};
use super::raw::Raw;
use super::reading::Reading;
use super::security::{self, Security};
use super::{table, units};
use crate::event::partitioner::Partitioner;
use crate::limits::{
    BROKERS_MAX, KAFKA_RATE_MAX, LAG_MAX_LEAST, LAG_MAX_MOST, PROPERTIES_MAX, START_AGO_MAX,
    TOPIC_NAME_BYTES, TOPICS_MAX,
};

/// What the gateway reads, and from where.
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// `host:port` each. Empty with --dev, whose embedded broker has a port of its own.
    pub brokers: Vec<String>,
    /// The name that brokers see.
    pub group_id: String,
    /// In the order given; no two of one kind.
    pub topics: Vec<Topic>,
    /// How producers choose the partition of a key.
    pub partitioner: Partitioner,
    /// Where reading starts.
    pub start: KafkaStart,
    /// A partition that lags longer continues at its end; `None`: never.
    pub lag_max: Option<Duration>,
    /// Records/s that the process takes; `None`: no limit.
    pub rate_max: Option<u32>,
    /// How the gateway authenticates to the brokers.
    pub security: Security,
    /// Further properties of librdkafka, set last; none of them contradicts the gateway.
    pub properties: Vec<Property>,
}

/// A topic and the kind of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Kafka's name.
    pub name: String,
    /// The part of a channel after its dot.
    pub kind: String,
}

/// Where reading starts in a partition that was never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    /// At its end.
    Latest,
    /// At the oldest record that Kafka still has.
    Earliest,
    /// At the first record not older than this.
    Ago(Duration),
}

/// A property of librdkafka, passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value; `Debug` and `Display` mask it if the name suggests a secret.
    pub value: String,
}

impl Property {
    /// librdkafka's text about this property, without its value if that is a secret.
    pub fn mask_in(&self, text: &str) -> String {
        if self.is_secret() && !self.value.is_empty() {
            text.replace(&self.value, MASK)
        } else {
            text.to_owned()
        }
    }

    fn is_secret(&self) -> bool {
        const SECRETS: [&str; 5] = ["password", "passphrase", "secret", "pem", "oauthbearer.config"];
        SECRETS.iter().any(|word| self.name.contains(word))
    }
}

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, if self.is_secret() { MASK } else { &self.value })
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Properties that would contradict the gateway, and what to use instead.
const RESERVED: [(&str, &str); 14] = [
    ("bootstrap.servers", "set KAFKA_BROKERS instead"),
    ("metadata.broker.list", "set KAFKA_BROKERS instead"),
    ("group.id", "set KAFKA_GROUP_ID instead"),
    ("security.protocol", "set KAFKA_SECURITY_PROTOCOL instead"),
    ("sasl.mechanism", "set KAFKA_SASL_MECHANISM instead"),
    ("sasl.mechanisms", "set KAFKA_SASL_MECHANISM instead"),
    ("sasl.username", "set KAFKA_SASL_USERNAME instead"),
    ("sasl.password", "set KAFKA_SASL_PASSWORD instead"),
    ("enable.auto.commit", "the gateway never commits offsets"),
    ("auto.commit.enable", "the gateway never commits offsets"),
    ("enable.auto.offset.store", "the gateway never commits offsets"),
    ("auto.offset.reset", "set KAFKA_START instead; an offset out of range later is announced as a gap"),
    (
        "isolation.level",
        "the gateway reads read_committed: what a transaction takes back is delivered to nobody",
    ),
    ("enable.partition.eof", "the gateway asks for watermarks itself"),
];

/// Reads every variable about Kafka, in the table's order.
pub(crate) fn read(reading: &mut Reading, raw: &mut Raw, dev: bool) -> Kafka {
    let brokers =
        reading.optional(&table::KAFKA_BROKERS, raw.kafka_brokers.as_deref(), None, brokers, |list| {
            list.join(",")
        });
    if brokers.is_none() && !dev && reading.all_sound(&[&table::KAFKA_BROKERS]) {
        reading.fault(Fault::missing(
            table::KAFKA_BROKERS.name,
            "name the brokers, for example KAFKA_BROKERS=broker-1:9092,broker-2:9092, or start with --dev",
        ));
    }
    let group_id = group_id(reading, raw);
    let topics = reading.value(&table::KAFKA_TOPICS, raw.kafka_topics.as_deref(), topics, |topics| {
        topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>().join(",")
    });
    let partitioner = reading.value(
        &table::KAFKA_PARTITIONER,
        raw.kafka_partitioner.as_deref(),
        |text| units::word(text, &PARTITIONERS),
        show_partitioner,
    );
    let start = reading.value(&table::KAFKA_START, raw.kafka_start.as_deref(), start, show_start);
    if let (true, KafkaStart::Ago(ago)) = (dev, start) {
        let reason = "the embedded broker of --dev cannot look up a time: with it KAFKA_START must be latest or earliest";
        reading.fault(Fault::of(table::KAFKA_START.name, &units::show_duration(ago), reason));
    }
    let lag_max = reading.value(&table::WS_MAX_LAG, raw.ws_max_lag.as_deref(), lag_max, |lag| {
        units::show_duration(lag.unwrap_or_default())
    });
    let rate_max = reading.value(
        &table::WS_MAX_KAFKA_RATE,
        raw.ws_max_kafka_rate.as_deref(),
        |text| units::number(text, &(0..=KAFKA_RATE_MAX)),
        u32::to_string,
    );
    let rate_max = (rate_max > 0).then_some(rate_max);
    let security = security::read(reading, raw);
    let properties = reading
        .optional(&table::KAFKA_PROPERTIES, raw.kafka_properties.as_deref(), None, properties, |list| {
            list.iter().map(Property::to_string).collect::<Vec<_>>().join(",")
        })
        .unwrap_or_default();
    Kafka {
        brokers: brokers.unwrap_or_default(),
        group_id,
        topics,
        partitioner,
        start,
        lag_max,
        rate_max,
        security,
        properties,
    }
}

fn group_id(reading: &mut Reading, raw: &Raw) -> String {
    let (primary, alias) = (raw.kafka_group_id.as_deref(), raw.kafka_consumer_group.as_deref());
    if let (Some(primary), Some(alias)) = (primary, alias)
        && primary != alias
    {
        reading.fault(Fault::of(
            table::KAFKA_CONSUMER_GROUP.name,
            alias,
            format!("KAFKA_GROUP_ID={primary} says otherwise: set one of the two, or both alike"),
        ));
    }
    reading.value(&table::KAFKA_GROUP_ID, primary.or(alias), units::name, String::clone)
}

/// The parts of a comma list; spaces around them and a comma at the end are ignored.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn brokers(text: &str) -> Result<Vec<String>, String> {
    let brokers: Vec<String> = parts(text).map(str::to_owned).collect();
    if let Some(broker) = brokers.iter().find(|broker| !is_host_and_port(broker)) {
        return Err(format!(
            "{broker} is not host:port; must be a comma-separated list of them, for example broker-1:9092,[::1]:9092"
        ));
    }
    match brokers.len() {
        1..=BROKERS_MAX => Ok(brokers),
        _ => Err(format!("must be 1 to {BROKERS_MAX} addresses, host:port each, separated by commas")),
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_valid =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    host_is_valid && port_is_valid
}

fn topics(text: &str) -> Result<Vec<Topic>, String> {
    let mut topics: Vec<Topic> = Vec::new();
    for name in parts(text) {
        let kind = kind_of_topic(name);
        if !is_topic_name(name) {
            return Err(format!(
                "{name} is no topic: a name has 1 to {TOPIC_NAME_BYTES} letters, digits, . _ or -"
            ));
        }
        if !kind_is_valid(kind) {
            return Err(format!(
                "the topic {name} gives the kind {kind:?}, which no channel can have: rename the topic"
            ));
        }
        if let Some(other) = topics.iter().find(|other| other.kind == kind) {
            let other = &other.name;
            return Err(format!("{other} and {name} are both of the kind {kind}: read one of them"));
        }
        topics.push(Topic { name: name.to_owned(), kind: kind.to_owned() });
    }
    match topics.len() {
        1..=TOPICS_MAX => Ok(topics),
        _ => Err(format!("must be 1 to {TOPICS_MAX} topics, separated by commas")),
    }
}

/// Kafka's rule for names of topics.
fn is_topic_name(name: &str) -> bool {
    (1..=TOPIC_NAME_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// librdkafka's names, including those that differ only in placing keyless records at random.
const PARTITIONERS: [(&str, Partitioner); 7] = [
    ("murmur2", Partitioner::Murmur2),
    ("murmur2_random", Partitioner::Murmur2),
    ("consistent", Partitioner::Consistent),
    ("consistent_random", Partitioner::Consistent),
    ("fnv1a", Partitioner::Fnv1a),
    ("fnv1a_random", Partitioner::Fnv1a),
    ("none", Partitioner::Unknown),
];

/// The first name of a partitioner.
fn show_partitioner(partitioner: &Partitioner) -> String {
    let named = PARTITIONERS.iter().find(|(_, value)| value == partitioner);
    named.map_or_else(String::new, |(name, _)| (*name).to_owned())
}

fn start(text: &str) -> Result<KafkaStart, String> {
    match text.to_ascii_lowercase().as_str() {
        "latest" => Ok(KafkaStart::Latest),
        "earliest" => Ok(KafkaStart::Earliest),
        _ => units::duration(text, &(Duration::from_millis(1)..=START_AGO_MAX))
            .map(KafkaStart::Ago)
            .map_err(|reason| format!("must be latest, earliest, or how long ago: {reason}")),
    }
}

fn show_start(start: &KafkaStart) -> String {
    match start {
        KafkaStart::Latest => "latest".to_owned(),
        KafkaStart::Earliest => "earliest".to_owned(),
        KafkaStart::Ago(ago) => units::show_duration(*ago),
    }
}

/// Parses WS_MAX_LAG; zero means never.
fn lag_max(text: &str) -> Result<Option<Duration>, String> {
    if units::duration(text, &(Duration::ZERO..=Duration::ZERO)).is_ok() {
        return Ok(None);
    }
    units::duration(text, &(LAG_MAX_LEAST..=LAG_MAX_MOST))
        .map(Some)
        .map_err(|reason| format!("{reason}; 0 is never"))
}

/// Parses `name=value, ...`. A part without `=` belongs to the value before it, because librdkafka has lists with commas
/// (`debug`).
fn properties(text: &str) -> Result<Vec<Property>, String> {
    let mut properties: Vec<Property> = Vec::new();
    for part in parts(text) {
        match (part.split_once('='), properties.last_mut()) {
            (Some((name, value)), _) => {
                let property = Property { name: name.trim().to_owned(), value: value.trim().to_owned() };
                check_property(&property.name, &properties)?;
                properties.push(property);
            }
            (None, Some(last)) => last.value = format!("{},{part}", last.value),
            (None, None) => return Err("must be name=value, separated by commas".to_owned()),
        }
    }
    match properties.len() {
        1..=PROPERTIES_MAX => Ok(properties),
        _ => Err(format!("must be 1 to {PROPERTIES_MAX} properties, name=value each")),
    }
}

fn check_property(name: &str, earlier: &[Property]) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(
            "a property's name has lower-case letters, digits, . and _; must be name=value, ...".to_owned()
        );
    }
    if let Some((_, remedy)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Err(format!("{name} cannot be set here: {remedy}"));
    }
    if earlier.iter().any(|property| property.name == name) {
        return Err(format!("{name} is set twice"));
    }
    Ok(())
}
