//! Rates of new connections: per address, and of all together.
//!
//! The rates are those of the process, and the kernel spreads the connections of one address over all shards. So one table serves
//! all of them, behind a lock that is taken once in a handshake, for a look-up, and never on the way of an event.
//!
//! An address whose bucket is full again is forgotten, because a new bucket would be equal. A connection that one of the two
//! rates refuses takes no token of the other. So a crowd that the common rate refuses leaves nothing in the table: it grows only
//! as fast as connections are accepted.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashlink::LruCache;

use super::addresses;
use super::token_bucket::TokenBucket;
use crate::config::ConnectionRates;
use crate::counters::Refusal;
use crate::limits;

/// The buckets of all addresses and of the process, for any thread.
#[derive(Debug)]
pub struct SharedConnectionRates(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// The bucket of the process; made with the first connection.
    global: Option<TokenBucket>,
    /// All buckets that are not full, and some full ones; the most recently used is last.
    addresses: LruCache<IpAddr, TokenBucket>,
    evicted: u64,
}

/// The connection exceeds a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSoon {
    /// Which rate: that of its address, or the common one.
    pub reason: Refusal,
    /// Until the next connection is accepted.
    pub wait: Duration,
}

/// Counts of the table, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readings {
    /// Addresses in the table.
    pub addresses: u64,
    /// Addresses evicted before their bucket was full.
    pub evicted: u64,
}

impl Default for SharedConnectionRates {
    fn default() -> Self {
        Self(Mutex::new(Buckets { global: None, addresses: LruCache::new_unbounded(), evicted: 0 }))
    }
}

impl SharedConnectionRates {
    /// Takes a token of both rates for a connection of this address.
    ///
    /// # Errors
    /// One rate has no token. Then neither loses one.
    pub fn take(&self, rates: &ConnectionRates, client: IpAddr, now: Instant) -> Result<(), TooSoon> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(rates, client, now)
    }

    /// The counts for the metrics.
    pub fn readings(&self) -> Readings {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Readings { addresses: buckets.addresses.len() as u64, evicted: buckets.evicted }
    }
}

impl Buckets {
    fn take(&mut self, rates: &ConnectionRates, client: IpAddr, now: Instant) -> Result<(), TooSoon> {
        let address = addresses::network_of(client);
        self.forget_full(rates, now);
        let mut own =
            self.addresses.get(&address).copied().unwrap_or_else(|| TokenBucket::full(&rates.per_ip, now));
        own.take(&rates.per_ip, now).map_err(|wait| TooSoon { reason: Refusal::IpRate, wait })?;
        let global = self.global.get_or_insert_with(|| TokenBucket::full(&rates.global, now));
        global.take(&rates.global, now).map_err(|wait| TooSoon { reason: Refusal::GlobalRate, wait })?;
        self.addresses.insert(address, own);
        if self.addresses.len() > limits::RATE_LIMIT_ADDRESSES {
            self.addresses.remove_lru();
            self.evicted += 1;
        }
        Ok(())
    }

