//! Whose connection it is: `X-Forwarded-For` as anybody may write it. The first byte chooses the peer.
#![no_main]

use std::net::IpAddr;

use fuzz::admission::client_address::Origin;
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

const PEERS: [&str; 5] = ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "198.51.100.1", "2001:db8::1"];
const TRUSTED: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"];

fuzz_target!(|data: &[u8]| {
    let Some((choice, header)) = fuzz::choice(data) else { return };
    let peer: IpAddr = PEERS[usize::from(choice) % PEERS.len()].parse().expect("an address");
    let trusted: Vec<IpNet> = TRUSTED.map(|network| network.parse().expect("a network")).into();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let find = |header: &[u8]| Origin::find(peer, Some(header), &trusted);
    let canonical = peer.to_canonical();
    let found = find(header);
    assert_eq!(found.client, found.client.to_canonical());
    assert_eq!(Origin::find(peer, Some(header), &[]), Origin { client: canonical, is_header_ignored: true });

    // Whoever is no proxy decides nothing, whatever it writes.
    if !is_trusted(&canonical) {
        assert_eq!(found, Origin { client: canonical, is_header_ignored: true });
        return;
    }
    if found.is_header_ignored {
        assert_eq!(found.client, canonical);
    } else if found.client != canonical {
        // It stands in the header, and what stands behind it are proxies.
        let items =
            || header.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
        let only = |item: &[u8]| Origin::find(peer, Some(item), &trusted);
        let index = items().position(|item| only(item) == found).expect("one of the items");
        for item in items().take(index) {
            let proxy = only(item);
            assert!(!proxy.is_header_ignored && is_trusted(&proxy.client));
        }
    }

    // What a proxy appends decides, whatever stands before it; more proxies behind that one change nothing.
    for (client, written) in [
        ("198.51.100.9", ",198.51.100.9"),
        ("198.51.100.9", ", 198.51.100.9:4711 , 10.9.9.9, fd00::9"),
        ("2001:db8::9", ",[2001:db8::9]:1,, ::ffff:10.0.0.2"),
    ] {
        let appended = [header, written.as_bytes()].concat();
        let client = client.parse().expect("an address");
        assert_eq!(find(&appended), Origin { client, is_header_ignored: false });
    }
    for written in [",unknown", ", 10.0.0.300,10.0.0.2", ",198.51.100.9 10.0.0.2"] {
        let appended = [header, written.as_bytes()].concat();
        assert_eq!(find(&appended), Origin { client: canonical, is_header_ignored: true });
    }
});
