//! What the tests stand on: the brokers of `scripts/kafka.sh`, the real program as a child, an acknowledged producer, and
//! sessions that write down all they get.

mod brokers;
mod gateway;
mod kept;
mod producer;
mod reader;
mod session;
pub(crate) mod socket;

pub(crate) use brokers::{Brokers, Topics};
pub(crate) use gateway::{Launch, Watch};
pub(crate) use kept::kept;
pub(crate) use producer::{Producer, Record};
pub(crate) use reader::{Offsets, Reader};
pub(crate) use session::{Event, FENCES, Log, Session};
/// `TOPICS` are the eight that `kafka.sh` makes, each of `PARTITIONS`.
pub(crate) use testkit::answer::Positions;
pub(crate) use testkit::{
    Gateway, PARTITIONS, PATIENCE, TOPICS, answer, audit, eventually, history, lane, random, random_of,
};
