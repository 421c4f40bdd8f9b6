//! Measures how many events per second one core creates: `cargo run --release -p publisher --example
//! simulator_rate`.

use std::time::Instant;

use publisher::Simulator;

const EVENTS: u64 = 3_000_000;

fn main() {
    for token_count in [5, 500, 10_000] {
        let tokens = (0..token_count).map(|i| format!("TOKEN{i}")).collect();
        let mut simulator = Simulator::new(tokens, 1).expect("the names are usable");
        let mut value = Vec::new();
        let mut bytes = 0;
        let begun = Instant::now();
        for i in 0..EVENTS {
            simulator.next_event(1_700_000_000_000 + i, &mut value);
            bytes += value.len() as u64;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let rate = EVENTS as f64 / seconds;
        println!("{token_count:>6} tokens: {rate:>10.0} events/s, {} bytes a value", bytes / EVENTS);
    }
}
