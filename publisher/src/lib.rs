//! Simulates a trading platform's events into Kafka; HTTP control API.
