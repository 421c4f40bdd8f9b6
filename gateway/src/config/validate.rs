//! The second stage: raw text -> [`Config`]. Every function reads the variables of one part, in the table's order, and then
//! checks values that depend on each other. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::{ConfigError, Fault};
use super::raw::{self, Raw};
use super::reading::Reading;
use super::table::{self, Variable};
use super::{
    Config, Flush, History, Listen, Outbox, Resume, Session, SlowConsumer, admission, kafka, machine,
    notices, units,
};
use crate::limits;
use crate::log::{Log, LogFormat};
use crate::process::resource_limits::ResourceLimits;

pub(crate) fn validate(
    mut pairs: BTreeMap<String, String>,
    faults: Vec<Fault>,
    dev: bool,
    measured: ResourceLimits,
) -> Result<Config, ConfigError> {
    pairs.retain(|_, value| !value.trim().is_empty());
    let mut warnings = notices::of_names(pairs.keys().map(String::as_str));
    warnings.extend(drop_what_the_mode_ignores(&mut pairs, dev));
    let mut raw = raw::from_pairs(pairs);
    let mut reading = Reading::with_faults(faults);
    let listen = listen(&mut reading, &raw, dev);
    let resource_limits = machine::resource_limits(&mut reading, &raw, measured);
    let overload = admission::overload(&mut reading, &raw);
    let shards =
        machine::shards(&mut reading, &raw, dev, &[resource_limits, measured], listen.connections_max);
    let flush = flush(&mut reading, &raw);
    let outbox = outbox(&mut reading, &raw);
    let mut session = session(&mut reading, &raw);
    check_that_a_frame_fits(&mut reading, &outbox, &session);
    let history = history(&mut reading, &raw);
    let resume = resume(&mut reading, &raw);
    session.messages = admission::messages(&mut reading, &raw);
    session.bytes = admission::inbound(&mut reading, &raw, session.message_bytes_max);
    let drain = admission::drain(&mut reading, &raw);
    let admission = admission::admission(&mut reading, &raw);
    let console = reading.switch(&in_mode(table::WS_CONSOLE, dev, "on"), raw.ws_console.as_deref());
    let kafka = kafka::read(&mut reading, &mut raw, dev);
    let log = log(&mut reading, &raw, dev);
    let environment =
        reading.value(&table::ENVIRONMENT, raw.environment.as_deref(), units::name, String::clone);
    let dev_event_rate = reading.value(
        &table::DEV_EVENT_RATE,
        raw.dev_event_rate.as_deref(),
        |text| units::number(text, &(0..=limits::DEV_EVENT_RATE_MAX)),
        u32::to_string,
    );
    let settings = reading.finish(&warnings)?;
    warnings.extend(notices::of_unused_credentials(&settings, &kafka.security));
    warnings.extend(notices::of_a_large_history(history.bytes_max as u64, resource_limits.memory_bytes));
    Ok(Config {
        dev,
        environment,
        listen,
        shards,
        resource_limits,
        overload,
        flush,
        outbox,
        session,
        history,
        resume,
        drain,
        admission,
        kafka,
        console,
        log,
        dev_event_rate,
        warnings,
        settings,
    })
}

/// With --dev the broker is the embedded one, without passwords; otherwise nothing is simulated. An env file may serve both
/// modes, so variables of the other mode are dropped with a warning.
fn drop_what_the_mode_ignores(pairs: &mut BTreeMap<String, String>, dev: bool) -> Option<String> {
    const IGNORED_WITH_DEV: [&Variable; 5] = [
        &table::KAFKA_BROKERS,
        &table::KAFKA_SECURITY_PROTOCOL,
        &table::KAFKA_SASL_MECHANISM,
        &table::KAFKA_SASL_USERNAME,
        &table::KAFKA_SASL_PASSWORD,
    ];
    const IGNORED_WITHOUT_DEV: [&Variable; 1] = [&table::DEV_EVENT_RATE];
    let (ignored, mode): (&[&Variable], &str) = if dev {
        (&IGNORED_WITH_DEV, "with --dev, which embeds a broker")
    } else {
        (&IGNORED_WITHOUT_DEV, "without --dev")
    };
    let dropped: Vec<&str> =
        ignored.iter().map(|variable| variable.name).filter(|name| pairs.remove(*name).is_some()).collect();
    (!dropped.is_empty()).then(|| format!("no effect {mode}: {}", dropped.join(", ")))
}

