//! The broadcaster on tokio-tungstenite: one task per session, woken by its channel; it takes all queued
//! events and flushes once.
//!
//! Settings: a read buffer of 4 KiB, as the library's documentation advises for many connections; the write
//! buffer stays at 128 KiB (it grows only when used), so that all queued frames leave in one write.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use peers::channels::{Channels, Subscriptions};
use peers::{MESSAGE_BYTES_MAX, PING_INTERVAL, QUIET_PINGS_MAX, commands};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEALTH_REQUEST: &[u8] = b"GET /health";
const HEALTH_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"status\":\"healthy\"}";
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    peers::run::run(|socket, channels| async move {
        // The client sees how a session ends; the peer logs nothing.
        let _ = serve(socket, channels).await;
    })
}

async fn serve(mut socket: TcpStream, channels: Arc<Channels>) -> Result<(), Error> {
    let handshake = async {
        if asks_for_health(&socket).await? {
            socket.write_all(HEALTH_ANSWER).await?;
            return Ok(None);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        accept_async_with_config(socket, Some(config)).await.map(Some)
    };
    match timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(Some(mut session))) => live(&mut session, Subscriptions::new(channels)).await,
        Ok(outcome) => outcome.map(drop),
        Err(_) => Ok(()),
    }
}

async fn live(
    session: &mut WebSocketStream<TcpStream>,
    mut subscriptions: Subscriptions,
) -> Result<(), Error> {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut quiet_pings = 0;
    loop {
        tokio::select! {
            biased;
            event = subscriptions.next() => {
                let mut next = event.map(Some);
                loop {
                    next = match next {
                        Ok(Some(event)) => {
                            session.feed(Message::Text(event)).await?;
                            subscriptions.next_ready()
                        }
                        Ok(None) => break,
                        Err(lagged) => return close(session, CloseCode::Policy, lagged.to_string()).await,
                    };
                }
                session.flush().await?;
            }
            message = session.next() => {
                quiet_pings = 0;
                match message {
                    Some(Ok(Message::Text(text))) => {
                        let answer = commands::answer(&text, &mut subscriptions);
                        session.send(Message::text(answer)).await?;
                    }
                    // The library answers pings and closes; its answer leaves with the next read or write.
                    Some(Ok(_)) => session.flush().await?,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                }
            }
            _ = ping.tick() => {
                quiet_pings += 1;
                if quiet_pings > QUIET_PINGS_MAX {
                    return Ok(());
                }
                session.send(Message::Ping(Default::default())).await?;
            }
        }
    }
}

async fn close(
    session: &mut WebSocketStream<TcpStream>,
    code: CloseCode,
    reason: String,
) -> Result<(), Error> {
    session.close(Some(CloseFrame { code, reason: Utf8Bytes::from(reason) })).await
}

/// Peeks at the first bytes of the request without consuming them: the library answers upgrades only. A
/// client that sends fewer bytes is not a health check.
async fn asks_for_health(socket: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; HEALTH_REQUEST.len()];
    socket.peek(&mut begin).await?;
    Ok(begin == HEALTH_REQUEST)
}
