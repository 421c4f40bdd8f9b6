//! What the ring has: a part of each turn, bounded in time, in events and in what each session may ask.
//!
//! First the events: a session that asks for little is answered here, and the bytes of the others are put aside. Then those,
//! a slice of each session in turn, as long as there is time.

use std::time::Instant;

use wire::Event;

use super::Shard;
use crate::limits;
use crate::pulse::Phase;

/// The time of one harvest. It looks at the clock after so many events or operations, whichever comes first.
struct Harvest {
    began: Instant,
    events: usize,
    operations_looked: u64,
}

impl Harvest {
    fn begin(operations: u64) -> Self {
        Self { began: Instant::now(), events: 0, operations_looked: operations }
    }

    /// Whether the time is over, after one more event and with so many operations in all.
    fn is_over(&mut self, operations: u64) -> bool {
        self.events += 1;
        let is_due = self.events.is_multiple_of(limits::COMPLETIONS_PER_LOOK)
            || operations - self.operations_looked >= limits::OPERATIONS_PER_SLICE;
        if !is_due {
            return false;
        }
        self.operations_looked = operations;
        self.began.elapsed() >= limits::HARVEST_DURATION
    }
}

impl Shard {
    /// Takes what the ring has, and reads what sessions have sent; whether that was all.
    pub(super) fn harvest(&mut self, now: Instant) -> anyhow::Result<bool> {
        self.enter(Phase::Sockets);
        self.driver.begin_turn(now)?;
        self.core.connections.resume_paid(now);
        let mut harvest = Harvest::begin(self.core.connections.counters.operations);
        let has_taken_all = self.take_events(&mut harvest, now)?;
        let has_served_all = self.serve_stashes(&mut harvest, now);
        for (socket, goes_on) in self.core.connections.take_receives() {
            if goes_on {
                self.driver.resume_receive(socket);
            } else {
                self.driver.pause_receive(socket);
            }
        }
        Ok(has_taken_all && has_served_all)
    }

    fn take_events(&mut self, harvest: &mut Harvest, now: Instant) -> anyhow::Result<bool> {
        let exhausted = self.driver.readings().buffers_exhausted;
        self.core.connections.handshakes_left = limits::HANDSHAKES_PER_TURN;
        for _ in 0..limits::COMPLETIONS_PER_TURN {
            if self.core.connections.handshakes_left == 0 {
                self.core.connections.counters.handshakes_paced += 1;
                return Ok(false);
            }
            // What clients ask the peers has to find room first.
            if self.core.mesh.is_backed_up() {
                self.core.connections.counters.mesh_backed_up += 1;
                return Ok(false);
            }
            let Some(event) = self.driver.next_event(now)? else {
                // A receive that found no buffer waits for the next turn.
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
                // A shard connects to nobody.
                Event::Connected(_) => {}
            }
            if harvest.is_over(self.core.connections.counters.operations) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Each session has one slice at most, so that its answers are sent before it is read again; at least one session has it,
    /// whatever the events took. Whether nothing waits any more.
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
