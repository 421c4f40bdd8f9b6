//! Load generator with a loss audit.
