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
    WS_SOCKET_SEND_BYTES = "128KiB", "bytes that the kernel buffers for one session before its outbox fills";
    WS_CPU_LIMIT = "the cgroup's, else the machine's", "cores that the process may use, for example 1.5";
    WS_MEMORY_LIMIT = "the cgroup's, else the machine's", "memory that the process may use; at the limit new sessions are refused, above it the largest are closed";
    WS_CPU_REJECT_THRESHOLD = "75", "CPU above which an overloaded gateway refuses new sessions, % of WS_CPU_LIMIT; 100 is never";
    WS_CPU_PAUSE_THRESHOLD = "80", "CPU above which an overloaded gateway pauses reading Kafka, % of WS_CPU_LIMIT; not below the other threshold; 100 is never";
    WS_SHARDS = "one for each whole core of WS_CPU_LIMIT", "shards, which share connections and partitions";
    WS_PINNING = "on", "on or off: whether each shard is pinned to a CPU of its own";
    WS_MAX_BROADCAST_RATE = "0", "maximum event sends/s to one session; no event is lost, each send carries more; 0 is no limit";
    WS_FLUSH_WINDOW_MAX = "200ms", "how long events may wait under load, so that one send carries several";
    WS_OUTBOX_BYTES = "1MiB", "bytes that may wait for one session; WS_SLOW_CONSUMER applies beyond";
    WS_OUTBOX_FRAMES = "4096", "frames that may wait for one session";
    WS_SLOW_CONSUMER = "disconnect", "disconnect or conflate: a session whose outbox is full is closed, or keeps each channel's newest event";
    WS_MAX_MESSAGE_BYTES = "64KiB", "the largest message from a client";
    WS_MAX_RECORD_BYTES = "1048064", "the largest value of a record in its frame; a larger one becomes a gap";
    WS_MAX_CHANNELS = "256", "channels and wildcards that one session may have";
    WS_HISTORY_BYTES = "256MiB", "the newest events of all partitions, from which clients resume";
    WS_HISTORY_WARMUP = "60s", "time of records that are read from Kafka at the start, before the gateway is ready; 0 is none";
    WS_LAST_VALUES = "100000", "channels whose last event is kept for snapshots";
    WS_RESUME_MAX_BYTES = "1GiB", "bytes of records that are read from Kafka for one resume; more becomes a gap; 0 is no limit";
    WS_RESUME_MAX_AGE = "0", "maximum age of records that are read from Kafka for a resume; older positions are not resumed; 0 is no limit";
    WS_MESSAGE_BURST = "100", "messages that a client may send at once";
    WS_MESSAGE_RATE = "10", "messages/s that a client may send in the long run; more are answered with an error; 0 is no limit";
    WS_INBOUND_BURST = "4 messages of WS_MAX_MESSAGE_BYTES", "bytes that a client may send at once";
    WS_INBOUND_RATE = "64KiB", "bytes/s that a client may send in the long run; a client that sends more is read more slowly; 0 is no limit";
    WS_DRAIN = "10s", "time over which a gateway that shuts down closes its sessions";
    WS_REFUSE = "http", "http or close: a refused client gets an HTTP status, or a WebSocket that is closed at once with the reason";
    WS_TRUSTED_PROXIES = "none", "comma list of addresses and networks whose X-Forwarded-For is trusted";
    WS_MAX_CONNECTIONS_PER_IP = "0", "sessions of one address (IPv6: of one /64) at a time; trusted proxies and 127.0.0.1 are exempt; 0 is no limit";
    CONN_RATE_LIMIT_ENABLED = "false", "true or false: whether the rates of new connections are limited";
    CONN_RATE_LIMIT_IP_BURST = "10", "new connections of one address (IPv6: of one /64) at once";
    CONN_RATE_LIMIT_IP_RATE = "1", "new connections/s of one address (IPv6: of one /64) in the long run";
    CONN_RATE_LIMIT_GLOBAL_BURST = "300", "new connections of all addresses at once";
    CONN_RATE_LIMIT_GLOBAL_RATE = "50", "new connections/s of all addresses in the long run";
    WS_CONSOLE = "off", "on or off: the console page at GET /; on with --dev";
    KAFKA_BROKERS = "required unless --dev", "comma list of host:port";
    KAFKA_GROUP_ID = "ws-server", "the name that brokers see; partitions are assigned by hand, not by the group";
    KAFKA_CONSUMER_GROUP = "KAFKA_GROUP_ID's", "another name of KAFKA_GROUP_ID";
    KAFKA_TOPICS = "odin.trades,odin.liquidity,odin.balances,odin.metadata,odin.social,odin.community,odin.creation,odin.analytics",
        "comma list of topics; each gives its channels their kind";
    KAFKA_PARTITIONER = "murmur2", "how producers choose a key's partition: murmur2, consistent, fnv1a, or none if unknown";
    KAFKA_START = "latest", "where reading starts: latest, earliest, or how long ago (5m)";
    WS_MAX_LAG = "0", "a partition whose oldest undelivered record waits longer continues at its end, with a gap; 0 is never";
    WS_MAX_KAFKA_RATE = "0", "maximum records/s taken from Kafka; others wait there; 0 is no limit";
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