    /// Removes up to two addresses with a full bucket, the least recently used first. Each connection adds at most one, so the
    /// table shrinks without a long walk.
    fn forget_full(&mut self, rates: &ConnectionRates, now: Instant) {
        for _ in 0..2 {
            let is_full = self.addresses.iter().next().is_some_and(|(_, it)| it.is_full(&rates.per_ip, now));
            if !is_full {
                return;
            }
            self.addresses.remove_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::limits::Rate;

    fn rates(per_ip: (u32, f64), global: (u32, f64)) -> ConnectionRates {
        let rate = |(burst, per_s)| Rate { burst, per_s };
        ConnectionRates { per_ip: rate(per_ip), global: rate(global) }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    /// The reason of a refusal and its wait in milliseconds.
    fn refused(taken: Result<(), TooSoon>) -> (Refusal, u128) {
        let TooSoon { reason, wait } = taken.expect_err("it comes too soon");
        (reason, wait.as_millis())
    }

    #[test]
    fn each_address_has_its_burst_and_is_told_when_to_come_again() {
        let (shared, rates) = (SharedConnectionRates::default(), rates((2, 0.5), (100, 1.0)));
        let start = Instant::now();
        for client in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(shared.take(&rates, ip(client), start), Ok(()));
            assert_eq!(shared.take(&rates, ip(client), start), Ok(()));
            assert_eq!(refused(shared.take(&rates, ip(client), start)), (Refusal::IpRate, 2_000));
            assert_eq!(shared.take(&rates, ip(client), start + Duration::from_secs(2)), Ok(()));
        }
    }

    #[test]
    fn addresses_of_one_64_are_one_and_ipv4_is_the_same_in_either_form() {
        let (shared, rates, now) =
            (SharedConnectionRates::default(), rates((1, 1.0), (100, 1.0)), Instant::now());
        for (client, is_taken) in [
            ("2001:db8:1:2::1", true),
            ("2001:db8:1:2:ffff::9", false),
            ("2001:db8:1:3::1", true),
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("::ffff:192.0.2.2", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(shared.take(&rates, ip(client), now).is_ok(), is_taken, "{client}");
        }
    }

    #[test]
    fn who_is_refused_by_one_rate_takes_nothing_of_the_other() {
        let (shared, rates, now) =
            (SharedConnectionRates::default(), rates((1, 0.001), (2, 1.0)), Instant::now());
        assert_eq!(shared.take(&rates, address(1), now), Ok(()));
        for _ in 0..10 {
            assert_eq!(shared.take(&rates, address(1), now).map_err(|it| it.reason), Err(Refusal::IpRate));
        }
        assert_eq!(shared.take(&rates, address(2), now), Ok(()), "the common bucket had a token left");
        assert_eq!(refused(shared.take(&rates, address(3), now)), (Refusal::GlobalRate, 1_000));
        assert_eq!(shared.readings().addresses, 2, "a crowd that is kept out fills no table");
        let later = now + Duration::from_secs(1);
        assert_eq!(shared.take(&rates, address(3), later), Ok(()), "its own bucket was full");
    }

    #[test]
    fn an_address_is_forgotten_when_its_bucket_is_full_again() {
        let (shared, rates, start) =
            (SharedConnectionRates::default(), rates((2, 1.0), (10_000, 10_000.0)), Instant::now());
        for number in 0..1000 {
            assert_eq!(shared.take(&rates, address(number), start), Ok(()));
        }
        assert_eq!(shared.readings().addresses, 1000);
        for number in 1000..2000 {
            assert_eq!(shared.take(&rates, address(number), start + Duration::from_secs(5)), Ok(()));
        }
        assert_eq!(shared.readings(), Readings { addresses: 1000, evicted: 0 });
    }

    #[test]
    fn the_table_is_bounded_and_the_one_unheard_of_for_longest_goes_first() {
        let (shared, rates, now) =
            (SharedConnectionRates::default(), rates((1, 0.001), (1_000_000, 1.0)), Instant::now());
        let most = limits::RATE_LIMIT_ADDRESSES as u32;
        (0..most).for_each(|number| shared.take(&rates, address(number), now).expect("its first"));
        assert!(shared.take(&rates, address(0), now).is_err(), "known, and asked for again");
        assert_eq!(shared.take(&rates, address(most), now), Ok(()));
        assert_eq!(shared.readings(), Readings { addresses: u64::from(most), evicted: 1 });
        assert!(shared.take(&rates, address(0), now).is_err(), "still known");
        assert_eq!(shared.take(&rates, address(1), now), Ok(()), "forgotten");
    }

    #[test]
    fn no_rate_is_ever_exceeded_whatever_the_order_of_connections() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            let rates = rates(
                (random.u32(1..10), 0.1 + 5.0 * random.f64()),
                (random.u32(1..50), 1.0 + 50.0 * random.f64()),
            );
            let (shared, start) = (SharedConnectionRates::default(), Instant::now());
            let (mut now, mut all, mut each) = (start, 0, HashMap::<IpAddr, u32>::new());
            for _ in 0..2000 {
                now += Duration::from_micros(random.u64(..20_000));
                let client = address(random.u32(..20));
                match shared.take(&rates, client, now) {
                    Ok(()) => {
                        all += 1;
                        *each.entry(client).or_default() += 1;
                    }
                    Err(TooSoon { wait, .. }) => assert!(wait > Duration::ZERO, "seed {seed}"),
                }
            }
            let elapsed_s = (now - start).as_secs_f64();
            let most = |rate: &Rate| f64::from(rate.burst) + elapsed_s * rate.per_s + 0.01;
            assert!(f64::from(all) <= most(&rates.global), "seed {seed}: {all} with {rates:?}");
            for (client, count) in each {
                assert!(
                    f64::from(count) <= most(&rates.per_ip),
                    "seed {seed}: {count} of {client}, {rates:?}"
                );
            }
        }
    }
}
