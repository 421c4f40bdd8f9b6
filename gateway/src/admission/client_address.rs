//! The address of the client, if proxies are between the client and the gateway.
//!
//! A proxy appends the address of its peer to `X-Forwarded-For`. So the last address was written by the gateway's peer, the one
//! before it by the proxy before that, and so on. The list is read from its end, as far as trusted proxies wrote it; what a
//! client wrote itself is never used. Pure, for any bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address. IPv4 in the form of IPv6 is IPv4 here.
    pub client: IpAddr,
    /// An X-Forwarded-For header was ignored: the peer is not a trusted proxy, or the header has no valid address.
    pub is_header_ignored: bool,
}

impl Origin {
    /// Finds the client of a connection from `peer`. `forwarded_for` has its X-Forwarded-For lines, joined by commas.
    pub fn find(peer: IpAddr, forwarded_for: Option<&[u8]>, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let Some(list) = forwarded_for else { return Self { client: peer, is_header_ignored: false } };
        let ignored = Self { client: peer, is_header_ignored: true };
        if !is_trusted(&peer) {
            return ignored;
        }
        let mut client = peer;
        let items = list.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for item in items.filter(|item| !item.is_empty()) {
            let Some(address) = address(item) else { return ignored };
            client = address;
            if !is_trusted(&address) {
                break;
            }
        }
        Self { client, is_header_ignored: false }
    }
}

/// Parses `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:1234`.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|text| text.parse().expect(text)).into()
    }

    fn found(peer: &str, forwarded_for: &str) -> (String, bool) {
        let Origin { client, is_header_ignored } =
            Origin::find(ip(peer), Some(forwarded_for.as_bytes()), &trusted());
        (client.to_string(), is_header_ignored)
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        for (forwarded_for, client) in [
            ("198.51.100.7", "198.51.100.7"),
            ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
            ("198.51.100.7,10.1.2.3 , 192.0.2.1", "198.51.100.7"),
            ("not an address, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
            ("198.51.100.7:5678", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443, fd00::1", "2001:db8::7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("198.51.100.7,,\t,", "198.51.100.7"),
            // If all addresses are trusted proxies, the first is the client.
            ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
            ("", "10.0.0.1"),
            (" , ", "10.0.0.1"),
        ] {
            assert_eq!(found("10.0.0.1", forwarded_for), (client.to_owned(), false), "{forwarded_for:?}");
        }
        assert_eq!(found("::ffff:10.0.0.1", "198.51.100.7"), ("198.51.100.7".to_owned(), false));
        let without = Origin::find(ip("10.0.0.1"), None, &trusted());
        assert_eq!(without, Origin { client: ip("10.0.0.1"), is_header_ignored: false });
    }

    #[test]
    fn what_a_trusted_proxy_writes_that_is_no_address_makes_the_proxy_the_client() {
        for forwarded_for in [
            "unknown",
            "198.51.100.7, unknown",
            "198.51.100.7, \"10.0.0.2\"",
            "198.51.100.7:99999",
            "[198.51.100.7]",
            "[2001:db8::7",
            "2001:db8::7%eth0",
            "198.51.100.7 10.0.0.2",
            "198.51.100.07",
            "_hidden, 10.0.0.2",
        ] {
            assert_eq!(found("10.0.0.1", forwarded_for), ("10.0.0.1".to_owned(), true), "{forwarded_for:?}");
        }
    }

    #[test]
    fn a_header_of_anybody_else_is_ignored() {
        assert_eq!(found("198.51.100.9", "203.0.113.1"), ("198.51.100.9".to_owned(), true));
        assert_eq!(found("::ffff:198.51.100.9", "10.0.0.1"), ("198.51.100.9".to_owned(), true));
        let without = Origin::find(ip("198.51.100.9"), None, &trusted());
        assert_eq!(without, Origin { client: ip("198.51.100.9"), is_header_ignored: false });
        let nobody_trusted = Origin::find(ip("10.0.0.1"), Some(b"203.0.113.1"), &[]);
        assert_eq!(nobody_trusted, Origin { client: ip("10.0.0.1"), is_header_ignored: true });
    }

    /// Pieces of lists: addresses, ends of networks, and text that is neither.
    const PIECES: [&[u8]; 16] = [
        b"198.51.100.7",
        b"10.0.0.2",
        b"2001:db8::7",
        b"[fd00::2]:80",
        b"192.0.2.1:1",
        b"unknown",
        b",",
        b", ",
        b":",
        b"[",
        b"]",
        b"\xff\xfe",
        b"%",
        b"\"",
        b"",
        b"99999",
    ];

    #[test]
    fn no_bytes_panic_and_a_client_never_chooses_its_address() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (trusted, proxy, client) = (trusted(), ip("10.0.0.1"), ip("198.51.100.99"));
        for _ in 0..20_000 {
            let mut forged: Vec<u8> =
                (0..random.usize(..8)).flat_map(|_| PIECES[random.usize(..PIECES.len())]).copied().collect();
            if random.bool() {
                (0..random.usize(1..20)).for_each(|_| forged.push(random.u8(..)));
            }
            let direct = Origin::find(client, Some(&forged), &trusted);
            assert_eq!(direct, Origin { client, is_header_ignored: true }, "seed {seed}: {forged:?}");
            let _ = Origin::find(proxy, Some(&forged), &trusted);
            // Only what the trusted proxies append decides.
            let mut appended = forged.clone();
            appended.extend_from_slice(b", 198.51.100.99");
            for _ in 0..random.usize(..3) {
                appended.extend_from_slice(b",10.0.0.2");
            }
            let behind = Origin::find(proxy, Some(&appended), &trusted);
            assert_eq!(behind, Origin { client, is_header_ignored: false }, "seed {seed}: {forged:?}");
        }
    }
}
