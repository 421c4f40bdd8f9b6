//! Settings of admission and of each client's limits, of overload, and of the drain.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::error::Fault;
use super::raw::Raw;
use super::reading::Reading;
use super::table::{self, Variable};
use super::{Admission, ConnectionRates, Overload, Refuse, units};
use crate::limits;
use crate::limits::Rate;

pub(crate) fn overload(reading: &mut Reading, raw: &Raw) -> Overload {
    let mut percent = |variable: &Variable, given: &Option<String>| {
        let allowed = limits::CPU_PERCENT_MIN..=100.0;
        reading.value(variable, given.as_deref(), |text| units::percent(text, &allowed), f64::to_string)
    };
    let reject_percent = percent(&table::WS_CPU_REJECT_THRESHOLD, &raw.ws_cpu_reject_threshold);
    let pause_percent = percent(&table::WS_CPU_PAUSE_THRESHOLD, &raw.ws_cpu_pause_threshold);
    let compared = [&table::WS_CPU_REJECT_THRESHOLD, &table::WS_CPU_PAUSE_THRESHOLD];
    if pause_percent < reject_percent && reading.all_sound(&compared) {
        let reason = format!(
            "less than WS_CPU_REJECT_THRESHOLD, so that sessions would be let in whose events are paused; set it to \
             {reject_percent} or more, or WS_CPU_REJECT_THRESHOLD to {pause_percent} or less"
        );
        reading.fault(Fault::of(table::WS_CPU_PAUSE_THRESHOLD.name, &pause_percent.to_string(), reason));
    }
    Overload { reject_percent, pause_percent }
}

pub(crate) fn admission(reading: &mut Reading, raw: &Raw) -> Admission {
    const ANSWERS: [(&str, Refuse); 2] = [("http", Refuse::Http), ("close", Refuse::Close)];
    let refuse = reading.value(
        &table::WS_REFUSE,
        raw.ws_refuse.as_deref(),
        |text| units::word(text, &ANSWERS),
        |refuse| match refuse {
            Refuse::Http => "http".to_owned(),
            Refuse::Close => "close".to_owned(),
        },
    );
    let trusted_proxies = reading
        .optional(&table::WS_TRUSTED_PROXIES, raw.ws_trusted_proxies.as_deref(), None, networks, |networks| {
            show_networks(networks)
        })
        .unwrap_or_default();
    let connections_per_ip = reading.value(
        &table::WS_MAX_CONNECTIONS_PER_IP,
        raw.ws_max_connections_per_ip.as_deref(),
        |text| units::number(text, &(0..=limits::CONNECTIONS_MAX)),
        usize::to_string,
    );
    Admission { refuse, trusted_proxies, connections_per_ip, rates: connection_rates(reading, raw) }
}

fn connection_rates(reading: &mut Reading, raw: &Raw) -> Option<ConnectionRates> {
    const SWITCH: [(&str, bool); 4] = [("true", true), ("false", false), ("on", true), ("off", false)];
    let is_enabled = reading.value(
        &table::CONN_RATE_LIMIT_ENABLED,
        raw.conn_rate_limit_enabled.as_deref(),
        |text| units::word(text, &SWITCH),
        bool::to_string,
    );
    let mut rate = |burst: (&Variable, &Option<String>), per_s: (&Variable, &Option<String>)| Rate {
        burst: reading.value(
            burst.0,
            burst.1.as_deref(),
            |text| units::number(text, &(1..=limits::RATE_MAX)),
            u32::to_string,
        ),
        per_s: reading.value(
            per_s.0,
            per_s.1.as_deref(),
            |text| units::decimal(text, &(limits::RATE_PER_S_MIN..=f64::from(limits::RATE_MAX))),
            f64::to_string,
        ),
    };
    let per_ip = rate(
        (&table::CONN_RATE_LIMIT_IP_BURST, &raw.conn_rate_limit_ip_burst),
        (&table::CONN_RATE_LIMIT_IP_RATE, &raw.conn_rate_limit_ip_rate),
    );
    let global = rate(
        (&table::CONN_RATE_LIMIT_GLOBAL_BURST, &raw.conn_rate_limit_global_burst),
        (&table::CONN_RATE_LIMIT_GLOBAL_RATE, &raw.conn_rate_limit_global_rate),
    );
    is_enabled.then_some(ConnectionRates { per_ip, global })
}

