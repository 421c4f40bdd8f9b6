//! The result of `hostile`: a line with a verdict for each recipe and number of attackers.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::grouped;
use crate::args::HostileArguments;
use crate::hostile::attacker::AttackCounts;
use crate::hostile::bystander::BystanderDelay;
use crate::hostile::probe::Health;
use crate::hostile::recipes::Recipe;
use crate::html::{Figure, HtmlInput};
use crate::machine::MachineReport;
use crate::report::round::Spread;
use crate::run::RunError;
use crate::server::{Server, process};
use crate::testbed::Testbed;

/// The bystander of the attacked gateway may wait this much longer than that of the control.
const GAP_OVER_CONTROL_MS: f64 = 20.0;
/// Allowance for an allocator's pages; memory that is not released after each round exceeds it.
const MEMORY_SLACK_BYTES: i64 = 2 * 1024 * 1024;
/// The first client that requests older records makes the gateway open connections to the brokers, which stay
/// open.
const DESCRIPTORS_SLACK: u64 = 16;

/// Resources of the gateways between two rounds.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Private memory of the attacked gateway and of the control, bytes.
    pub memory: [u64; 2],
    /// Open descriptors of the attacked gateway.
    pub descriptors: u64,
}

/// One round.
#[derive(Clone, Debug)]
pub struct Round {
    /// Delays of the bystanders of the attacked gateway and of the control.
    pub delay: [BystanderDelay; 2],
    /// Counts of all attackers together.
    pub effort: AttackCounts,
    /// Health of the attacked gateway.
    pub health: Health,
    /// Why a bystander was closed.
    pub closed: Option<String>,
    /// Resources after the round.
    pub resources: Resources,
}

/// A figure of the attacked gateway and of the control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct WithControl {
    pub attacked: f64,
    pub control: f64,
}

/// The result of a recipe with this number of attackers. Its fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct RecipeResult {
    pub recipe: &'static str,
    pub sends: &'static str,
    pub attackers: u16,
    pub gap_ms: WithControl,
    pub p50_ms: WithControl,
    pub gaps_ms: Vec<WithControl>,
    pub memory_bytes: Vec<u64>,
    pub memory_growth_bytes: Option<i64>,
    pub descriptors_before: u64,
    pub descriptors_after: u64,
    pub lost: u64,
    pub closed: u64,
    pub health: Health,
    pub effort: AttackCounts,
    pub passed: bool,
    pub reasons: Vec<String>,
}

/// The results of all recipes. The fields are JSON keys.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct HostileResult {
    pub scenario: &'static str,
    pub rounds: u32,
    pub duration_s: f64,
    pub lines: Vec<RecipeResult>,
    pub notes: Vec<String>,
    pub machine: MachineReport,
    pub configuration: String,
    pub interrupted: bool,
    pub passed: bool,
    pub reasons: Vec<String>,
}

impl Resources {
    /// Reads the resources now. The kernel walks the page tables of the processes.
    pub fn of(attacked: &Server, control: &Server) -> Result<Self, RunError> {
        let of = |server: &Server| {
            let pid = server.pid.expect("it was started here");
            let read = process::memory(pid).and_then(|memory| Ok((memory, process::descriptors(pid)?)));
            read.map_err(|error| RunError::Process { pid, error })
        };
        let ((attacked, descriptors), (control, _)) = (of(attacked)?, of(control)?);
        Ok(Self { memory: [attacked.private_bytes, control.private_bytes], descriptors })
    }

    /// Whether the attackers' connections are closed.
    pub fn is_as_before(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors + DESCRIPTORS_SLACK
    }
}

impl RecipeResult {
    /// The result with its verdict.
    pub fn of(recipe: &Recipe, attackers: u16, before: Resources, rounds: &[Round], lost: u64) -> Self {
        let figure = |of: fn(&BystanderDelay) -> f64| {
            let median = |side: usize| {
                Spread::of(rounds.iter().map(|round| of(&round.delay[side])).collect())
                    .map_or(0.0, |spread| spread.median)
            };
            WithControl { attacked: median(0), control: median(1) }
        };
        let (mut health, mut effort) = (Health::default(), AttackCounts::default());
        for round in rounds {
            health.add(round.health.clone());
            effort.connections += round.effort.connections;
            effort.bytes += round.effort.bytes;
            effort.turned_away += round.effort.turned_away;
        }
        // Growth from the second identical round to the third. Leaked memory persists in later rounds; memory
        // that an allocator had not yet returned does not. The growth of the control is that of the events.
        let growth = rounds.get(1).and_then(|second| {
            let grown = |round: &Round| {
                let of =
                    |side: usize| round.resources.memory[side] as i64 - second.resources.memory[side] as i64;
                of(0) - of(1).max(0)
            };
            rounds[2..].iter().map(grown).min()
        });
        let mut line = Self {
            recipe: recipe.name,
            sends: recipe.sends,
            attackers,
            gap_ms: figure(|delay| delay.gap_ms),
            p50_ms: figure(|delay| delay.p50_ms),
            gaps_ms: rounds
                .iter()
                .map(|round| WithControl { attacked: round.delay[0].gap_ms, control: round.delay[1].gap_ms })
                .collect(),
            memory_bytes: rounds.iter().map(|round| round.resources.memory[0]).collect(),
            memory_growth_bytes: growth,
            descriptors_before: before.descriptors,
            descriptors_after: rounds.last().map_or(before.descriptors, |round| round.resources.descriptors),
            lost,
            closed: rounds.iter().filter(|round| round.closed.is_some()).count() as u64,
            health,
            effort,
            passed: false,
            reasons: Vec::new(),
        };
        line.reasons = line.faults(rounds.iter().find_map(|round| round.closed.as_deref()));
        line.passed = line.reasons.is_empty();
        line
    }