/// The variable with its default under --dev.
fn in_mode(variable: Variable, dev: bool, default_with_dev: &'static str) -> Variable {
    Variable { default: if dev { default_with_dev } else { variable.default }, ..variable }
}

/// Under --dev only this machine's programs are clients, and few files are open.
fn listen(reading: &mut Reading, raw: &Raw, dev: bool) -> Listen {
    let ws_addr = in_mode(table::WS_ADDR, dev, "127.0.0.1:3002");
    let address = reading.value(&ws_addr, raw.ws_addr.as_deref(), address, SocketAddr::to_string);
    let connections_max = count(
        reading,
        &in_mode(table::WS_MAX_CONNECTIONS, dev, "100"),
        raw.ws_max_connections.as_deref(),
        1,
        limits::CONNECTIONS_MAX,
    );
    let backlog = reading.value(
        &table::TCP_LISTEN_BACKLOG,
        raw.tcp_listen_backlog.as_deref(),
        |text| match units::number(text, &(0..=limits::LISTEN_BACKLOG_MAX))? {
            0 => Ok(limits::LISTEN_BACKLOG_MAX),
            backlog => Ok(backlog),
        },
        u32::to_string,
    );
    let socket_send_bytes = bytes(
        reading,
        &table::WS_SOCKET_SEND_BYTES,
        raw.ws_socket_send_bytes.as_deref(),
        limits::SOCKET_SEND_BYTES_MIN,
        limits::SOCKET_SEND_BYTES_MAX,
    );
    Listen { address, backlog, connections_max, socket_send_bytes }
}

fn flush(reading: &mut Reading, raw: &Raw) -> Flush {
    let rate = reading.value(
        &table::WS_MAX_BROADCAST_RATE,
        raw.ws_max_broadcast_rate.as_deref(),
        |text| units::number(text, &(0..=limits::BROADCAST_RATE_MAX)),
        u32::to_string,
    );
    let window_max = reading.value(
        &table::WS_FLUSH_WINDOW_MAX,
        raw.ws_flush_window_max.as_deref(),
        |text| units::duration(text, &(Duration::ZERO..=limits::FLUSH_WINDOW_MAX)),
        |duration| units::show_duration(*duration),
    );
    let window_min = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate };
    Flush { window_min, window_max }
}

fn outbox(reading: &mut Reading, raw: &Raw) -> Outbox {
    let bytes_max = bytes(
        reading,
        &table::WS_OUTBOX_BYTES,
        raw.ws_outbox_bytes.as_deref(),
        limits::OUTBOX_BYTES_MIN,
        limits::OUTBOX_BYTES_MAX,
    );
    let frames_max = count(
        reading,
        &table::WS_OUTBOX_FRAMES,
        raw.ws_outbox_frames.as_deref(),
        1,
        limits::OUTBOX_FRAMES_MAX,
    );
    const POLICIES: [(&str, SlowConsumer); 2] =
        [("disconnect", SlowConsumer::Disconnect), ("conflate", SlowConsumer::Conflate)];
    let slow_consumer = reading.value(
        &table::WS_SLOW_CONSUMER,
        raw.ws_slow_consumer.as_deref(),
        |text| units::word(text, &POLICIES),
        |policy| match policy {
            SlowConsumer::Disconnect => "disconnect".to_owned(),
            SlowConsumer::Conflate => "conflate".to_owned(),
        },
    );
    Outbox { bytes_max, frames_max, slow_consumer }
}

fn session(reading: &mut Reading, raw: &Raw) -> Session {
    let message_bytes_max = bytes(
        reading,
        &table::WS_MAX_MESSAGE_BYTES,
        raw.ws_max_message_bytes.as_deref(),
        limits::MESSAGE_BYTES_MIN,
        limits::MESSAGE_BYTES_MAX,
    );
    let record_bytes_max = bytes(
        reading,
        &table::WS_MAX_RECORD_BYTES,
        raw.ws_max_record_bytes.as_deref(),
        limits::RECORD_BYTES_MIN,
        limits::RECORD_BYTES_MAX,
    );
    let channels_max = count(
        reading,
        &table::WS_MAX_CHANNELS,
        raw.ws_max_channels.as_deref(),
        1,
        limits::CHANNELS_PER_SESSION_MAX,
    );
    Session { message_bytes_max, record_bytes_max, channels_max, messages: None, bytes: None }
}

