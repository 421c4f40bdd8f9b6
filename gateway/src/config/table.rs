//! The table of environment variables: every name that this version honours, its default and its meaning in a line.
//!
//! The one place that spells them. A default that is a value is parsed by the variable's own parser, so the table cannot say
//! one thing and the gateway do another; `--help` prints the table and `docs/CONFIG.md` is compared with it by a test.

/// An environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is unset: a value, or words where the value depends on the machine.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($name:ident = $default:literal, $meaning:literal;)+) => {
        $(pub(crate) const $name: Variable =
            Variable { name: stringify!($name), default: $default, meaning: $meaning };)+
        /// Every variable, in the order in which they are shown.
        pub const VARIABLES: &[Variable] = &[$($name),+];
    };
}

variables! {
    WS_ADDR = ":3002", "listen address: `:port` (every interface), `ip:port` or `[v6]:port`";
    WS_MAX_CONNECTIONS = "12000", "connections held at once; the next one is refused";
    TCP_LISTEN_BACKLOG = "4096", "connections that wait for their accept; 0 is as many as the kernel allows";
    WS_SOCKET_SEND_BYTES = "128KiB", "what the kernel takes of one session before its outbox fills";
    WS_CPU_LIMIT = "the cgroup's, else the machine's", "cores that the process may use, for example 1.5";
    WS_MEMORY_LIMIT = "the cgroup's, else the machine's", "memory that the process may use; at it no new sessions are taken, beyond it the largest are closed";
    WS_CPU_REJECT_THRESHOLD = "75", "CPU above which an overloaded gateway takes no new sessions, % of WS_CPU_LIMIT; 100 is never";
    WS_CPU_PAUSE_THRESHOLD = "80", "CPU above which an overloaded gateway pauses its reading of Kafka, likewise; at least the other threshold";
    WS_SHARDS = "one for each whole core of WS_CPU_LIMIT", "shards, which share connections and partitions";
    WS_PINNING = "on", "on or off: whether each shard has a CPU of its own";
    WS_MAX_BROADCAST_RATE = "0", "event sends/s to one session at most, 0 is no bound; nothing is lost by it, a send carries more events";
    WS_FLUSH_WINDOW_MAX = "200ms", "how long events may wait for others under load, so that one send carries several";
    WS_OUTBOX_BYTES = "1MiB", "what may wait for one session; WS_SLOW_CONSUMER says what happens beyond it";
    WS_OUTBOX_FRAMES = "4096", "the same bound in frames";
    WS_SLOW_CONSUMER = "disconnect", "disconnect or conflate: whether a session over its outbox is closed, or keeps each channel's newest event";
    WS_MAX_MESSAGE_BYTES = "64KiB", "the largest message from a client";
    WS_MAX_RECORD_BYTES = "1048064", "the largest value of a record as it stands in its frame; a larger one is announced as a gap";
    WS_MAX_CHANNELS = "256", "channels and wildcards of one session";
    WS_HISTORY_BYTES = "256MiB", "the newest events of all partitions, from which clients resume";
    WS_HISTORY_WARMUP = "60s", "how much of it is read from Kafka at the start, before the gateway is ready; 0 is none";
    WS_LAST_VALUES = "100000", "channels whose last event is kept for snapshots";
    WS_RESUME_MAX_BYTES = "1GiB", "records that are read from Kafka again for one resume, in bytes; what is more is announced as a gap, 0 is no bound";
    WS_RESUME_MAX_AGE = "0", "how old records may be that are read from Kafka again; older positions are not resumed, 0 is no bound";
    WS_MESSAGE_BURST = "100", "messages that a client may send at once";
    WS_MESSAGE_RATE = "10", "messages/s that a client may send in the long run; what is more is answered with an error, 0 is no bound";
    WS_INBOUND_BURST = "4 messages of WS_MAX_MESSAGE_BYTES", "bytes that a client may send at once";
    WS_INBOUND_RATE = "64KiB", "bytes/s that a client may send in the long run; one that sends more is read as slowly, 0 is no bound";
    WS_DRAIN = "10s", "over how long the closes of sessions are spread when the gateway is told to end";
    WS_REFUSE = "http", "http or close: whether a refused client gets an HTTP status, or a session that is closed at once with the reason";
    WS_TRUSTED_PROXIES = "none", "comma list of addresses and networks whose X-Forwarded-For is believed";
    WS_MAX_CONNECTIONS_PER_IP = "0", "sessions of one address (IPv6: of one /64) at once, 0 is no bound; trusted proxies and 127.0.0.1 are exempt";
    CONN_RATE_LIMIT_ENABLED = "false", "true or false: whether the rates of new connections are limited";
    CONN_RATE_LIMIT_IP_BURST = "10", "new connections of one address (IPv6: of one /64) at once";
    CONN_RATE_LIMIT_IP_RATE = "1", "the same a second, in the long run";
    CONN_RATE_LIMIT_GLOBAL_BURST = "300", "new connections of all addresses at once";
    CONN_RATE_LIMIT_GLOBAL_RATE = "50", "the same a second, in the long run";
    WS_CONSOLE = "off", "on or off: the console page at GET /; on with --dev";
    KAFKA_BROKERS = "required unless --dev", "comma list of host:port";
    KAFKA_GROUP_ID = "ws-server", "the name that brokers see; partitions are assigned by hand, not by the group";
    KAFKA_CONSUMER_GROUP = "KAFKA_GROUP_ID's", "another name of KAFKA_GROUP_ID";
    KAFKA_TOPICS = "odin.trades,odin.liquidity,odin.balances,odin.metadata,odin.social,odin.community,odin.creation,odin.analytics",
        "comma list of topics; each gives its channels their kind";
    KAFKA_PARTITIONER = "murmur2", "how producers choose a key's partition: murmur2, consistent, fnv1a, or none where nobody knows";
    KAFKA_START = "latest", "where reading starts: latest, earliest, or that long ago (5m)";
    WS_MAX_LAG = "0", "a partition whose oldest undelivered record waits longer goes on at its end, with a gap; 0 is never";
    WS_MAX_KAFKA_RATE = "0", "records/s that are taken from Kafka at most, 0 is no bound; the others wait there";
    KAFKA_SECURITY_PROTOCOL = "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL";
    KAFKA_SASL_MECHANISM = "PLAIN", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
    KAFKA_SASL_USERNAME = "none", "required with SASL_PLAINTEXT and SASL_SSL";
    KAFKA_SASL_PASSWORD = "none", "required with SASL_PLAINTEXT and SASL_SSL; never shown";
    KAFKA_PROPERTIES = "none", "further properties of librdkafka: name=value, ...";
    LOG_LEVEL = "info", "debug, info, warn or error";
    LOG_FORMAT = "json", "json or text; text with --dev";
    ENVIRONMENT = "development", "a name for this deployment; shown by /health";
    DEV_EVENT_RATE = "100", "with --dev: simulated events/s, 0 is none";
}

/// Variables of the Go server that this one has nothing to do for: accepted, so that its env files work as they are.
pub(crate) const OF_THE_GO_SERVER: [&str; 7] = [
    "WS_WORKER_POOL_SIZE",
    "WS_WORKER_QUEUE_SIZE",
    "WS_MAX_GOROUTINES",
    "HTTP_READ_TIMEOUT",
    "HTTP_WRITE_TIMEOUT",
    "HTTP_IDLE_TIMEOUT",
    "METRICS_INTERVAL",
];

/// Variables whose value is shown nowhere, or only in part: KAFKA_PROPERTIES may hold the password of a key.
pub(crate) const SECRETS: [&str; 2] = [KAFKA_SASL_PASSWORD.name, KAFKA_PROPERTIES.name];

/// A set variable that begins so is meant for the gateway.
pub(crate) const PREFIXES: [&str; 3] = ["WS_", "KAFKA_", "CONN_RATE_"];

/// The variable of that name.
pub(crate) fn variable(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}
