//! Flags of `hostile`.

use std::time::Duration;

use clap::Args;

use super::duration;
use super::measured::{HostFlags, OutputFlags};
use crate::hostile::recipes::RECIPES;

const ATTACKERS_MAX: i64 = 100;
const DURATION_MAX: Duration = Duration::from_secs(60);

/// Flags of `hostile`.
#[derive(Args, Clone, Debug)]
pub struct HostileArguments {
    /// Recipes [default: all]; a part of a name selects every recipe whose name contains it.
    #[arg(long = "recipe", value_name = "NAME,...", value_delimiter = ',', value_parser = recipe)]
    pub recipes: Vec<String>,
    /// Numbers of attackers that each recipe is measured with.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,20", value_parser = clap::value_parser!(u16).range(1..=ATTACKERS_MAX))]
    pub attackers: Vec<u16>,
    /// Rounds per recipe and number of attackers; the attacked gateway and the control are measured at the
    /// same time.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How long an attack lasts.
    #[arg(long, default_value = "1500ms", value_parser = attack_duration)]
    pub duration: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub host: HostFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputFlags,
}

impl HostileArguments {
    /// Checks that involve more than one flag.
    pub fn check(&self) -> Result<(), String> {
        match self.host.url {
            Some(_) => Err("--url: hostile starts the gateways that it attacks".to_owned()),
            None => Ok(()),
        }
    }

    /// Whether the recipe is selected.
    pub fn wants(&self, name: &str) -> bool {
        self.recipes.is_empty() || self.recipes.iter().any(|asked| name.contains(asked))
    }
}

fn recipe(text: &str) -> Result<String, String> {
    if !text.is_empty() && RECIPES.iter().any(|recipe| recipe.name.contains(text)) {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
    Err(format!("write one of {}", names.join(", ")))
}

fn attack_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        duration if duration <= DURATION_MAX => Ok(duration),
        _ => Err("write at most 60s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Arguments, Scenario, parse};

    #[test]
    fn the_documented_command_is_taken() {
        let line = "hostile --recipe pings,storm --attackers 1,20 --rounds 5 --duration 2s --json out.json";
        let Ok(Arguments { scenario: Scenario::Hostile(arguments) }) = parse(line) else { panic!("{line}") };
        assert_eq!((&arguments.attackers[..], arguments.rounds), (&[1, 20][..], 5));
        assert!(arguments.wants("pings-unread") && arguments.wants("storm") && !arguments.wants("silent"));
    }

    #[test]
    fn wrong_use_names_the_flag_and_what_is_allowed() {
        for (line, says) in [
            ("hostile --recipe kindness", "unsubscribe-resumed"),
            ("hostile --attackers 0", "1..=100"),
            ("hostile --rounds 0", "1..=100"),
            ("hostile --duration 2m", "at most 60s"),
            ("hostile --url ws://127.0.0.1:1/ws", "--url"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
