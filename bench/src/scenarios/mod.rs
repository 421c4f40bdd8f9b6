//! What can be run, one file each.

pub mod sustained;
