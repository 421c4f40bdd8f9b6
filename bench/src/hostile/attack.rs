//! Several attackers at once, each on its own thread with a lower priority than that of the bystanders.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::attacker::{AttackCounts, Attacker};
use super::recipes::Recipe;
use crate::client::target::Target;
use crate::machine;

/// Priority of attackers, as of nice(1): a busy attacker must not delay the bystanders.
const NICE: i32 = 15;
/// Pause after a failed attack.
const PAUSE: Duration = Duration::from_millis(5);

/// An attack in progress.
pub struct Attack {
    threads: Vec<JoinHandle<AttackCounts>>,
}

impl Attack {
    /// Starts this number of attackers of one recipe for this duration.
    pub fn start(
        recipe: &'static Recipe,
        target: &Target,
        server: SocketAddr,
        attackers: usize,
        duration: Duration,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + duration;
        let start = |number| {
            let mut attacker = Attacker::new(target, server, number, attackers, deadline);
            let body = move || {
                // Lowering the priority needs no privilege.
                let _ = machine::set_nice(NICE);
                while !attacker.is_over() {
                    if (recipe.attack)(&mut attacker).is_err() && !attacker.is_over() {
                        attacker.effort.turned_away += 1;
                        thread::sleep(PAUSE);
                    }
                }
                attacker.effort
            };
            thread::Builder::new().name(format!("attacker-{number}")).spawn(body)
        };
        Ok(Self { threads: (0..attackers).map(start).collect::<io::Result<_>>()? })
    }

    /// Whether all attackers and their connections have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end; returns the sum of all attackers' counts.
    pub fn finish(self) -> AttackCounts {
        let mut all = AttackCounts::default();
        for thread in self.threads {
            let effort = thread.join().expect("attackers do not panic");
            all.connections += effort.connections;
            all.bytes += effort.bytes;
            all.turned_away += effort.turned_away;
        }
        all
    }
}
