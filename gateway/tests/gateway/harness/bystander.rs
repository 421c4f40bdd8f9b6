//! A session that has nothing to do with what a test does to the gateway, and that must not notice it.

use super::{Client, Cluster, Gateway, Record, record};

pub(crate) struct Bystander {
    session: Client,
    produced: u64,
}

impl Bystander {
    pub(crate) fn connect(gateway: &Gateway) -> Self {
        Self { session: Client::subscribed(gateway, &["BYSTANDER.trade"]), produced: 0 }
    }

    /// Numbered events come, all of them, in order and once. Whatever else it ever got would show here too.
    pub(crate) fn hears(&mut self, cluster: &Cluster) {
        let numbers = self.produced..self.produced + 20;
        let records: Vec<Record> =
            numbers.clone().map(|number| record("odin.trades", "BYSTANDER", number.to_string())).collect();
        cluster.produce(&records);
        for number in numbers {
            assert_eq!(self.session.next_event("BYSTANDER.trade")["data"], number);
        }
        self.produced += 20;
    }
}