/// An outbox smaller than a frame would close every session of the channel for one large record.
fn check_that_a_frame_fits(reading: &mut Reading, outbox: &Outbox, session: &Session) {
    let frame_bytes_max = session.record_bytes_max + limits::ENVELOPE_BYTES;
    let compared = [&table::WS_OUTBOX_BYTES, &table::WS_MAX_RECORD_BYTES];
    if outbox.bytes_max >= frame_bytes_max || !reading.all_sound(&compared) {
        return;
    }
    let reason = format!(
        "less than the largest frame; set it to {frame_bytes_max} or more, or WS_MAX_RECORD_BYTES to {} or less",
        outbox.bytes_max.saturating_sub(limits::ENVELOPE_BYTES)
    );
    let value = units::show_bytes(outbox.bytes_max as u64);
    reading.fault(Fault::of(table::WS_OUTBOX_BYTES.name, &value, reason));
}

fn history(reading: &mut Reading, raw: &Raw) -> History {
    let bytes_max = bytes(
        reading,
        &table::WS_HISTORY_BYTES,
        raw.ws_history_bytes.as_deref(),
        limits::HISTORY_BYTES_MIN,
        limits::HISTORY_BYTES_MAX,
    );
    let warmup = reading.value(
        &table::WS_HISTORY_WARMUP,
        raw.ws_history_warmup.as_deref(),
        |text| units::duration(text, &(Duration::ZERO..=limits::HISTORY_WARMUP_MAX)),
        |duration| units::show_duration(*duration),
    );
    let last_values_max =
        count(reading, &table::WS_LAST_VALUES, raw.ws_last_values.as_deref(), 1, limits::LAST_VALUES_MAX);
    History { bytes_max, warmup, last_values_max }
}

fn resume(reading: &mut Reading, raw: &Raw) -> Resume {
    let allowed = 0..=limits::RESUME_BYTES_MAX;
    let bytes_max = reading.value(
        &table::WS_RESUME_MAX_BYTES,
        raw.ws_resume_max_bytes.as_deref(),
        |text| units::bytes(text, &allowed),
        |bytes| units::show_bytes(*bytes),
    );
    let age_max = reading.value(
        &table::WS_RESUME_MAX_AGE,
        raw.ws_resume_max_age.as_deref(),
        |text| units::duration(text, &(Duration::ZERO..=limits::START_AGO_MAX)),
        |age| units::show_duration(*age),
    );
    Resume {
        bytes_max: (bytes_max > 0).then_some(bytes_max),
        age_max: (!age_max.is_zero()).then_some(age_max),
    }
}

fn log(reading: &mut Reading, raw: &Raw, dev: bool) -> Log {
    use tracing::Level;
    const LEVELS: [(&str, Level); 4] =
        [("debug", Level::DEBUG), ("info", Level::INFO), ("warn", Level::WARN), ("error", Level::ERROR)];
    const FORMATS: [(&str, LogFormat); 3] =
        [("json", LogFormat::Json), ("text", LogFormat::Text), ("pretty", LogFormat::Text)];
    let level = reading.value(
        &table::LOG_LEVEL,
        raw.log_level.as_deref(),
        |text| units::word(text, &LEVELS),
        |level| level.as_str().to_ascii_lowercase(),
    );
    let format = reading.value(
        &in_mode(table::LOG_FORMAT, dev, "text"),
        raw.log_format.as_deref(),
        |text| units::word(text, &FORMATS),
        |format| match format {
            LogFormat::Json => "json".to_owned(),
            LogFormat::Text => "text".to_owned(),
        },
    );
    Log { level, format }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix(':') {
        // As in Go: every interface. The IPv6 wildcard accepts IPv4 as well.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        _ => text.parse().ok(),
    }
    .ok_or_else(|| "must be :port, ip:port or [v6]:port, for example :3002 or 127.0.0.1:3002".to_owned())
}

fn count(
    reading: &mut Reading,
    variable: &Variable,
    given: Option<&str>,
    least: usize,
    most: usize,
) -> usize {
    reading.value(variable, given, |text| units::number(text, &(least..=most)), usize::to_string)
}

fn bytes(
    reading: &mut Reading,
    variable: &Variable,
    given: Option<&str>,
    least: usize,
    most: usize,
) -> usize {
    let allowed = least as u64..=most as u64;
    reading.value(
        variable,
        given,
        |text| {
            units::bytes(text, &allowed).map(|bytes| usize::try_from(bytes).expect("a bound that is a usize"))
        },
        |bytes| units::show_bytes(*bytes as u64),
    )
}
