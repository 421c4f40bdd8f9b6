//! Channel names, the event envelope and the messages between clients and the gateway.
