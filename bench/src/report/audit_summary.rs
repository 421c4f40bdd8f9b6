//! The audit and the ledger of a run, summed over all sessions: the first keys of every result.

use serde::{Deserialize, Serialize};

use super::{Cause, grouped};
use crate::ledger::Ledger;

/// Counts of sessions, deliveries and faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct AuditSummary {
    pub connections: u64,
    pub established: u64,
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub gaps: u64,
    pub refused: u64,
    pub failed: u64,
    pub closed_by_server: u64,
    pub unrequested: u64,
    pub unreadable: u64,
    pub errors: u64,
    pub unsequenced: u64,
}

impl AuditSummary {
    /// The summary of a ledger at the end of its run: after the audit's window and its grace period.
    pub fn of(ledger: &Ledger, connections: u64) -> Self {
        let counts = ledger.audit.counts();
        let tally = ledger.tally;
        Self {
            connections,
            established: tally.established,
            expected: counts.delivered + counts.lost,
            delivered: counts.delivered,
            lost: counts.lost,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            gaps: tally.gaps,
            refused: tally.refused,
            failed: tally.failed,
            closed_by_server: tally.closed_by_server,
            unrequested: counts.unrequested,
            unreadable: tally.unreadable,
            errors: tally.errors,
            unsequenced: counts.unsequenced,
        }
    }

    /// Adds the summary of another process.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.connections, other.connections),
            (&mut self.established, other.established),
            (&mut self.expected, other.expected),
            (&mut self.delivered, other.delivered),
            (&mut self.lost, other.lost),
            (&mut self.duplicated, other.duplicated),
            (&mut self.reordered, other.reordered),
            (&mut self.gaps, other.gaps),
            (&mut self.refused, other.refused),
            (&mut self.failed, other.failed),
            (&mut self.closed_by_server, other.closed_by_server),
            (&mut self.unrequested, other.unrequested),
            (&mut self.unreadable, other.unreadable),
            (&mut self.errors, other.errors),
            (&mut self.unsequenced, other.unsequenced),
        ];
        pairs.into_iter().for_each(|(sum, count)| *sum += count);
    }

    /// Why the run failed: any fault that a client would notice. Empty if the run passed.
    pub fn faults(&self, causes: &[Cause], is_delivery_due: bool) -> Vec<String> {
        if self.established == 0 {
            let why = causes.first().map_or("interrupted before the first", |cause| cause.cause.as_str());
            return vec![format!("no session could be established: {why}")];
        }
        let faults = [
            (self.lost, "events lost"),
            (self.duplicated, "events duplicated"),
            (self.reordered, "events out of order"),
            (self.gaps, "losses announced by a gap"),
            (self.unrequested, "events of channels that were not subscribed to"),
            (self.unreadable, "unreadable messages"),
            (self.errors, "error messages from the server"),
            (self.refused, "sessions refused"),
            (self.failed, "sessions failed"),
            (self.closed_by_server, "sessions closed by the server"),
        ];
        let faults = faults.into_iter().filter(|(count, _)| *count > 0);
        let mut reasons: Vec<_> = faults.map(|(count, what)| format!("{what}: {}", grouped(count))).collect();
        if self.delivered == 0 && is_delivery_due {
            reasons
                .push("nothing was delivered at all (is anything published to these channels?)".to_owned());
        }
        reasons
    }

    /// Names and values for a table.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let several = |counts: &[u64]| counts.iter().copied().map(grouped).collect::<Vec<_>>().join(" / ");
        let established = format!("{} of {}", grouped(self.established), grouped(self.connections));
        let ended = several(&[self.refused, self.failed, self.closed_by_server]);
        vec![
            ("sessions established", established),
            ("refused / failed / closed by the server", ended),
            ("deliveries expected", grouped(self.expected)),
            ("deliveries", grouped(self.delivered)),
            ("lost / duplicated / out of order", several(&[self.lost, self.duplicated, self.reordered])),
            ("gaps announced", grouped(self.gaps)),
        ]
    }
}
