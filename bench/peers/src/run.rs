//! The lifecycle of a peer: connect to Kafka, listen, serve until a signal.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Arguments;
use crate::channels::Channels;
use crate::feed;

const LISTEN_BACKLOG: i32 = 4096;
/// If a client acknowledges no data for this long, the kernel resets the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for lack of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Runs a peer; `serve` handles one connection.
pub fn run<S, F>(serve: S) -> anyhow::Result<()>
where
    S: Fn(TcpStream, Arc<Channels>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let consumer = feed::connect(&arguments)
            .with_context(|| format!("cannot read {} from {}", arguments.topic, arguments.brokers))?;
        let listener = listen(arguments.listen).with_context(|| {
            format!("cannot listen on {}: choose another with --listen", arguments.listen)
        })?;
        let channels = Arc::new(Channels::new(arguments.queue_events));
        let feed = feed::run(consumer, &channels);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            error = feed => Err(error).context("the consumer failed"),
            () = accept(&listener, &channels, serve) => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

async fn accept<S, F>(listener: &TcpListener, channels: &Arc<Channels>, serve: S)
where
    S: Fn(TcpStream, Arc<Channels>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(serve(socket, Arc::clone(channels)))),
            Err(error) => {
                eprintln!("accept: {error}: is `ulimit -n` above the connections?");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Accepted sockets inherit the options of the listener.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}
