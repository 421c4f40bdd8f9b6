//! Handles the ring's completions: a part of each turn, limited in time, in completions and in what each session may cost.
//!
//! First the completions: a session that asks for little is answered here, and the bytes of the others are put aside. Then the
//! put-aside bytes, a slice of each session in turn. The last part of the time is reserved for these, so that many sessions that
//! ask for little do not keep them waiting.

use std::time::{Duration, Instant};

use wire::Event;

use super::Shard;
use crate::limits;
use crate::process::pulse::Phase;

/// The time of one harvest. It reads the clock after a number of completions or of operations, whichever comes first.
struct Harvest {
    began: Instant,
    lasts: Duration,
    events: usize,
    operations_looked: u64,
}

impl Harvest {
    /// Begins with the completions, after this many operations.
    fn begin(operations: u64, now: Instant) -> Self {
        let lasts = limits::HARVEST_DURATION - limits::STASHES_DURATION;
        Self { began: now, lasts, events: 0, operations_looked: operations }
    }

    /// Continues with the put-aside bytes: they have what the completions left of the time, and at least their own part.
    fn begin_stashes(&mut self, now: Instant) {
        let spent = now.saturating_duration_since(self.began);
        self.lasts = limits::HARVEST_DURATION.max(spent + limits::STASHES_DURATION);
    }

    /// Whether the time is over, after one more completion and with this many operations in all.
    fn is_over(&mut self, operations: u64) -> bool {
        self.is_over_at(operations, Instant::now)
    }

    /// The same. `clock` is called only once in a number of completions or operations.
    fn is_over_at(&mut self, operations: u64, clock: impl FnOnce() -> Instant) -> bool {
        self.events += 1;
        let is_due = self.events.is_multiple_of(limits::COMPLETIONS_PER_LOOK)
            || operations - self.operations_looked >= limits::OPERATIONS_PER_SLICE;
        if !is_due {
            return false;
        }
        self.operations_looked = operations;
        clock().saturating_duration_since(self.began) >= self.lasts
    }
}

impl Shard {
    /// Handles completions, and reads what sessions have sent. Whether that was all.
    pub(crate) fn harvest(&mut self, now: Instant) -> anyhow::Result<bool> {
        self.enter(Phase::Sockets);
        self.driver.begin_turn(now)?;
        self.core.connections.resume_paid(now);
        self.apply_pacing();
        let mut harvest = Harvest::begin(self.core.connections.counters.operations, Instant::now());
        let has_taken_all = self.take_events(&mut harvest, now)?;
        harvest.begin_stashes(Instant::now());
        let has_served_all = self.serve_stashes(&mut harvest, now);
        self.apply_pacing();
        Ok(has_taken_all && has_served_all)
    }

    /// Pauses and resumes receives. After each completion, so that a session in debt delivers no more in the same turn than the
    /// ring already has.
    fn apply_pacing(&mut self) {
        for (socket, goes_on) in self.core.connections.take_receives() {
            if goes_on {
                self.driver.resume_receive(socket);
            } else {
                self.driver.pause_receive(socket);
            }
        }
    }

    fn take_events(&mut self, harvest: &mut Harvest, now: Instant) -> anyhow::Result<bool> {
        let exhausted = self.driver.readings().buffers_exhausted;
        self.core.connections.handshakes_left = limits::HANDSHAKES_PER_TURN;
        for _ in 0..limits::COMPLETIONS_PER_TURN {
            if self.core.connections.handshakes_left == 0 {
                self.core.connections.counters.handshakes_paced += 1;
                return Ok(false);
            }
            // Clients' requests to the peers need room first.
            if self.core.mesh.is_backed_up() {
                self.core.connections.counters.mesh_backed_up += 1;
                return Ok(false);
            }
            let Some(event) = self.driver.next_event(now)? else {
                // A receive that found no free buffer is armed again in the next turn.
                if self.driver.readings().buffers_exhausted == exhausted {
                    self.core.connections.has_read_all(now);
                }
                return Ok(true);
            };
            let connections = &mut self.core.connections;
            match event {
                Event::Accepted { socket, peer } => connections.accept(socket, peer, now),
                Event::AcceptFailed(error) => connections.accept_failed(&error, now),
                Event::Received { socket, bytes } => self.core.receive(socket, bytes, now),
                Event::PeerFinished(socket) => connections.peer_finished(socket, now),
                Event::Failed { socket, .. } => connections.connection_lost(socket, now),
                Event::Writable(socket) => connections.writable(socket),
                Event::Closed(socket) => connections.closed(socket),
                // A shard opens no connection.
                Event::Connected(_) => {}
            }
            self.apply_pacing();
            if harvest.is_over(self.core.connections.counters.operations) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Serves at most one slice of each session, so that its answers are sent before it is read again; at least one session is
    /// served, whatever the completions took. Whether no session waits any more.
    fn serve_stashes(&mut self, harvest: &mut Harvest, now: Instant) -> bool {
        for _ in 0..self.core.connections.stashes() {
            if self.core.mesh.is_backed_up() {
                break;
            }
            self.core.serve_stash(now);
            if harvest.is_over(self.core.connections.counters.operations) {
                break;
            }
        }
        self.core.connections.stashes() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Harvests completions and then slices of these durations; how long each part lasted.
    fn run(events: usize, event: Duration, slice: Duration) -> (Duration, Duration) {
        let start = Instant::now();
        let now = Cell::new(start);
        let mut operations = 0;
        let mut part = |harvest: &mut Harvest, steps: usize, lasts: Duration, cost: u64| {
            let began = now.get();
            for _ in 0..steps {
                now.set(now.get() + lasts);
                operations += cost;
                if harvest.is_over_at(operations, || now.get()) {
                    break;
                }
            }
            now.get() - began
        };
        let mut harvest = Harvest::begin(0, start);
        let of_events = part(&mut harvest, events, event, 10);
        harvest.begin_stashes(start + of_events);
        (of_events, part(&mut harvest, usize::MAX, slice, limits::OPERATIONS_PER_SLICE))
    }

    #[test]
    fn sessions_that_wait_for_their_slice_have_a_part_of_each_harvest_whatever_comes() {
        let slice = Duration::from_micros(25);
        let look = Duration::from_micros(2 * limits::COMPLETIONS_PER_LOOK as u64);
        let (events, stashes) = run(usize::MAX, Duration::from_micros(2), slice);
        assert!(events < limits::HARVEST_DURATION - limits::STASHES_DURATION + look, "{events:?}");
        assert!(
            (limits::STASHES_DURATION..limits::STASHES_DURATION + slice).contains(&stashes),
            "{stashes:?}"
        );
        // The slices get what the completions leave, and one long completion does not shorten their own part.
        assert_eq!(run(0, slice, slice), (Duration::ZERO, limits::HARVEST_DURATION));
        let (_, stashes) = run(limits::COMPLETIONS_PER_LOOK, limits::HARVEST_DURATION, slice);
        assert_eq!(stashes, limits::STASHES_DURATION);
    }
}