    fn faults(&self, closed: Option<&str>) -> Vec<String> {
        let mut faults = Vec::new();
        let WithControl { attacked, control } = self.gap_ms;
        if attacked > control + GAP_OVER_CONTROL_MS {
            faults.push(format!("largest gap {attacked:.0} ms beside {control:.0} ms"));
        }
        if let Some(growth) = self.memory_growth_bytes.filter(|growth| *growth > MEMORY_SLACK_BYTES) {
            faults.push(format!("memory grew by {} bytes from round 2 on", grouped(growth as u64)));
        }
        if self.descriptors_after > self.descriptors_before + DESCRIPTORS_SLACK {
            faults.push(format!("descriptors {} -> {}", self.descriptors_before, self.descriptors_after));
        }
        if self.lost > 0 {
            faults.push(format!("lost or out of order: {}", self.lost));
        }
        if let Some(why) = closed {
            faults.push(format!("a bystander was closed in {} rounds: {}", self.closed, why.trim_end()));
        }
        let Health { unanswered_live, unanswered_ready, not_200_live, not_200_ready, why, .. } = &self.health;
        if unanswered_live + unanswered_ready + not_200_live + not_200_ready > 0 {
            let why = why.as_deref().unwrap_or_default();
            faults.push(format!(
                "health of {} asked: live {unanswered_live} unanswered, {not_200_live} not 200; ready {unanswered_ready}, {not_200_ready}: {why}",
                self.health.asked
            ));
        }
        faults
    }

    fn cells(&self) -> Vec<String> {
        let mib = |bytes: i64| format!("{:.1}", bytes as f64 / (1024.0 * 1024.0));
        let memory: Vec<_> =
            self.memory_bytes.iter().skip(1).take(2).map(|bytes| mib(*bytes as i64)).collect();
        vec![
            self.recipe.to_owned(),
            self.attackers.to_string(),
            format!("{:.1} / {:.1}", self.gap_ms.attacked, self.gap_ms.control),
            format!("{:.2} / {:.2}", self.p50_ms.attacked, self.p50_ms.control),
            format!("{} ({})", memory.join(" -> "), self.memory_growth_bytes.map_or("-".to_owned(), mib)),
            format!("{} -> {}", self.descriptors_before, self.descriptors_after),
            format!("{} / {}", self.lost, self.closed),
            format!("{:.0}", self.health.slowest_ms),
            format!("{} / {}", grouped(self.effort.connections), grouped(self.effort.bytes)),
            if self.passed { "passed".to_owned() } else { self.reasons.join("; ") },
        ]
    }

    /// The result as one line of text.
    pub fn summary(&self) -> String {
        self.cells()
            .iter()
            .zip(HEADER)
            .map(|(cell, name)| format!("{name}: {cell}"))
            .collect::<Vec<_>>()
            .join(" | ")
    }
}

const HEADER: [&str; 10] = [
    "recipe",
    "by",
    "gap ms / control",
    "p50 ms / control",
    "MiB round 2 -> 3 (over control)",
    "descriptors",
    "lost / closed",
    "health ms",
    "connections / bytes",
    "verdict",
];

impl HostileResult {
    /// A result without lines.
    pub fn new(arguments: &HostileArguments, testbed: &Testbed) -> Self {
        Self {
            scenario: "hostile",
            rounds: arguments.rounds,
            duration_s: arguments.duration.as_secs_f64(),
            lines: Vec::new(),
            notes: Vec::new(),
            machine: testbed.machine.clone(),
            configuration: testbed.configuration.clone(),
            interrupted: false,
            passed: false,
            reasons: Vec::new(),
        }
    }

