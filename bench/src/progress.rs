//! The progress of a run: bars on a terminal, otherwise a plain line every 10 s. All of it goes to standard
//! error, so that only the summary is on standard output.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::latency::Percentiles;
use crate::report::grouped;
use crate::run::worker::Answer;
use crate::snapshot::Snapshot;

const TERMINAL_INTERVAL: Duration = Duration::from_millis(250);
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sessions are opened.
    Ramp,
    /// Events are delivered but not measured.
    WarmUp,
    /// Sessions are held and measured.
    Hold,
    /// Sessions disconnect and reconnect.
    Storm,
    /// More sessions are requested than the server has room for.
    Press,
    /// Some sessions do not read.
    Stall,
    /// The server closes its sessions, and they reconnect to another one.
    Drain,
    /// Sessions resume after the last event that they have.
    Resume,
    /// Events in flight arrive.
    Grace,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::WarmUp => "warm-up",
            Self::Hold => "hold",
            Self::Storm => "storm",
            Self::Press => "press",
            Self::Stall => "stall",
            Self::Drain => "drain",
            Self::Resume => "resume",
            Self::Grace => "grace",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Ramp | Self::Storm | Self::Drain | Self::Resume => {
                "{prefix} {wide_bar} {pos}/{len} sessions  {msg}"
            }
            Self::WarmUp | Self::Hold | Self::Press | Self::Stall | Self::Grace => {
                "{prefix} {wide_bar} {pos}/{len} s  {msg}"
            }
        }
    }
}

/// Where the progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgressOutput {
    Terminal,
    Log,
    /// The parent process.
    Parent,
}

/// The progress of one run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<(Phase, ProgressBar)>,
    output: ProgressOutput,
    shown_at: Instant,
    delivered_then: u64,
}

impl Progress {
    /// Starts at `now`.
    pub fn new(now: Instant) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self::shown_to(if is_terminal { ProgressOutput::Terminal } else { ProgressOutput::Log }, now)
    }

    /// Starts at `now`, reporting to the parent process.
    pub fn to_parent(now: Instant) -> Self {
        Self::shown_to(ProgressOutput::Parent, now)
    }

    fn shown_to(output: ProgressOutput, now: Instant) -> Self {
        Self { bar: None, output, shown_at: now, delivered_then: 0 }
    }

    /// When the next call of `show` is due.
    pub fn due_at(&self) -> Instant {
        self.shown_at
            + match self.output {
                ProgressOutput::Terminal | ProgressOutput::Parent => TERMINAL_INTERVAL,
                ProgressOutput::Log => PLAIN_INTERVAL,
            }
    }

    /// Shows the progress of the run.
    pub fn show(&mut self, now: Instant, phase: Phase, snapshot: &Snapshot) {
        let seconds = now.duration_since(self.shown_at).as_secs_f64();
        let delivered = snapshot.delivered.saturating_sub(self.delivered_then);
        let deliveries_per_s = if seconds > 0.0 { delivered as f64 / seconds } else { 0.0 };
        self.shown_at = now;
        self.delivered_then = snapshot.delivered;
        let text = describe(snapshot, deliveries_per_s);
        match self.output {
            ProgressOutput::Terminal => {}
            ProgressOutput::Log => {
                eprintln!("{} {}/{} {text}", phase.name(), snapshot.done, snapshot.total);
                return;
            }
            ProgressOutput::Parent => {
                // The loop of orders notices a parent that has ended.
                let _ = Answer::Progress(snapshot.clone()).say();
                return;
            }
        }
        let bar = self.bar(phase);
        bar.set_length(snapshot.total);
        bar.set_position(snapshot.done);
        bar.set_message(text);
    }

    /// Removes the last bar.
    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn bar(&mut self, phase: Phase) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            // The bar of the finished phase stays on the screen.
            if let Some((_, bar)) = self.bar.take() {
                bar.abandon();
            }
            let style = ProgressStyle::with_template(phase.template()).expect("the templates are valid");
            self.bar = Some((phase, ProgressBar::no_length().with_style(style).with_prefix(phase.name())));
        }
        &self.bar.as_ref().expect("made above").1
    }
}

fn describe(snapshot: &Snapshot, deliveries_per_s: f64) -> String {
    let mut text = format!("active {}", grouped(snapshot.active));
    if snapshot.lost_sessions > 0 {
        text.push_str(&format!("  bad {}", grouped(snapshot.lost_sessions)));
    }
    text.push_str(&format!("  {}/s", grouped(deliveries_per_s.round() as u64)));
    if let Some(Percentiles { p50, p99, .. }) = snapshot.latency_ms {
        text.push_str(&format!("  p50 {p50}  p99 {p99} ms"));
    }
    if let Some(server) = &snapshot.server {
        text.push_str("  server ");
        text.push_str(server);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        let sessions = [Phase::Ramp, Phase::Storm, Phase::Resume];
        let seconds = [Phase::WarmUp, Phase::Hold, Phase::Press, Phase::Stall, Phase::Grace];
        for phase in sessions.into_iter().chain(seconds) {
            assert!(ProgressStyle::with_template(phase.template()).is_ok(), "{phase:?}");
        }
    }

    #[test]
    fn a_line_tells_what_there_is_to_tell() {
        let mut snapshot = Snapshot {
            done: 1,
            total: 2,
            active: 12_000,
            lost_sessions: 0,
            delivered: 0,
            latency_ms: None,
            server: None,
        };
        assert_eq!(describe(&snapshot, 0.0), "active 12,000  0/s");
        snapshot.latency_ms = Some(Percentiles { p50: 2, p90: 3, p99: 9, p999: 10, max: 11 });
        (snapshot.server, snapshot.lost_sessions) = (Some("0.42 cores".to_owned()), 3);
        assert_eq!(
            describe(&snapshot, 59_999.6),
            "active 12,000  bad 3  60,000/s  p50 2  p99 9 ms  server 0.42 cores"
        );
    }
}
