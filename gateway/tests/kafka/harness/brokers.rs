//! The brokers that the calling script has brought up, and what a test does to them.

use std::process::Command;
use std::time::Duration;

use futures_lite::future::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// The cluster in `ODIN_KAFKA_DIR`.
pub(crate) struct Brokers {
    directory: String,
    /// For KAFKA_BROKERS.
    pub(crate) addresses: String,
    pub(crate) nodes: usize,
}

impl Brokers {
    /// # Panics
    /// Without a running cluster: these tests are for `scripts/kafka-tests.sh`.
    pub(crate) fn of_the_script() -> Self {
        let variable = |name| {
            std::env::var(name).unwrap_or_else(|_| panic!("run scripts/kafka-tests.sh, it sets {name}"))
        };
        let addresses = variable("KAFKA_BROKERS");
        Self { directory: variable("ODIN_KAFKA_DIR"), nodes: addresses.split(',').count(), addresses }
    }

    /// SIGKILL for one node; the data stays.
    pub(crate) fn kill(&self, node: usize) {
        self.script(&["kill", "--node", &node.to_string()]);
    }

    /// The same node again; returns once it answers.
    pub(crate) fn start(&self, node: usize) {
        self.script(&["start", "--node", &node.to_string()]);
    }

    /// Nobody may read the topic. Only a cluster of one node can be told so.
    pub(crate) fn forbid(&self, topic: &str) {
        self.script(&["forbid", "--topic", topic]);
    }

    /// Everybody may again.
    pub(crate) fn permit(&self, topic: &str) {
        self.script(&["permit", "--topic", topic]);
    }

    /// Until [`Brokers::resume`] no node does anything; their sockets stay.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        for line in self.script(&["status"]).lines() {
            let (_, rest) = line.split_once("pid ").unwrap();
            let pid = rest.split(',').next().unwrap().parse().unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    }

    fn script(&self, arguments: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka.sh");
        let output = Command::new(script).args(arguments).args(["--dir", &self.directory]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kafka.sh {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Topics of one test, with names that no other test or run has.
pub(crate) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    options: AdminOptions,
    prefix: String,
}

impl Topics {
    pub(crate) fn new(brokers: &Brokers) -> Self {
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers.addresses).create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        Self { admin, options, prefix: format!("test-{:08x}", fastrand::u32(..)) }
    }

    /// The name of the topic of this kind.
    pub(crate) fn name(&self, kind: &str) -> String {
        format!("{}.{kind}", self.prefix)
    }

    /// Makes it; returns once its partitions can be written to.
    pub(crate) fn create(&self, kind: &str, partitions: i32) -> String {
        let name = self.name(kind);
        // A name that was just deleted is free again a little later.
        eventually("the topic is made", || {
            let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
            block_on(self.admin.create_topics(&[topic], &self.options)).unwrap()[0].is_ok().then_some(())
        });
        self.await_partitions(&name, partitions);
        name
    }

    pub(crate) fn delete(&self, name: &str) {
        block_on(self.admin.delete_topics(&[name], &self.options)).unwrap()[0].as_ref().unwrap();
        eventually("the topic is gone", || (self.led_partitions(name) == 0).then_some(()));
    }

    /// Adds partitions, up to this many.
    pub(crate) fn grow(&self, name: &str, partitions: i32) {
        let grown = [NewPartitions::new(name, partitions as usize)];
        block_on(self.admin.create_partitions(&grown, &self.options)).unwrap()[0].as_ref().unwrap();
        self.await_partitions(name, partitions);
    }

    /// Has the broker delete what is before these offsets, partition 0 first.
    pub(crate) fn delete_records(&self, name: &str, before: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in before.iter().enumerate() {
            list.add_partition_offset(name, partition as i32, Offset::Offset(offset)).unwrap();
        }
        let answer = block_on(self.admin.delete_records(&list, &self.options)).unwrap();
        answer.elements().iter().for_each(|element| element.error().unwrap());
    }

    fn await_partitions(&self, name: &str, partitions: i32) {
        eventually("every partition has a leader", || {
            (self.led_partitions(name) == partitions).then_some(())
        });
    }

    fn led_partitions(&self, name: &str) -> i32 {
        let metadata = self.admin.inner().fetch_metadata(Some(name), Duration::from_secs(5)).unwrap();
        let topics = metadata.topics().iter().filter(|topic| topic.name() == name && topic.error().is_none());
        topics.flat_map(|topic| topic.partitions()).filter(|partition| partition.leader() >= 0).count() as i32
    }
}