    /// Sets the verdict over all lines.
    pub fn judge(&mut self, interrupted: bool) {
        let failed = self.lines.iter().filter(|line| !line.passed);
        self.reasons = failed
            .map(|line| format!("{} by {}: {}", line.recipe, line.attackers, line.reasons.join("; ")))
            .collect();
        if interrupted {
            self.reasons.push("not all recipes ran to their end".to_owned());
        }
        if self.rounds < 3 {
            self.notes.push("Memory is judged from three rounds on.".to_owned());
        }
        self.interrupted = interrupted;
        self.passed = self.reasons.is_empty();
    }

    /// The table.
    pub fn summary(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(HEADER.to_vec());
        for line in &self.lines {
            let mut cells = line.cells();
            // The reasons follow below the table.
            cells[9] = if line.passed { "passed" } else { "FAILED" }.to_owned();
            table.add_row(cells);
        }
        let verdict = if self.passed { "PASSED" } else { "FAILED" };
        let mut text = format!("{table}\nhostile: {verdict}, {} rounds\n", self.rounds);
        for reason in self.reasons.iter().chain(&self.notes) {
            text.push_str(&format!("  {reason}\n"));
        }
        text
    }

    /// The page: the table.
    pub fn page(&self) -> HtmlInput {
        let figure = |line: &RecipeResult| {
            let cells = line.cells();
            Figure { name: format!("{} by {}", line.recipe, line.attackers), values: cells[2..].to_vec() }
        };
        HtmlInput {
            title: "hostile".to_owned(),
            passed: self.passed,
            reasons: self.reasons.clone(),
            notes: self.notes.clone(),
            columns: HEADER[2..].iter().map(|name| (*name).to_owned()).collect(),
            figures: self.lines.iter().map(figure).collect(),
            configuration: self.configuration.clone(),
            ..HtmlInput::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::recipes::RECIPES;

    const BEFORE: Resources = Resources { memory: [10 << 20, 10 << 20], descriptors: 40 };

    fn rounds() -> Vec<Round> {
        let delay = |gap_ms| BystanderDelay { p50_ms: 0.1, gap_ms };
        let round = |number: u64| Round {
            delay: [delay(20.0 + number as f64), delay(5.0)],
            effort: AttackCounts::default(),
            health: Health::default(),
            closed: None,
            // Both gateways keep more events with each round.
            resources: Resources {
                memory: [(20 + 4 * number) << 20, (10 + 4 * number) << 20],
                descriptors: 41,
            },
        };
        (0..5).map(round).collect()
    }

    fn line(rounds: &[Round], lost: u64) -> RecipeResult {
        RecipeResult::of(&RECIPES[0], 20, BEFORE, rounds, lost)
    }

    #[test]
    fn the_medians_are_compared_and_the_memory_of_events_is_no_growth() {
        let line = line(&rounds(), 0);
        assert_eq!(line.gap_ms, WithControl { attacked: 22.0, control: 5.0 });
        assert_eq!(line.memory_growth_bytes, Some(0));
        assert!(line.passed, "{:?}", line.reasons);
        let mut late = rounds();
        late[2].resources.memory[0] += 9 << 20;
        assert!(self::line(&late, 0).passed, "it was given back in the next round");
        let short = RecipeResult::of(&RECIPES[0], 1, BEFORE, &rounds()[..2], 0);
        assert_eq!(short.memory_growth_bytes, None);
    }

    #[test]
    fn every_fault_fails_the_line_and_is_named() {
        type Fault = (fn(&mut Vec<Round>), &'static str);
        let faults: [Fault; 7] = [
            (
                |rounds| rounds.iter_mut().for_each(|round| round.delay[0].gap_ms = 26.0),
                "largest gap 26 ms beside 5",
            ),
            (
                |rounds| rounds[2..].iter_mut().for_each(|round| round.resources.memory[0] += 3 << 20),
                "memory grew by 3,145,728",
            ),
            (|rounds| rounds[4].resources.descriptors = 57, "descriptors 40 -> 57"),
            (|rounds| rounds[1].closed = Some("closed with 1008 slow".to_owned()), "closed with 1008 slow"),
            (|rounds| rounds[3].health.unanswered_live = 1, "live 1 unanswered"),
            (|rounds| rounds[3].health.unanswered_ready = 2, "ready 2"),
            (|rounds| rounds[0].health.not_200_ready = 3, ", 3:"),
        ];
        for (fault, says) in faults {
            let mut rounds = rounds();
            fault(&mut rounds);
            let line = line(&rounds, 0);
            assert!(!line.passed && line.reasons.len() == 1, "{says}: {:?}", line.reasons);
            assert!(line.reasons[0].contains(says), "{says}: {:?}", line.reasons);
        }
        assert!(line(&rounds(), 2).reasons[0].contains("lost or out of order: 2"));
    }
}
