//! Parses the raw environment value by value, and collects the values in force and all faults.
//!
//! An invalid value does not stop the reading: its default replaces it until the end, where the faults refuse the configuration.

use super::error::{ConfigError, Fault, MASK};
use super::table::{SECRETS, Variable};
use super::units;

/// A variable and its value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// The value as it may be shown: secrets are masked. Empty if unset and without a default.
    pub value: String,
    /// Whether the variable is unset.
    pub is_default: bool,
}

#[derive(Default)]
pub(crate) struct Reading {
    settings: Vec<Setting>,
    faults: Vec<Fault>,
}

impl Reading {
    pub(crate) fn with_faults(faults: Vec<Fault>) -> Self {
        Self { settings: Vec::new(), faults }
    }

    /// Reads a switch.
    pub(crate) fn switch(&mut self, variable: &Variable, given: Option<&str>) -> bool {
        self.value(variable, given, units::switch, |on| units::show_switch(*on))
    }

    /// Reads a variable whose default is a value.
    pub(crate) fn value<T>(
        &mut self,
        variable: &Variable,
        given: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let parsed = self.parsed(variable, given, &parse);
        let is_default = parsed.is_none();
        let value = parsed.unwrap_or_else(|| {
            parse(variable.default).expect("a default of the table is valid for the variable's own parser")
        });
        self.settings.push(Setting { name: variable.name, value: show(&value), is_default });
        value
    }

    /// Reads a variable without a default value in the table; `fallback` is the measured value, if there is one.
    pub(crate) fn optional<T>(
        &mut self,
        variable: &Variable,
        given: Option<&str>,
        fallback: Option<T>,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let parsed = self.parsed(variable, given, &parse);
        let is_default = parsed.is_none();
        let value = parsed.or(fallback);
        self.settings.push(Setting {
            name: variable.name,
            value: value.as_ref().map(show).unwrap_or_default(),
            is_default,
        });
        value
    }

    /// Reads a text that is never shown, here or in a fault.
    pub(crate) fn secret(&mut self, variable: &Variable, given: Option<String>) -> Option<Secret> {
        let value = given.as_ref().map_or(String::new(), |_| MASK.to_owned());
        self.settings.push(Setting { name: variable.name, value, is_default: given.is_none() });
        given.map(Secret)
    }

    fn parsed<T>(
        &mut self,
        variable: &Variable,
        given: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = given?;
        let shown = if SECRETS.contains(&variable.name) { MASK } else { text };
        parse(text).map_err(|reason| self.fault(Fault::of(variable.name, shown, reason))).ok()
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Whether values of these variables may be compared: an invalid one is replaced by its default.
    pub(crate) fn all_sound(&self, variables: &[&Variable]) -> bool {
        !self.faults.iter().any(|fault| variables.iter().any(|variable| variable.name == fault.variable))
    }

    /// The values in force, or every fault after these warnings.
    pub(crate) fn finish(self, warnings: &[String]) -> Result<Vec<Setting>, ConfigError> {
        if self.faults.is_empty() {
            Ok(self.settings)
        } else {
            Err(ConfigError { warnings: warnings.to_vec(), faults: self.faults })
        }
    }
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn empty() -> Self {
        Self(String::new())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(MASK)
    }
}
