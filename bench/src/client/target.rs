//! The server's address: parses the URL, resolves the name once for all connections, and chooses source
//! addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use tungstenite::http::Uri;

/// Connections from one source address to one server: the ephemeral port range holds about 28,000 ports
/// (ip_local_port_range(7)), and some are in use.
const CONNECTIONS_PER_SOURCE_MAX: usize = 20_000;

/// A server's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port as in the URL.
    pub authority: String,
    /// Path with the query; `/` if the URL has none.
    pub path: String,
    /// Number of client addresses that sessions name in X-Forwarded-For in turn, as a proxy does; `None`
    /// omits the header.
    pub proxied: Option<u32>,
    host: String,
    port: u16,
}

/// Why a URL is not usable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("{0:?} is no URL: write ws://HOST:PORT/PATH, for example ws://127.0.0.1:3002/ws")]
    NotUrl(String),
    /// The URL requires TLS, which is not supported.
    #[error("wss:// is not supported: connect to the gateway's plain port, behind what terminates TLS")]
    Tls,
    /// The scheme is neither ws nor wss.
    #[error("the scheme {0:?} is not ws: write ws://HOST:PORT/PATH")]
    Scheme(String),
}

impl Target {
    /// Parses `ws://HOST[:PORT][/PATH]`.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let not_url = || TargetError::NotUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| not_url())?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(TargetError::Tls),
            Some(other) => return Err(TargetError::Scheme(other.to_owned())),
            None => return Err(not_url()),
        }
        let authority = uri.authority().ok_or_else(not_url)?;
        // `Uri` accepts any text as a port, and a user name.
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host).ok_or_else(not_url)?;
        let port = if port.is_empty() {
            Some(80)
        } else {
            port.strip_prefix(':').and_then(|port| port.parse().ok())
        };
        let port = port.filter(|port| *port > 0 && !host.is_empty()).ok_or_else(not_url)?;
        Ok(Self {
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            proxied: None,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
        })
    }

    /// The default health URL of the server.
    pub fn health_url(&self) -> String {
        format!("http://{}/health", self.authority)
    }

    /// The server's address. If the name has several, the first IPv4 address: a server with a plain `:port`
    /// is sure to listen there.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let chosen = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
        chosen.copied().ok_or_else(|| std::io::Error::other("the name has no address"))
    }
}

/// The local address of connection number `index`; `None` leaves the choice to the kernel. With an empty
/// `asked` it uses further addresses of 127.0.0.0/8 if one address has too few ports.
pub fn source(asked: &[IpAddr], server: SocketAddr, connections: usize, index: usize) -> Option<SocketAddr> {
    if !asked.is_empty() {
        return Some(SocketAddr::new(asked[index % asked.len()], 0));
    }
    let is_loopback = matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if !is_loopback || connections <= CONNECTIONS_PER_SOURCE_MAX {
        return None;
    }
    let number = (index / CONNECTIONS_PER_SOURCE_MAX) as u32 + 1;
    Some(SocketAddr::new(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + number).into(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("ws://localhost:3002/ws?a=b").expect("a URL");
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("localhost:3002", "/ws?a=b"));
        assert_eq!(target.health_url(), "http://localhost:3002/health");
        let target = Target::parse("ws://[::1]:7").expect("a URL");
        assert_eq!(
            (target.path.as_str(), target.resolve().expect("an address")),
            ("/", "[::1]:7".parse().expect("an address"))
        );
        assert_eq!(Target::parse("ws://10.0.0.1").expect("a URL").port, 80);
    }

    #[test]
    fn every_wrong_url_says_what_to_write() {
        assert_eq!(Target::parse("wss://h/ws"), Err(TargetError::Tls));
        assert_eq!(Target::parse("http://h/ws"), Err(TargetError::Scheme("http".to_owned())));
        for url in [
            "",
            "localhost",
            "127.0.0.1:3002",
            "/ws",
            "ws://",
            "ws:// x",
            "ws://h:port/",
            "ws://h:99999",
            "ws://h:0",
            "ws://h:",
            "ws://me@h:1",
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(error.to_string().contains("ws://HOST:PORT/PATH"), "{url}: {error}");
        }
    }

    #[test]
    fn many_connections_to_loopback_come_from_several_addresses() {
        let server = "127.0.0.1:3002".parse().expect("an address");
        assert_eq!(source(&[], server, 20_000, 19_999), None);
        let from = |index| source(&[], server, 50_000, index).map(|address| address.ip().to_string());
        assert_eq!(from(0).as_deref(), Some("127.0.0.1"));
        assert_eq!(from(19_999).as_deref(), Some("127.0.0.1"));
        assert_eq!(from(20_000).as_deref(), Some("127.0.0.2"));
        assert_eq!(from(49_999).as_deref(), Some("127.0.0.3"));
        assert_eq!(source(&[], "10.0.0.1:80".parse().expect("an address"), 50_000, 30_000), None);
        let asked = ["127.0.0.8".parse().expect("an address"), "127.0.0.9".parse().expect("an address")];
        assert_eq!(source(&asked, server, 4, 3).map(|address| address.ip()), Some(asked[1]));
    }
}
