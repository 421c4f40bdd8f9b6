//! A model of delivery: several shards in one thread, driven at random, compared with what every client must have got.
//!
//! Real parts: the cores with their channels, mesh, histories, cursors and outboxes, and every message of a client, byte for
//! byte. Simulated parts: Kafka (`log`), the replay threads, the sockets (read slowly, in pieces, or not at all) and the clients
//! (`client`), whose reading is paused if they ask for much (`reads`), and who connect, leave, reconnect elsewhere and ask for
//! what they missed. Every step is one of these, chosen by a seeded generator.
//!
//! After each step the accounting must be right. In the end every client must have had each event of each of its subscriptions,
//! from where it began, once and in order, or a gap that names it.

mod client;
mod log;
mod promise;
mod reads;
mod recreated;
mod setup;
mod world;

use self::world::World;

/// The failing seed is in the message; `MODEL_SEED` runs it alone.
#[test]
fn every_client_gets_every_event_once_and_in_order_or_a_gap_that_names_it() {
    if let Ok(seed) = std::env::var("MODEL_SEED") {
        return World::live(seed.parse().expect("MODEL_SEED is a number"), true);
    }
    let seeds =
        std::env::var("MODEL_SEEDS").map_or(2000, |count| count.parse().expect("MODEL_SEEDS is a number"));
    let first = fastrand::u64(..u64::MAX / 2);
    println!("seeds {first} and the {seeds} from there on");
    for seed in first..first + seeds {
        World::live(seed, false);
    }
}
