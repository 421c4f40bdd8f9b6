//! What signals ask of the process.
//!
//! Handlers are registered before anything else: the first process of a container never gets a signal that it does not handle, and
//! any other is ended by it. SIGTERM, SIGINT and SIGQUIT ask for the end. SIGHUP, SIGUSR1 and SIGUSR2 ask for nothing yet and are logged, so
//! that a terminal that closes or a log rotation that signals does not end sessions. SIGXFSZ, which comes with a write beyond the
//! limit of file sizes, has no effect but the failed write, as a full disk. SIGPIPE is ignored from the start by Rust's runtime.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use tracing::info;

use crate::log::throttle::LogThrottle;

/// Signals that came and were not looked at yet.
#[derive(Debug)]
pub struct Signals {
    signals: signal_hook::iterator::Signals,
    without_effect: LogThrottle,
}

const ENDING: [(i32, &str); 3] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGQUIT, "SIGQUIT")];
const WITHOUT_EFFECT: [(i32, &str); 3] = [(SIGHUP, "SIGHUP"), (SIGUSR1, "SIGUSR1"), (SIGUSR2, "SIGUSR2")];

impl Signals {
    /// Handles them from now on.
    ///
    /// # Errors
    /// The kernel refuses, or no descriptor is left.
    pub fn register() -> io::Result<Self> {
        let all = ENDING.iter().chain(&WITHOUT_EFFECT).map(|(signal, _)| signal);
        let signals = signal_hook::iterator::Signals::new(all)?;
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { signals, without_effect: LogThrottle::default() })
    }

    /// The names of those that ask for the end and came since the last look. The others are logged here.
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
                    "a signal without effect: the configuration is read at the start only, and the log has no file to reopen"
                );
            }
        }
        ending
    }
}

fn name(of: &[(i32, &'static str)], signal: i32) -> Option<&'static str> {
    of.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
}
