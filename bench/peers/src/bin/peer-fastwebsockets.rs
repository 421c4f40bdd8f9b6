//! The broadcaster on fastwebsockets (with hyper for the upgrade, as in the library): each session has a task
//! that reads and a task that writes. The channel wakes the writer, which takes all queued events and flushes
//! once.
//!
//! Settings: payloads are borrowed from the shared event. After the upgrade the plain TCP stream is used
//! instead of hyper's boxed one. The library writes each frame separately; a `BufWriter` combines the queued
//! frames into one write, and vectored writes put header and payload directly into it (the library's own
//! buffer would be a second copy).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite,
    after_handshake_split, upgrade,
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use peers::channels::{Channels, Subscriptions};
use peers::{MESSAGE_BYTES_MAX, PING_INTERVAL, QUIET_PINGS_MAX, commands};
use tokio::io::BufWriter;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Client messages that are queued for the writer; at this limit the reader waits.
const INBOUND_MAX: usize = 4;
const CODE_POLICY: u16 = 1008;

type Writer = WebSocketWrite<BufWriter<OwnedWriteHalf>>;

/// A message from the reader to the writer.
enum Inbound {
    Text(String),
    /// A pong, or the answer to a close.
    Owed(Frame<'static>),
    /// Any other message: the client is alive.
    Other,
}

fn main() -> anyhow::Result<()> {
    peers::run::run(|socket, channels| async move {
        let service = service_fn(move |request| respond(request, Arc::clone(&channels)));
        // The client sees how a session ends; the peer logs nothing.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIME_MAX)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await;
    })
}

async fn respond(
    mut request: Request<Incoming>,
    channels: Arc<Channels>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/health" {
        return Ok(Response::new(Full::from(r#"{"status":"healthy"}"#)));
    }
    match upgrade::upgrade(&mut request) {
        Ok((response, upgraded)) => {
            tokio::spawn(async move {
                let _ = serve(upgraded, channels).await;
            });
            Ok(response.map(|_| Full::default()))
        }
        Err(error) => {
            let mut response = Response::new(Full::from(error.to_string()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok(response)
        }
    }
}

async fn serve(upgraded: upgrade::UpgradeFut, channels: Arc<Channels>) -> Result<(), WebSocketError> {
    let upgraded = upgraded.await?.into_inner().into_inner();
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("what was served is a TCP stream");
    if !parts.read_buf.is_empty() {
        // A client may not send frames before the upgrade.
        return Ok(());
    }
    let (read, write) = parts.io.into_inner().into_split();
    let (mut reader, mut writer) = after_handshake_split(read, BufWriter::new(write), Role::Server);
    reader.set_max_message_size(MESSAGE_BYTES_MAX);
    writer.set_writev_threshold(0);
    let (to_writer, inbound) = mpsc::channel(INBOUND_MAX);
    let reading = tokio::spawn(read_all(reader, to_writer));
    let result = write_all(writer, inbound, Subscriptions::new(channels)).await;
    reading.abort();
    result
}

/// Ends with the connection, which also ends the writer.
async fn read_all(reader: WebSocketRead<OwnedReadHalf>, to_writer: mpsc::Sender<Inbound>) {
    let mut reader = FragmentCollectorRead::new(reader);
    let mut send_owed = |frame: Frame<'static>| {
        let to_writer = to_writer.clone();
        async move { to_writer.send(Inbound::Owed(frame)).await }
    };
    while let Ok(frame) = reader.read_frame(&mut send_owed).await {
        let inbound = match frame.opcode {
            OpCode::Text => Inbound::Text(String::from_utf8_lossy(&frame.payload).into_owned()),
            OpCode::Close => return,
            _ => Inbound::Other,
        };
        if to_writer.send(inbound).await.is_err() {
            return;
        }
    }
}

async fn write_all(
    mut writer: Writer,
    mut inbound: mpsc::Receiver<Inbound>,
    mut subscriptions: Subscriptions,
) -> Result<(), WebSocketError> {
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
                            writer.write_frame(Frame::text(Payload::Borrowed(event.as_bytes()))).await?;
                            subscriptions.next_ready()
                        }
                        Ok(None) => break,
                        Err(lagged) => {
                            let reason = lagged.to_string();
                            writer.write_frame(Frame::close(CODE_POLICY, reason.as_bytes())).await?;
                            return writer.flush().await;
                        }
                    };
                }
            }
            message = inbound.recv() => {
                quiet_pings = 0;
                match message {
                    Some(Inbound::Text(text)) => {
                        let answer = commands::answer(&text, &mut subscriptions);
                        writer.write_frame(Frame::text(Payload::Borrowed(answer.as_bytes()))).await?;
                    }
                    Some(Inbound::Owed(frame)) => writer.write_frame(frame).await?,
                    Some(Inbound::Other) => continue,
                    None => return Ok(()),
                }
            }
            _ = ping.tick() => {
                quiet_pings += 1;
                if quiet_pings > QUIET_PINGS_MAX {
                    return Ok(());
                }
                writer.write_frame(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b""))).await?;
            }
        }
        writer.flush().await?;
    }
}