/// The rate of a client's messages.
pub(crate) fn messages(reading: &mut Reading, raw: &Raw) -> Option<Rate> {
    let burst = reading.value(
        &table::WS_MESSAGE_BURST,
        raw.ws_message_burst.as_deref(),
        |text| units::number(text, &(1..=limits::RATE_MAX)),
        u32::to_string,
    );
    let per_s = reading.value(
        &table::WS_MESSAGE_RATE,
        raw.ws_message_rate.as_deref(),
        |text| units::decimal(text, &(0.0..=f64::from(limits::RATE_MAX))),
        f64::to_string,
    );
    (per_s > 0.0).then_some(Rate { burst, per_s })
}

/// The rate of a client's bytes. The largest message fits into the burst, so that none is delayed.
pub(crate) fn inbound(reading: &mut Reading, raw: &Raw, message_bytes_max: usize) -> Option<Rate> {
    let show = |bytes: &u64| units::show_bytes(*bytes);
    let burst = reading.optional(
        &table::WS_INBOUND_BURST,
        raw.ws_inbound_burst.as_deref(),
        Some((limits::INBOUND_BURST_MESSAGES * message_bytes_max) as u64),
        |text| units::bytes(text, &(limits::MESSAGE_BYTES_MIN as u64..=limits::INBOUND_BURST_MAX)),
        show,
    );
    let per_s = reading.value(
        &table::WS_INBOUND_RATE,
        raw.ws_inbound_rate.as_deref(),
        |text| units::bytes(text, &(0..=limits::INBOUND_BURST_MAX)),
        show,
    );
    let burst = burst.unwrap_or(limits::INBOUND_BURST_MAX);
    let compared = [&table::WS_INBOUND_BURST, &table::WS_MAX_MESSAGE_BYTES];
    if burst < message_bytes_max as u64 && reading.all_sound(&compared) {
        let largest = units::show_bytes(message_bytes_max as u64);
        let reason = format!("less than a message of WS_MAX_MESSAGE_BYTES; set it to {largest} or more");
        reading.fault(Fault::of(table::WS_INBOUND_BURST.name, &units::show_bytes(burst), reason));
    }
    (per_s > 0).then_some(Rate { burst: burst.try_into().unwrap_or(u32::MAX), per_s: per_s as f64 })
}

pub(crate) fn drain(reading: &mut Reading, raw: &Raw) -> Duration {
    reading.value(
        &table::WS_DRAIN,
        raw.ws_drain.as_deref(),
        |text| units::duration(text, &(Duration::ZERO..=limits::DRAIN_MAX)),
        |duration| units::show_duration(*duration),
    )
}

/// Parses `10.0.0.7, 130.211.0.0/22, fd00::/8`; an address is a network of one.
fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || parts.len() > limits::TRUSTED_PROXIES_MAX {
        let most = limits::TRUSTED_PROXIES_MAX;
        return Err(format!("must be 1 to {most} addresses or networks, separated by commas"));
    }
    let network = |part: &&str| {
        let address = || part.parse::<IpAddr>().ok().map(IpNet::from);
        let network = part.parse::<IpNet>().ok().or_else(address).ok_or_else(|| {
            format!("{part} is no address and no network, for example 10.0.0.7, 130.211.0.0/22 or fd00::/8")
        })?;
        Ok(canonical(network.trunc()))
    };
    parts.iter().map(network).collect()
}

/// Turns IPv4 in the form of IPv6 into IPv4, as the compared addresses of peers are.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix_bits = mapped.prefix_len().checked_sub(MAPPED_PREFIX_BITS);
    let address = mapped.addr().to_ipv4_mapped();
    let network_v4 = address.zip(prefix_bits).and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
    network_v4.map_or(network, IpNet::V4)
}

/// Length of the prefix before an IPv4 address in the form of IPv6 (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

fn show_networks(networks: &[IpNet]) -> String {
    networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
}
