//! Every metric: its name, help, unit and labels. `crate::counters` has the counts.
//!
//! Rendered from the shards' snapshots once a second; nothing is stored here. Names are those that the Go server's dashboards
//! query, where the meaning is the same; there a "connection" is a session, and a "message" to a client is a frame. The library
//! appends a metric's unit to its name, and `_total` to a counter's. Counters are never summed over shards: each has the label
//! `shard`, and the dashboard sums. [`page`] turns metrics into text.

pub(crate) mod page;

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use self::page::Page;
use super::{listen_queue, readiness};
use crate::admission::addresses;
use crate::admission::connection_rates::Readings;
use crate::config::Config;
use crate::counters::{
    ByLabel, DURATION_BUCKETS, Disconnect, FRAMES_BUCKETS, GapCause, HttpRoute, Label, PauseReason,
    ReceivePause, RecordSkipped, Refusal, Snapshot,
};
use crate::kafka::replay::ReplayReadings;
use crate::log;
use crate::log::throttle;
use crate::shared::Shared;

/// Renders the counters of the process and its shards.
#[derive(Debug)]
pub(crate) struct Metrics {
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl Metrics {
    pub(crate) fn new(config: Arc<Config>, shared: Arc<Shared>) -> Self {
        Self { config, shared }
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let snapshots = self.shared.snapshots.iter().map(Snapshot::load);
        let shards = snapshots.enumerate().map(|(shard, counters)| (shard.to_string(), counters)).collect();
        let mut page = Page { encoder, shards };
        process(&mut page, &self.config, &self.shared)?;
        overload(&mut page, &self.config, &self.shared)?;
        connections(&mut page)?;
        admission(&mut page, &self.shared)?;
        clients(&mut page)?;
        kafka(&mut page, &self.config, &self.shared)?;
        delivery(&mut page)?;
        resumes(&mut page, &self.shared)?;
        turns(&mut page, &self.shared)
    }
}

fn process(page: &mut Page<'_>, config: &Config, shared: &Shared) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    page.info("ws_build", "The program", &[("version", version)])?;
    page.gauge(
        "ws_uptime",
        "Since the process started",
        Some(&Unit::Seconds),
        shared.started_at.elapsed().as_secs_f64(),
    )?;
    let is_draining = u64::from(shared.drain.has_begun());
    page.gauge("ws_draining", "1 from the signal to end on, else 0", None, is_draining)?;
    let usage = shared.usage.read();
    page.gauge("ws_memory", "Resident memory of the process", Some(&Unit::Bytes), usage.rss_bytes)?;
    let help = "Memory of the kernel for sockets: of the cgroup (version 2), else of all TCP of the machine";
    page.gauge("ws_memory_sockets", help, Some(&Unit::Bytes), usage.socket_bytes)?;
    if let Some(bytes) = config.resource_limits.memory_bytes {
        page.gauge("ws_memory_limit", "Memory that the process may use", Some(&Unit::Bytes), bytes)?;
    }
    if let Some(cores) = config.resource_limits.cpu_cores {
        let help =
            "CPU use of the process, or of the cgroup that limits it if that is more, of the allocation";
        let percent = usage.cpu_percent(&config.resource_limits).unwrap_or_default();
        page.gauge("ws_cpu_usage", help, Some(&percent_unit()), percent)?;
        page.gauge(
            "ws_cpu_allocation",
            "CPU that the process may use",
            Some(&Unit::Other("cores".to_owned())),
            cores,
        )?;
    }
    let help = "Log lines that were suppressed because their kind had just been logged";
    page.process_counter("ws_log_lines_suppressed", help, throttle::suppressed())?;
    let help = "Log lines that standard output did not accept: it is closed, full or not read";
    page.process_counter("ws_log_lines_dropped", help, log::dropped())?;
    let connections_max = config.listen.connections_max as u64;
    page.gauge("ws_connections_max", "Maximum of sessions at a time", None, connections_max)?;
    page.gauge("ws_capacity_max_connections", "The same as ws_connections_max", None, connections_max)
}

fn overload(page: &mut Page<'_>, config: &Config, shared: &Shared) -> Result<(), Error> {
    let is_overloaded = u64::from(shared.overload.refusal().is_some());
    let help = "1 while new sessions are refused because of CPU or memory, else 0";
    page.gauge("ws_overloaded", help, None, is_overloaded)?;
    let thresholds = [("reject", config.overload.reject_percent), ("pause", config.overload.pause_percent)];
    let help = "CPU use above which an overloaded gateway refuses sessions, or pauses reading Kafka";
    page.gauges("ws_capacity_cpu_threshold", help, &percent_unit(), "action", &thresholds)?;
    let help = "What remains until new sessions are refused, in percent of the CPU limit, the memory limit or the connections";
    let headroom = headroom(config, shared, page.sessions());
    page.gauges("ws_capacity_headroom", help, &percent_unit(), "resource", &headroom)?;
    let window_max_s = config.flush.window_max.max(config.flush.window_min).as_secs_f64();
    let help = "Maximum of the flush window";
    page.gauge("ws_flush_window_max", help, Some(&Unit::Seconds), window_max_s)?;
    let usage = shared.usage.read();
    let help = "Time for which the cgroup's CPU quota throttled it, summed over CPUs";
    let throttled_s = usage.throttled.as_secs_f64();
    page.process_counter_in("ws_cpu_throttled", help, Some(&Unit::Seconds), &throttled_s)?;
    let help = "Periods in which the cgroup's CPU quota was exhausted";
    page.process_counter("ws_cpu_throttle_events", help, usage.throttle_events)?;
    page.shard_gauge("ws_kafka_paused", "1 while no records are taken from Kafka, else 0", |it| {
        it.is_paused
    })?;
    let help = "Pauses of reading Kafka, because of CPU or WS_MAX_KAFKA_RATE";
    page.counters_by::<PauseReason, _>("ws_kafka_pauses", help, "reason", |it| &it.kafka_pauses)?;
    page.counter_in("ws_kafka_paused", "Duration of the pauses of reading Kafka", &Unit::Seconds, |it| {
        it.paused_s
    })
}

/// Resources without a limit have no entry.
fn headroom(config: &Config, shared: &Shared, sessions: u64) -> Vec<(&'static str, f64)> {
    let usage = shared.usage.read();
    let cpu =
        usage.cpu_percent(&config.resource_limits).map(|percent| config.overload.reject_percent - percent);
    let memory = config.resource_limits.memory_bytes;
    let memory = memory.map(|limit| 100.0 - 100.0 * usage.memory_bytes() as f64 / limit as f64);
    let connections = 100.0 - 100.0 * sessions as f64 / config.listen.connections_max as f64;
    [("cpu", cpu), ("memory", memory), ("connections", Some(connections))]
        .into_iter()
        .filter_map(|(resource, percent)| Some((resource, percent?.max(0.0))))
        .collect()
}

fn percent_unit() -> Unit {
    Unit::Other("percent".to_owned())
}

fn connections(page: &mut Page<'_>) -> Result<(), Error> {
    page.counter("ws_connections", "Sessions opened", |it| it.sessions_opened)?;
    page.shard_gauge("ws_connections_active", "Sessions", |it| it.sessions)?;
    page.counters("ws_disconnects", "Sessions ended, by reason and by the side that ended them", |it| {
        let labels = |reason| [("reason", reason), ("initiated_by", initiator(reason))];
        it.disconnects.iter::<Disconnect>().map(|(reason, count)| (labels(reason), count)).collect()
    })?;
    page.counter("ws_slow_clients_disconnected", "Sessions ended because they read too slowly", |it| {
        count_of(&it.disconnects, Disconnect::SlowConsumer)
    })?;
    page.counters(
        "ws_capacity_rejections",
        "Connections refused because of a limit, or while draining",
        |it| {
            let refusals = it.refusals.iter::<Refusal>().filter(|(reason, _)| is_want_of_room(reason));
            refusals.map(|(reason, count)| ([("reason", reason)], count)).collect()
        },
    )?;
    page.counters(
        "ws_handshakes_refused",
        "Connections that did not become a session because of the client",
        |it| {
            let refusals = it.refusals.iter::<Refusal>().filter(|(reason, _)| !is_want_of_room(reason));
            refusals.map(|(reason, count)| ([("reason", reason)], count)).collect()
        },
    )?;
    page.counters_by::<HttpRoute, _>("ws_http_requests", "Plain HTTP requests answered", "route", |it| {
        &it.http_requests
    })?;
    page.counter("ws_sockets_accepted", "Sockets accepted", |it| it.accepted)?;
    let help = "Connections without a session that were reset because sockets ran short";
    page.counter("ws_sockets_evicted", help, |it| it.sockets_evicted)?;
    page.counter("ws_accept_errors", "Accepts that failed for lack of descriptors or memory", |it| {
        it.accept_errors
    })?;
    if let Some(overflows) = listen_queue::overflows() {
        let help = "Connections that the kernel dropped because a listening socket's queue was full";
        page.process_counter("ws_listen_overflows", help, overflows)?;
    }
    page.shard_gauge("ws_sockets", "Sockets of sessions and of handshakes, and closing ones", |it| {
        it.connections
    })
}

fn admission(page: &mut Page<'_>, shared: &Shared) -> Result<(), Error> {
    let help =
        "Of the connections refused, those that came too soon after others: of their address, or of all";
    page.counters("ws_connection_rate_limited", help, |it| {
        [("per_ip", Refusal::IpRate), ("global", Refusal::GlobalRate)]
            .map(|(rate, reason)| ([("type", rate)], count_of(&it.refusals, reason)))
            .into()
    })?;
    let addresses::Readings { addresses, sessions_most } = shared.addresses.readings();
    let help = "Addresses that have a connection, without trusted proxies and the own host";
    page.gauge("ws_addresses", help, None, addresses)?;
    let help = "Sessions of the address that has the most";
    page.gauge("ws_busiest_address_sessions", help, None, sessions_most)?;
    let Readings { addresses, evicted } = shared.connection_rates.readings();
    let help = "Addresses that the rate limit remembers: their burst is not full again";
    page.gauge("ws_rate_limit_addresses", help, None, addresses)?;
    let help = "Addresses that the rate limit evicted before their burst was full";
    page.process_counter("ws_rate_limit_addresses_evicted", help, evicted)?;
    let help = "X-Forwarded-For headers ignored: the peer is not a trusted proxy, or the client's address is missing";
    page.counter("ws_forwarded_headers_ignored", help, |it| it.forwarded_headers_ignored)?;
    let help = "Turns that answered the maximum of handshakes and left others to the next turn";
    page.counter("ws_handshakes_paced", help, |it| it.handshakes_paced)
}

fn clients(page: &mut Page<'_>) -> Result<(), Error> {
    page.counter("ws_messages_received", "Messages from clients", |it| it.messages_received)?;
    page.counter("ws_bytes_received", "Bytes from clients, with all headers", |it| it.bytes_received)?;
    page.counter("ws_client_errors", "Messages from clients that were answered with an error", |it| {
        it.client_errors
    })?;
    let help = "Messages from clients that exceeded their rate, and had no effect";
    page.counter("ws_rate_limited_messages", help, |it| it.messages_rate_limited)?;
    let help = "Channels in subscribe or unsubscribe that were rejected";
    page.counter("ws_channels_rejected", help, |it| it.channels_rejected)?;
    let help = "Operations that clients' messages cost; one session may use 250,000 a second in the long run";
    page.counter("ws_client_operations", help, |it| it.operations)?;
    let help = "Times that reading a session was paused";
    page.counters_by::<ReceivePause, _>("ws_receive_pauses", help, "reason", |it| &it.receive_pauses)?;
    let help = "Sessions that are not read because they exceeded their budget";
    page.shard_gauge("ws_sessions_paused", help, |it| it.sessions_paused)?;
    let help = "Memory of clients' unfinished messages and unread bytes";
    page.shard_gauge_in("ws_inbound", help, Some(&Unit::Bytes), |it| it.inbound_bytes)?;
    page.shard_gauge("ws_channels", "Channels and wildcards with a subscriber", |it| it.channels)
}

fn kafka(page: &mut Page<'_>, config: &Config, shared: &Shared) -> Result<(), Error> {
    page.counter("ws_kafka_messages_received", "Records polled", |it| it.records)?;
    page.counter("ws_kafka_records_framed", "Polled records that became an event", |it| it.records_framed)?;
    page.counters_by::<RecordSkipped, _>(
        "ws_kafka_records_skipped",
        "Polled records that did not become an event",
        "reason",
        |it| &it.records_skipped,
    )?;
    let help = "Records in another partition than the one that KAFKA_PARTITIONER gives their key";
    page.counter("ws_kafka_records_misplaced", help, |it| it.records_misplaced)?;
    let help = "Tokens seen in a partition that they do not belong to: single positions of them are refused";
    page.shard_gauge("ws_kafka_tokens_misplaced", help, |it| it.tokens_misplaced)?;
    let help = "Misplaced records whose token found no room: single positions of the topic are refused";
    page.counter("ws_kafka_tokens_misplaced_dropped", help, |it| it.tokens_misplaced_dropped)?;
    let status = shared.kafka.read();
    let is_draining = shared.drain.has_begun();
    let readiness = readiness::readiness(&status, shared.overload.read(), is_draining)
        .unless_silent(shared.silent_shard(Instant::now()));
    let is_ready = readiness.status_code() == 200;
    page.gauge("ws_ready", "1 while /health/ready says so, else 0", None, u64::from(is_ready))?;
    let connected = u64::from(status.connected);
    page.gauge("ws_kafka_connected", "1 while the brokers answer, else 0", None, connected)?;
    page.gauge("ws_kafka_topics", "Configured topics", None, config.kafka.topics.len() as u64)?;
    let missing = status.topics_missing.len() as u64;
    page.gauge("ws_kafka_topics_missing", "Configured topics that the brokers do not have", None, missing)?;
    let forbidden = status.topics_forbidden.len() as u64;
    page.gauge(
        "ws_kafka_topics_forbidden",
        "Configured topics that the gateway may not read",
        None,
        forbidden,
    )?;
    page.gauge("ws_kafka_partitions", "Partitions that are read", None, status.partitions as u64)?;
    let stuck = status.partitions_stuck as u64;
    let help = "Partitions that are not fetched although their logs grow";
    page.gauge("ws_kafka_partitions_stuck", help, None, stuck)?;
    let help = "How long the oldest undelivered record of any partition has waited, at the last look";
    page.gauge("ws_kafka_lag", help, Some(&Unit::Seconds), status.lag_s)?;
    let help = "Consumers that stopped fetching and were replaced";
    page.process_counter("ws_kafka_consumers_replaced", help, status.consumers_replaced)
}

fn delivery(page: &mut Page<'_>) -> Result<(), Error> {
    page.counter("ws_messages_sent", "The same as ws_frames_sent", |it| it.frames_sent)?;
    page.counter("ws_frames_queued", "Frames of events and gaps put into outboxes", |it| it.frames_queued)?;
    page.counter("ws_frames_sent", "Frames that are whole in a socket", |it| it.frames_sent)?;
    page.counter(
        "ws_frames_discarded",
        "Queued frames dropped by the end of a session or an unsubscribe",
        |it| it.frames_discarded,
    )?;
    page.counter(
        "ws_frames_conflated",
        "Queued frames dropped for newer ones and named by a gap (WS_SLOW_CONSUMER=conflate)",
        |it| it.frames_conflated,
    )?;
    page.shard_gauge("ws_frames_waiting", "Queued frames that are in an outbox now", |it| it.frames_waiting)?;
    page.counter("ws_conflations", "Outboxes in which newer frames replaced older ones", |it| {
        it.conflations
    })?;
    page.shard_gauge("ws_frames_held", "Distinct frames that at least one outbox holds", |it| {
        it.frames_held
    })?;
    page.counters_by::<GapCause, _>(
        "ws_gaps",
        "Gap messages to sessions, one for each channel",
        "reason",
        |it| &it.gaps,
    )?;
    page.counter("ws_bytes_sent", "Bytes that sockets accepted", |it| it.bytes_sent)?;
    page.counter("ws_sends", "Sends of which a socket accepted at least a part", |it| it.sends)?;
    page.counter("ws_sends_full", "Sends that a full socket accepted only in part", |it| it.sends_full)?;
    let help = "Time from the poll of a record, or from its timestamp, until its frame is in a socket";
    page.histograms("ws_delivery_latency", help, Some(&Unit::Seconds), &DURATION_BUCKETS, |it| {
        [([("from", "poll")], &it.latency_from_poll), ([("from", "record")], &it.latency_from_record)]
    })?;
    page.histograms("ws_frames_per_send", "Frames in one send", None, &FRAMES_BUCKETS, |it| {
        [([], &it.frames_per_send)]
    })?;
    let help = "Minimum time between two event sends to one session";
    page.shard_gauge_in("ws_flush_window", help, Some(&Unit::Seconds), |it| it.flush_window_s)?;
    let help = "Duration of one egress slice: sends to sessions, up to a limit of sends or of time";
    page.histograms("ws_pass", help, Some(&Unit::Seconds), &DURATION_BUCKETS, |it| [([], &it.slices)])
}

fn resumes(page: &mut Page<'_>, shared: &Shared) -> Result<(), Error> {
    page.counter("ws_resumes", "Subscriptions with since or snapshot", |it| it.resumes)?;
    let help = "Channels that began live because their since or snapshot was unavailable";
    page.counter("ws_resumes_refused", help, |it| it.resumes_refused)?;
    let help = "Start requests that wait for Kafka, or for the history";
    page.shard_gauge("ws_questions_deferred", help, |it| it.questions_deferred)?;
    let help = "Memory of deferred start requests";
    page.shard_gauge_in("ws_questions_deferred", help, Some(&Unit::Bytes), |it| it.questions_deferred_bytes)?;
    let help = "Start requests answered at once with what was known, because too many waited";
    page.counter("ws_questions_hurried", help, |it| it.questions_hurried)?;
    let help = "Start requests whose session ended before the answer";
    page.counter("ws_questions_withdrawn", help, |it| it.questions_withdrawn)?;
    page.shard_gauge("ws_resuming", "Sessions that resume", |it| it.resuming)?;
    let help = "Cursors of sessions that resume, one for each partition";
    page.shard_gauge("ws_resume_cursors", help, |it| it.resume_cursors)?;
    let help =
        "Times that a session waited for a replay from Kafka, because it had had two within the minute";
    page.counter("ws_replays_paced", help, |it| it.replays_paced)?;
    page.counter("ws_frames_replayed", "Frames queued for sessions that resume", |it| it.frames_replayed)?;
    page.shard_gauge("ws_history_frames", "Frames from which sessions can resume", |it| it.history_frames)?;
    page.shard_gauge_in("ws_history", "Memory of the history", Some(&Unit::Bytes), |it| it.history_bytes)?;
    page.counter("ws_history_evicted", "Frames evicted from the history", |it| it.history_evicted)?;
    page.shard_gauge("ws_last_values", "Channels whose last event is kept", |it| it.last_values)?;
    page.counter("ws_last_values_evicted", "Channels whose last event was evicted", |it| {
        it.last_values_evicted
    })?;
    page.counter("ws_mesh_frames", "Frames passed to another shard", |it| it.mesh_frames)?;
    let help = "Turns that read no more records because another shard's queue was full";
    page.counter("ws_mesh_full", help, |it| it.mesh_full)?;
    let help = "Requests to other shards that wait for room";
    page.shard_gauge("ws_mesh_backlog", help, |it| it.mesh_backlog)?;
    let help = "Turns that read no client because too many requests waited for room";
    page.counter("ws_mesh_backed_up", help, |it| it.mesh_backed_up)?;
    let Some(replay) = shared.replay.get() else { return Ok(()) };
    let ReplayReadings { scans, cursors, records, frames, bytes } = replay.readings();
    let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    page.gauge("ws_replay_scans", "Partitions being read from Kafka for resumes", None, value(scans))?;
    page.gauge("ws_replay_cursors", "Sessions that wait for a replay from Kafka", None, value(cursors))?;
    page.process_counter("ws_replay_records", "Records read from Kafka for resumes", value(records))?;
    page.process_counter("ws_replay_frames", "Frames delivered by replays from Kafka", value(frames))?;
    page.process_counter("ws_replay_bytes", "Bytes of frames delivered by replays", value(bytes))
}

fn turns(page: &mut Page<'_>, shared: &Shared) -> Result<(), Error> {
    let help = "Times that the shard was found without a turn for a second";
    page.counter_of("ws_shard_stalls", help, |shard| shared.pulses[shard].stalls())?;
    page.counter("ws_loop_turns", "Turns of the shard's loop", |it| it.turns)?;
    page.counter("ws_loop_sleeps", "Turns that ended in a sleep", |it| it.sleeps)?;
    page.shard_gauge("ws_receive_buffers_free", "Receive buffers that are free", |it| it.buffers_free)?;
    page.counter("ws_receive_buffers_exhausted", "Receives that found no free buffer and waited", |it| {
        it.buffers_exhausted
    })?;
    let help = "Cancels that did not find their request in the ring, because the kernel was processing it";
    page.counter("ws_cancels_missed", help, |it| it.cancels_missed)
}

fn initiator(reason: &str) -> &'static str {
    let clients = [Disconnect::ClientClosed, Disconnect::ClientGone, Disconnect::ConnectionLost];
    if clients.iter().any(|it| it.text() == reason) { "client" } else { "server" }
}

fn is_want_of_room(reason: &str) -> bool {
    let clients = [Refusal::BadRequest, Refusal::HandshakeTimeout, Refusal::ClientGone];
    !clients.iter().any(|it| it.text() == reason)
}

fn count_of<L: Label<N>, const N: usize>(counts: &ByLabel<N>, label: L) -> u64 {
    counts.iter::<L>().nth(label.index()).map_or(0, |(_, count)| count)
}

#[cfg(test)]
#[path = "tests/metrics.rs"]
mod tests;
