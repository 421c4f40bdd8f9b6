//! Which connections the gateway takes: the rates and numbers of clients, by address, and overload.

pub mod addresses;
pub mod client_address;
pub mod connection_rates;
pub mod overload;
pub mod token_bucket;
