use std::time::Duration;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn readings(shared: &SharedAddresses) -> (u64, u64) {
    let Readings { addresses, sessions_most } = shared.readings();
    (addresses, sessions_most)
}

#[test]
fn an_address_has_at_most_its_bound_of_sessions_and_a_place_given_back_is_free() {
    let (shared, now) = (SharedAddresses::default(), Instant::now());
    for _ in 0..3 {
        assert_eq!(shared.add_session(ip("192.0.2.1"), 3, now), Ok(()));
    }
    assert_eq!(shared.add_session(ip("192.0.2.1"), 3, now), Err(TooMany));
    assert_eq!(shared.add_session(ip("192.0.2.2"), 3, now), Ok(()), "another address");
    assert_eq!(shared.add_session(ip("192.0.2.1"), 0, now), Ok(()), "0 is no bound");
    assert_eq!(readings(&shared), (2, 4));
    shared.remove_session(ip("192.0.2.1"));
    shared.remove_session(ip("192.0.2.1"));
    assert_eq!(shared.add_session(ip("192.0.2.1"), 3, now), Ok(()));
    assert_eq!(readings(&shared), (2, 3));
}

#[test]
fn the_address_with_most_connections_without_a_session_is_known_and_of_several_the_one_that_came_first() {
    let (shared, now) = (SharedAddresses::default(), Instant::now());
    assert_eq!(shared.most_sessionless(), None);
    for (count, address) in ["192.0.2.9", "192.0.2.1", "192.0.2.5"].into_iter().enumerate() {
        shared.add_sessionless(ip(address), now + Duration::from_millis(count as u64));
    }
    assert_eq!(shared.most_sessionless(), Some((ip("192.0.2.9"), 1)));
    shared.add_sessionless(ip("192.0.2.5"), now);
    assert_eq!(shared.most_sessionless(), Some((ip("192.0.2.5"), 2)));
    shared.remove_sessionless(ip("192.0.2.5"));
    shared.remove_sessionless(ip("192.0.2.9"));
    assert_eq!(shared.most_sessionless(), Some((ip("192.0.2.1"), 1)));
    // It came back later than the others.
    shared.add_sessionless(ip("192.0.2.9"), now + Duration::from_secs(1));
    assert_eq!(shared.most_sessionless(), Some((ip("192.0.2.1"), 1)));
}

#[test]
fn an_address_without_a_connection_is_forgotten() {
    let (shared, now) = (SharedAddresses::default(), Instant::now());
    shared.add_sessionless(ip("192.0.2.1"), now);
    shared.add_session(ip("192.0.2.1"), 0, now).expect("no bound");
    shared.remove_sessionless(ip("192.0.2.1"));
    assert_eq!((readings(&shared), shared.most_sessionless()), ((1, 1), None));
    shared.remove_session(ip("192.0.2.1"));
    assert_eq!(readings(&shared), (0, 0));
    let table = shared.lock();
    assert!(table.each.is_empty() && table.sessionless.is_empty() && table.sessions.is_empty(), "{table:?}");
}

#[test]
fn proxies_and_the_own_host_are_exempt_and_a_64_of_ipv6_is_one_address() {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect(text));
    for (address, counts_for) in [
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("fd00::7", None),
        // Addresses of the own host, but none that its programs have by themselves.
        ("127.0.1.7", Some("127.0.1.7")),
        ("::ffff:192.0.2.1", Some("192.0.2.1")),
        ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
    ] {
        assert_eq!(counted(ip(address), &trusted), counts_for.map(ip), "{address}");
    }
}

#[test]
fn whatever_comes_and_goes_the_table_is_what_a_simple_count_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (shared, start) = (SharedAddresses::default(), Instant::now());
    let mut counted: BTreeMap<IpAddr, (u32, u32)> = BTreeMap::new();
    for step in 0..20_000 {
        let now = start + Duration::from_millis(step);
        let address = IpAddr::V4(Ipv4Addr::from_bits(random.u32(..30)));
        let (sessions, sessionless) = counted.entry(address).or_default();
        match random.u32(..4) {
            0 => {
                shared.add_sessionless(address, now);
                *sessionless += 1;
            }
            1 if *sessionless > 0 => {
                shared.remove_sessionless(address);
                *sessionless -= 1;
            }
            2 => *sessions += u32::from(shared.add_session(address, 5, now).is_ok()),
            3 if *sessions > 0 => {
                shared.remove_session(address);
                *sessions -= 1;
            }
            _ => {}
        }
        assert!(*sessions <= 5, "seed {seed}");
        let most_sessionless = counted
            .values()
            .map(|(_, sessionless)| *sessionless)
            .max()
            .filter(|sessionless| *sessionless > 0);
        assert_eq!(
            shared.most_sessionless().map(|(_, sessionless)| sessionless),
            most_sessionless,
            "seed {seed}, step {step}"
        );
        let most = counted.values().map(|(sessions, _)| u64::from(*sessions)).max().unwrap_or_default();
        let present = counted.values().filter(|it| **it != (0, 0)).count() as u64;
        assert_eq!(readings(&shared), (present, most), "seed {seed}, step {step}");
    }
}
