//! Malicious clients, and the delays of honest clients meanwhile.
//!
//! `recipes` lists the attacks, `attacker` is one attacker with its connections and limits, and `attack` runs
//! several attackers on threads of low priority. `bystander` measures the two honest clients, one of the
//! attacked gateway and one of a control, on the thread that starts the attack; `probe` requests the attacked
//! gateway's health meanwhile.

pub mod attack;
pub mod attacker;
pub mod bystander;
pub mod messages;
pub mod probe;
pub mod recipes;
