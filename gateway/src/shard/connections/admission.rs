//! Decides whether a valid upgrade becomes a session or is refused with a reason.
//!
//! The checks are ordered by cost and by how long they stay true: the gateway drains; the sessions of the client's address; the
//! rates of new connections; the gateway's room; its load. Plain HTTP is not checked here: health checks and scrapes always come
//! from the same address.
//!
//! A refused client gets an HTTP status or, with `WS_REFUSE=close`, a completed handshake followed by a close. That is not a
//! session either: nothing is stored for it, and its connection ends with these bytes.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::debug;
use wire::SocketId;

use super::Connections;
use crate::admission::addresses;
use crate::admission::client_address::Origin;
use crate::config::Refuse;
use crate::counters::Refusal;
use crate::limits;
use crate::shard::sessions::table::ConnectionState;
use crate::websocket::close;
use crate::websocket::{Inbound, refusal_response};
use protocol::framing;

/// The reason of a refusal, as the client learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    reason: Refusal,
    status: u16,
    /// At most [`framing::CLOSE_REASON_BYTES_MAX`], so that a close frame carries all of it.
    message: String,
    retry_after_s: u64,
}

impl Connections {
    /// Makes a session of a connection whose handshake is valid, or refuses it.
    pub(crate) fn upgrade(
        &mut self,
        socket: SocketId,
        response: &[u8],
        forwarded_for: Option<&[u8]>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.find(socket) else { return };
        let peer = session.cold.peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
        let Origin { client, is_header_ignored } =
            Origin::find(peer, forwarded_for, &self.admission.trusted_proxies);
        session.cold.client = Some(client);
        self.counters.forwarded_headers_ignored += u64::from(is_header_ignored);
        match self.admit(client, now) {
            Ok(address) => self.open(socket, response, address, now),
            Err(refused) => {
                debug!(reason = refused.reason.text(), %peer, %client, "a session was refused");
                let farewell = match self.admission.refuse {
                    Refuse::Http => refused.response(),
                    Refuse::Close => [response, &refused.close()].concat(),
                };
                self.refuse(socket, refused.reason, farewell, now);
            }
        }
    }

    /// Decides whether one more session is accepted; then it has its place, and counts for this address (`None`: exempt).
    fn admit(&self, client: IpAddr, now: Instant) -> Result<Option<IpAddr>, Refused> {
        if self.is_draining() {
            return Err(Refused::draining());
        }
        let address = addresses::counted(client, &self.admission.trusted_proxies);
        if let Some(address) = address {
            let most = self.admission.connections_per_ip;
            let added = self.shared.addresses.add_session(address, most, now);
            added.map_err(|_| Refused::too_many(most))?;
        }
        self.admit_counted(client, now).inspect_err(|_| {
            if let Some(address) = address {
                self.shared.addresses.remove_session(address);
            }
        })?;
        Ok(address)
    }

    /// The same after the session's address has accepted it.
    fn admit_counted(&self, client: IpAddr, now: Instant) -> Result<(), Refused> {
        if let Some(rates) = &self.admission.rates {
            let taken = self.shared.connection_rates.take(rates, client, now);
            taken.map_err(|it| Refused::too_soon(it.reason, it.wait))?;
        }
        let sessions = &self.shared.sessions;
        let others = sessions.fetch_add(1, Ordering::Relaxed);
        let refused = if others >= self.connections_max {
            Some(Refused::full(self.connections_max))
        } else {
            self.shared.overload.refusal().map(Refused::overloaded)
        };
        refused.map_or(Ok(()), |refused| {
            sessions.fetch_sub(1, Ordering::Relaxed);
            Err(refused)
        })
    }

    fn open(&mut self, socket: SocketId, response: &[u8], address: Option<IpAddr>, now: Instant) {
        let session = self.sessions.find(socket).expect("it was there to be admitted");
        self.slots.opened(session);
        session.cold.session_address = address;
        session.cold.state =
            ConnectionState::Open(Inbound::new(self.message_bytes_max, limits::FRAGMENTS_PER_MESSAGE));
        session.cold.stage_since = now;
        session.cold.pinged_at = now;
        session
            .outbox
            .push_control(&self.outbox_limits, |out| out.extend_from_slice(response))
            .expect("it is empty");
        self.egress.enqueue(session);
        self.counters.sessions_opened += 1;
        self.counters.sessions += 1;
    }
}

impl Refused {
    pub(crate) fn draining() -> Self {
        let message = "the gateway is draining: connect again, to another one if you choose".to_owned();
        Self::new(Refusal::Draining, 503, limits::RETRY_AFTER_DRAINING, message)
    }

    fn too_soon(reason: Refusal, wait: Duration) -> Self {
        let what = match reason {
            Refusal::IpRate => "from this address (CONN_RATE_LIMIT_IP_*)",
            _ => "(CONN_RATE_LIMIT_GLOBAL_*)",
        };
        let wait_s = whole_seconds(wait);
        let message =
            format!("too many new connections {what}: connect again in {wait_s} s, after a random delay");
        Self::new(reason, 429, wait, message)
    }

    fn too_many(connections_per_ip: usize) -> Self {
        let message = format!(
            "this address has {connections_per_ip} connections (WS_MAX_CONNECTIONS_PER_IP): close some and connect again"
        );
        Self::new(Refusal::IpConnections, 429, limits::RETRY_AFTER_FULL, message)
    }

    fn full(connections_max: usize) -> Self {
        let message =
            format!("all {connections_max} connections are taken (WS_MAX_CONNECTIONS): try again later");
        Self::new(Refusal::MaxConnections, 503, limits::RETRY_AFTER_FULL, message)
    }

    fn overloaded(reason: Refusal) -> Self {
        let what = match reason {
            Refusal::MemoryLimit => "no memory (WS_MEMORY_LIMIT)",
            _ => "no CPU (WS_CPU_REJECT_THRESHOLD)",
        };
        let message = format!("the gateway has {what} for more sessions: try again after a random delay");
        Self::new(reason, 503, limits::RETRY_AFTER_OVERLOAD, message)
    }

    fn new(reason: Refusal, status: u16, retry_after: Duration, message: String) -> Self {
        Self { reason, status, message, retry_after_s: whole_seconds(retry_after) }
    }

    /// The response instead of the handshake's.
    pub(crate) fn response(&self) -> Vec<u8> {
        let retry_after = self.retry_after_s.to_string();
        let headers = &[("Retry-After", retry_after.as_str())];
        refusal_response(self.status, self.reason.text(), &self.message, headers)
    }

    /// The close frame behind the handshake's response.
    fn close(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        framing::close(&mut frame, close::TRY_AGAIN_LATER, &self.message);
        frame
    }
}

/// A client that retries earlier is refused again. A wait is rounded up, except for the nanosecond that a bucket adds, which
/// would become another second.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_micros().div_ceil(1_000_000).max(1) as u64
}

#[cfg(test)]
#[path = "tests/admission.rs"]
mod tests;
