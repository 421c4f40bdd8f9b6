//! How the gateway authenticates to the brokers: KAFKA_SECURITY_PROTOCOL and KAFKA_SASL_*, checked against each other and against
//! the features of this build of librdkafka.

use super::error::Fault;
use super::raw::Raw;
use super::reading::{Reading, Secret};
use super::table::{
    KAFKA_SASL_MECHANISM, KAFKA_SASL_PASSWORD, KAFKA_SASL_USERNAME, KAFKA_SECURITY_PROTOCOL, Variable,
};
use super::units;

/// Encryption and authentication of connections to brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Neither encryption nor authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// User name and password over plain TCP.
    SaslPlaintext(Sasl),
    /// User name and password over TLS.
    SaslSsl(Sasl),
}

/// A user name and password, and the mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// librdkafka's `sasl.mechanism`.
    pub mechanism: &'static str,
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Security {
    /// librdkafka's `security.protocol`.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext(_) => "sasl_plaintext",
            Self::SaslSsl(_) => "sasl_ssl",
        }
    }

    /// The credentials, if the protocol has some.
    pub fn sasl(&self) -> Option<&Sasl> {
        match self {
            Self::Plaintext | Self::Ssl => None,
            Self::SaslPlaintext(sasl) | Self::SaslSsl(sasl) => Some(sasl),
        }
    }
}

/// The protocol's name, before the credentials are known.
#[derive(Clone, Copy)]
struct Protocol {
    name: &'static str,
    has_tls: bool,
    has_sasl: bool,
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("PLAINTEXT", Protocol { name: "PLAINTEXT", has_tls: false, has_sasl: false }),
    ("SSL", Protocol { name: "SSL", has_tls: true, has_sasl: false }),
    ("SASL_PLAINTEXT", Protocol { name: "SASL_PLAINTEXT", has_tls: false, has_sasl: true }),
    ("SASL_SSL", Protocol { name: "SASL_SSL", has_tls: true, has_sasl: true }),
];
const PLAIN: &str = "PLAIN";
const MECHANISMS: [(&str, &str); 3] =
    [(PLAIN, PLAIN), ("SCRAM-SHA-256", "SCRAM-SHA-256"), ("SCRAM-SHA-512", "SCRAM-SHA-512")];
/// librdkafka needs OpenSSL for both TLS and SCRAM.
const HAS_OPENSSL: bool = cfg!(feature = "kafka-tls");
const OPENSSL_REMEDY: &str =
    "this build has no OpenSSL: build with --features kafka-tls, or use the Docker image";

pub(crate) fn read(reading: &mut Reading, raw: &mut Raw) -> Security {
    let protocol = reading.value(
        &KAFKA_SECURITY_PROTOCOL,
        raw.kafka_security_protocol.as_deref(),
        |text| units::word(text, &PROTOCOLS),
        |protocol| protocol.name.to_owned(),
    );
    let mechanism = reading.value(
        &KAFKA_SASL_MECHANISM,
        raw.kafka_sasl_mechanism.as_deref(),
        |text| units::word(text, &MECHANISMS),
        |mechanism| (*mechanism).to_owned(),
    );
    let username = reading.optional(
        &KAFKA_SASL_USERNAME,
        raw.kafka_sasl_username.as_deref(),
        None,
        units::name,
        String::clone,
    );
    let password = reading.secret(&KAFKA_SASL_PASSWORD, raw.kafka_sasl_password.take());
    if protocol.has_tls && !HAS_OPENSSL {
        reading.fault(Fault::of(KAFKA_SECURITY_PROTOCOL.name, protocol.name, OPENSSL_REMEDY));
    }
    if !protocol.has_sasl {
        return if protocol.has_tls { Security::Ssl } else { Security::Plaintext };
    }
    if mechanism != PLAIN && !HAS_OPENSSL {
        reading.fault(Fault::of(KAFKA_SASL_MECHANISM.name, mechanism, OPENSSL_REMEDY));
    }
    if password.is_none() {
        require(reading, &KAFKA_SASL_PASSWORD, protocol);
    }
    if username.is_none() && reading.all_sound(&[&KAFKA_SASL_USERNAME]) {
        require(reading, &KAFKA_SASL_USERNAME, protocol);
    }
    // If one is missing there is a fault, and these values are not used.
    let sasl = Sasl {
        mechanism,
        username: username.unwrap_or_default(),
        password: password.unwrap_or_else(Secret::empty),
    };
    if protocol.has_tls { Security::SaslSsl(sasl) } else { Security::SaslPlaintext(sasl) }
}

fn require(reading: &mut Reading, variable: &Variable, protocol: Protocol) {
    let reason = format!("KAFKA_SECURITY_PROTOCOL={} needs it", protocol.name);
    reading.fault(Fault::missing(variable.name, reason));
}
