//! Clients that mean harm, and what an honest client feels beside them.
//!
//! `recipes` lists what attackers send, `attacker` is one of them with its connections and its bounds, `attack` runs several of them on threads of
//! low priority. `bystander` measures the two honest clients, one of the attacked gateway and one of a control, on the thread that
//! starts the attack; `probe` asks for the attacked gateway's health meanwhile.

pub mod attack;
pub mod attacker;
pub mod bystander;
pub mod messages;
pub mod probe;
pub mod recipes;
