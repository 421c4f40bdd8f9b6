//! Which connections the gateway takes: the rates and numbers of clients, by address, and overload.

pub mod addresses;
pub mod bucket;
pub mod connection_rates;
pub mod forwarded;
pub mod overload;
