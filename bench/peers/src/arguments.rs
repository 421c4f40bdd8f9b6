//! The command line of a peer.

use std::net::SocketAddr;

use clap::Parser;

/// Broadcasts the records of a Kafka topic to WebSocket clients.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// Address for clients; /health answers 200 there once every partition is assigned.
    #[arg(long, default_value = "127.0.0.1:3100")]
    pub listen: SocketAddr,
    /// Bootstrap addresses of Kafka, separated by commas.
    #[arg(long)]
    pub brokers: String,
    /// Topic to read: all partitions, from their ends on.
    #[arg(long, default_value = "odin.trades")]
    pub topic: String,
    /// Events that a channel keeps for its slowest session, which is closed if it falls further behind; a
    /// power of two. 4096 is the gateway's limit per session; with thousands of channels choose less, because
    /// each allocates its memory at once.
    #[arg(long, value_name = "EVENTS", default_value = "4096", value_parser = queue_events)]
    pub queue_events: usize,
    /// Sets a property of librdkafka; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    pub kafka_property: Vec<(String, String)>,
}

fn queue_events(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(events) if events.is_power_of_two() && (16..=65_536).contains(&events) => Ok(events),
        _ => Err("write a power of two from 16 to 65536".to_owned()),
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, for example fetch.wait.max.ms=5")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_power_of_two() {
        let parse = |events| Arguments::try_parse_from(["peer", "--brokers", "b", "--queue-events", events]);
        assert_eq!(parse("64").expect("allowed").queue_events, 64);
        for events in ["0", "100", "131072", "x"] {
            assert!(parse(events).expect_err(events).to_string().contains("power of two"));
        }
    }

    #[test]
    fn a_property_without_value_is_refused_with_an_example() {
        let line = ["peer", "--brokers", "127.0.0.1:9092", "--kafka-property", "fetch.wait.max.ms"];
        let error = Arguments::try_parse_from(line).expect_err("refused").to_string();
        assert!(error.contains("NAME=VALUE"), "{error}");
    }
}
