//! Listening sockets. The options are set once on the listener; Linux copies them to every socket that it accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// TCP options of a session's socket, and of the listener that it comes from.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_SNDBUF, bytes. Without a bound the kernel buffers up to 4 MiB for a stalled peer (tcp(7), `tcp_wmem`). The kernel
    /// doubles the value for its own bookkeeping (socket(7)).
    pub send_buffer_bytes: usize,
    /// TCP_NOTSENT_LOWAT, bytes: POLLOUT fires only when fewer bytes are unsent.
    pub unsent_low_water_bytes: u32,
    /// SO_KEEPALIVE probes begin after this much silence.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT: bytes unacknowledged for this long end the connection.
    pub user_timeout: Duration,
    /// SO_REUSEPORT of the listener: other listeners with the option may use the same address, and the kernel distributes
    /// connections over them by a hash of the peer's address (socket(7)). Any process of the same user can join.
    pub reuse_port: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            send_buffer_bytes: 128 * 1024,
            unsent_low_water_bytes: 64 * 1024,
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(30),
            reuse_port: false,
        }
    }
}

/// Binds and listens. An IPv6 wildcard address also accepts IPv4.
///
/// # Errors
/// Those of socket(2), bind(2) (EADDRINUSE, EACCES) and listen(2).
pub fn listen(address: SocketAddr, backlog: u32, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted server must not wait for the TIME_WAIT of its predecessor's sessions.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    apply(&SockRef::from(&socket), options)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    Ok(socket.into())
}

fn apply(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    socket.set_tcp_notsent_lowat(options.unsent_low_water_bytes)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(options.keepalive))?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    fn bind(port: u16, reuse_port: bool) -> io::Result<TcpListener> {
        listen(
            (Ipv4Addr::LOCALHOST, port).into(),
            64,
            &SocketOptions { reuse_port, ..SocketOptions::default() },
        )
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("bound").port()
    }

    #[test]
    fn two_listeners_share_a_port_only_if_both_ask_for_it() {
        for (first, second) in [(false, false), (false, true), (true, false)] {
            let listener = bind(0, first).expect("a free port");
            let refused = bind(port(&listener), second).expect_err("the port is taken");
            assert_eq!(refused.kind(), ErrorKind::AddrInUse, "{first} {second}");
        }
        let listener = bind(0, true).expect("a free port");
        bind(port(&listener), true).expect("a shared port");
    }

    #[test]
    fn each_connection_comes_to_one_of_the_listeners_that_share_its_port() {
        let first = bind(0, true).expect("a free port");
        let shared = port(&first);
        let [second, third] = [(); 2].map(|()| bind(shared, true).expect("a shared port"));
        let listeners = [first, second, third];
        let clients: Vec<_> =
            (0..60).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, shared)).expect("a listener")).collect();
        let mut counts = Vec::new();
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a socket");
            counts.push(std::iter::from_fn(|| listener.accept().ok()).count());
        }
        assert_eq!(counts.iter().sum::<usize>(), clients.len(), "{counts:?}");
        // By a hash of the client's port: the odds that one of the listeners gets all of 60 are 3 in 3^60.
        assert!(counts.iter().all(|&count| count < clients.len()), "{counts:?}");
    }
}
