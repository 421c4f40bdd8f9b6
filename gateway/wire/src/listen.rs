//! Listening sockets. The options are set once on the listener; Linux copies them to every socket that it accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// TCP options of a session's socket.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_SNDBUF, bytes. Without a bound the kernel swallows up to 4 MiB for a stalled peer (tcp(7), `tcp_wmem`). The
    /// kernel doubles the value for its own bookkeeping (socket(7)).
    pub send_buffer_bytes: usize,
    /// TCP_NOTSENT_LOWAT, bytes: POLLOUT fires only when less than this waits unsent.
    pub unsent_low_water_bytes: u32,
    /// SO_KEEPALIVE probes begin after this much silence.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT: bytes unacknowledged for this long end the connection.
    pub user_timeout: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            send_buffer_bytes: 128 * 1024,
            unsent_low_water_bytes: 64 * 1024,
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(30),
        }
    }
}

/// Binds and listens. With an IPv6 wildcard address it takes IPv4 as well.
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
