//! Which connections the gateway takes: the rates and numbers of clients, by address, and overload.

pub(crate) mod addresses;
pub mod client_address;
pub(crate) mod connection_rates;
pub(crate) mod overload;
pub(crate) mod token_bucket;
