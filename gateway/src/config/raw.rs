//! The first stage: the environment as given, one optional text per variable of the table.
//!
//! Nothing is parsed here, so that the second stage can report every invalid value at once (with a typed struct, envy would stop
//! at the first). Deliberately without `Debug`, because it holds secrets.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::table::{KAFKA_SASL_PASSWORD, variable};

macro_rules! raw {
    ($($field:ident),+ $(,)?) => {
        /// The struct that envy fills: field `ws_addr` is WS_ADDR.
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Raw {
            $(pub(crate) $field: Option<String>,)+
        }
    };
}

raw! {
    ws_addr, ws_max_connections, tcp_listen_backlog, ws_socket_send_bytes,
    ws_cpu_limit, ws_memory_limit, ws_cpu_reject_threshold, ws_cpu_pause_threshold, ws_shards, ws_pinning,
    ws_max_broadcast_rate, ws_flush_window_max,
    ws_outbox_bytes, ws_outbox_frames, ws_slow_consumer,
    ws_max_message_bytes, ws_max_record_bytes, ws_max_channels,
    ws_history_bytes, ws_history_warmup, ws_last_values, ws_resume_max_bytes, ws_resume_max_age,
    ws_message_burst, ws_message_rate, ws_inbound_burst, ws_inbound_rate, ws_drain, ws_refuse, ws_trusted_proxies,
    ws_max_connections_per_ip,
    conn_rate_limit_enabled, conn_rate_limit_ip_burst, conn_rate_limit_ip_rate,
    conn_rate_limit_global_burst, conn_rate_limit_global_rate, ws_console,
    kafka_brokers, kafka_group_id, kafka_consumer_group, kafka_topics, kafka_partitioner, kafka_start,
    ws_max_lag, ws_max_kafka_rate,
    kafka_security_protocol, kafka_sasl_mechanism, kafka_sasl_username, kafka_sasl_password, kafka_properties,
    log_level, log_format, environment, dev_event_rate,
}

/// Variables of the table only, without the spaces around their values (an env file may end its lines in CR). A password stays as
/// it is.
pub(crate) fn from_pairs(pairs: BTreeMap<String, String>) -> Raw {
    let known = pairs.into_iter().filter(|(name, _)| variable(name).is_some()).map(|(name, value)| {
        let value = if name == KAFKA_SASL_PASSWORD.name { value } else { value.trim().to_owned() };
        (name, value)
    });
    envy::from_iter(known).expect("the table's names are the fields of Raw, each once: tested")
}
