//! Carries Kafka events to WebSocket clients, one pinned core a shard.
