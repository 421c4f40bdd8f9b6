//! The signals of the process.
//!
//! Handlers are registered first of all: the first process of a container does not receive unhandled signals, and any other
//! process is ended by them. SIGTERM, SIGINT and SIGQUIT request the end. SIGHUP, SIGUSR1 and SIGUSR2 have no function yet and
//! are logged, so that a closed terminal or a log rotation does not end sessions. SIGXFSZ, which follows a write beyond the limit
//! of file sizes, has no effect except the failed write, as with a full disk. Rust's runtime ignores SIGPIPE from the start.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use tracing::info;

use crate::log::throttle::LogThrottle;

/// Signals that have arrived and were not handled yet.
#[derive(Debug)]
pub struct Signals {
    signals: signal_hook::iterator::Signals,
    without_effect: LogThrottle,
}

const ENDING: [(i32, &str); 3] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGQUIT, "SIGQUIT")];
const WITHOUT_EFFECT: [(i32, &str); 3] = [(SIGHUP, "SIGHUP"), (SIGUSR1, "SIGUSR1"), (SIGUSR2, "SIGUSR2")];

impl Signals {
    /// Registers the handlers.
    ///
    /// # Errors
    /// The kernel refuses, or no descriptor is left.
    pub fn register() -> io::Result<Self> {
        let all = ENDING.iter().chain(&WITHOUT_EFFECT).map(|(signal, _)| signal);
        let signals = signal_hook::iterator::Signals::new(all)?;
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { signals, without_effect: LogThrottle::default() })
    }

    /// The names of signals since the last call that request the end. Other signals are logged.
    pub fn ending(&mut self) -> Vec<&'static str> {
        let mut ending = Vec::new();
        for signal in self.signals.pending() {
            ending.extend(name(&ENDING, signal));
            if let Some(signal) = name(&WITHOUT_EFFECT, signal)
                && let Some(suppressed) = self.without_effect.allow(Instant::now())
            {
                info!(
                    signal,
                    suppressed,
                    "signal ignored: the configuration is read only at the start, and the log has no file to reopen"
                );
            }
        }
        ending
    }
}

fn name(of: &[(i32, &'static str)], signal: i32) -> Option<&'static str> {
    of.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
}
