//! What is wrong with the configuration: every bad variable at once, one a line.

use std::fmt;

use crate::limits::SHOWN_VALUE_CHARACTERS;

/// Shown in place of a secret.
pub(crate) const MASK: &str = "***";

/// The configuration cannot be used. Not recoverable: `main` prints it and exits with [`crate::args::EXIT_USAGE`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Shown first, because a misspelled variable explains why another one is not set.
    pub warnings: Vec<String>,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        let lines: Vec<String> = warnings.chain(self.faults.iter().map(Fault::to_string)).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

/// One variable that cannot be used as it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub variable: &'static str,
    /// What was given, fit to be shown (secrets masked); `None` when nothing was.
    pub value: Option<String>,
    /// Why it cannot be used, and what to write instead.
    pub reason: String,
}

impl Fault {
    /// Of a given value.
    pub(crate) fn of(variable: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self { variable, value: Some(shown(value)), reason: reason.into() }
    }

    /// Of a variable that had to be set.
    pub(crate) fn missing(variable: &'static str, reason: impl Into<String>) -> Self {
        Self { variable, value: None, reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, reason } = self;
        match value {
            Some(value) => write!(formatter, "{variable}={value}: {reason}"),
            None => write!(formatter, "{variable} is not set: {reason}"),
        }
    }
}

/// On one line, without control characters, and not endless.
fn shown(value: &str) -> String {
    let mut characters = value.chars();
    let mut text: String = characters
        .by_ref()
        .take(SHOWN_VALUE_CHARACTERS)
        .map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character })
        .collect();
    if characters.next().is_some() {
        text.push_str("...");
    }
    text
}
