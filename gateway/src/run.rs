//! The life of the process between its configuration and its exit code: threads up, signals awaited, threads down.
//!
//! Lives on the main thread, which afterwards only waits for signals and samples the process's CPU and memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};
use wire::{SocketOptions, Waker};

use crate::config::Config;
use crate::dev::Dev;
use crate::ingest::control::Control;
use crate::shard::{self, Setup};
use crate::shared::Shared;
use crate::{limits, placement};

/// How long a shard may take to set its ring up.
const SHARD_START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the main thread looks whether a shard has ended.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Serves until SIGTERM or SIGINT; a second one exits at once.
///
/// # Errors
/// The port is taken, a thread or a ring cannot be made, or a shard failed.
pub fn run(mut config: Config) -> anyhow::Result<()> {
    // Before any other thread, so that none of them takes the signals.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let cpus = place(&config)?;
    let listener = listen(&config)?;
    let address = listener.local_addr()?;
    let mut dev = if config.dev { Some(Dev::start(&mut config)?) } else { None };
    let shared = Arc::new(Shared::new(config.shards.count, dev.as_ref().map(Dev::brokers)));
    let config = Arc::new(config);
    let control = Control::start(config.kafka.clone(), config.history.warmup, Arc::clone(&shared.kafka))?;
    let (shard, waker) = start_shard(&config, &shared, listener, cpus.first().copied(), &control)?;
    if let Some(dev) = &mut dev {
        dev.simulate(config.dev_event_rate)?;
        banner(&config, address, &dev.brokers());
    }
    info!(version = env!("CARGO_PKG_VERSION"), %address, "serving");
    let result = watch(&mut signals, &shared, shard, &waker, config.metrics_interval);
    control.stop(limits::CONTROL_STOP_TIMEOUT);
    drop(dev);
    if result.is_ok() {
        info!("stopped");
    }
    result
}

/// Chooses each shard's CPU and keeps every other thread off it: all of them are started by this one. Without pinning,
/// nothing.
fn place(config: &Config) -> anyhow::Result<Vec<usize>> {
    if !config.shards.pinning {
        return Ok(Vec::new());
    }
    let allowed = placement::allowed_cpus();
    let cpus = placement::choose(&allowed, config.shards.count)?;
    placement::leave_to_shards(&allowed, &cpus)
        .context("the other threads could not be kept off the shards' CPUs")?;
    Ok(cpus)
}

fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let options =
        SocketOptions { send_buffer_bytes: config.listen.socket_send_bytes, ..SocketOptions::default() };
    let address = config.listen.address;
    let listened = match wire::listen(address, config.listen.backlog, &options) {
        // `[::]` is "every interface"; where IPv6 is switched off, that is IPv4's.
        Err(error) if address.ip().is_unspecified() && error.raw_os_error() == Some(EAFNOSUPPORT) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            wire::listen(address, config.listen.backlog, &options)
        }
        listened => listened,
    };
    listened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow!(
            "WS_ADDR={address}: the port is taken; stop the program that listens there \
             (`ss -ltnp 'sport = :{port}'` names it) or choose another port",
            port = address.port()
        ),
        std::io::ErrorKind::PermissionDenied => anyhow!(
            "WS_ADDR={address}: {error}; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher port"
        ),
        _ => anyhow!("WS_ADDR={address}: {error}"),
    })
}

/// Linux's number; std has no `ErrorKind` for it.
const EAFNOSUPPORT: i32 = 97;

type ShardThread = JoinHandle<anyhow::Result<()>>;

fn start_shard(
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    listener: TcpListener,
    cpu: Option<usize>,
    control: &Control,
) -> anyhow::Result<(ShardThread, Waker)> {
    let (wakers, woken) = channel();
    let thread = shard::start(Setup {
        config: Arc::clone(config),
        shard: 0,
        cpu,
        shared: Arc::clone(shared),
        listener,
        control: control.requests(),
        wakers,
    })?;
    match woken.recv_timeout(SHARD_START_TIMEOUT) {
        Ok(waker) => Ok((thread, waker)),
        Err(_) if thread.is_finished() => {
            Err(ended(thread).err().unwrap_or_else(|| anyhow!("the shard ended at once")))
        }
        Err(_) => bail!("the shard did not start within {} s", SHARD_START_TIMEOUT.as_secs()),
    }
}

/// Waits for a signal, then for the shard to end.
fn watch(
    signals: &mut Signals,
    shared: &Shared,
    shard: ShardThread,
    waker: &Waker,
    metrics_interval: Duration,
) -> anyhow::Result<()> {
    let mut sample_at = Instant::now();
    while !shard.is_finished() {
        for signal in signals.pending() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            if shared.stop.swap(true, Ordering::AcqRel) {
                warn!(signal = name, "the second signal: exiting at once");
                std::process::exit(1);
            }
            info!(signal = name, "stopping");
            waker.wake();
        }
        if Instant::now() >= sample_at {
            sample_at = Instant::now() + metrics_interval.min(limits::SNAPSHOT_INTERVAL);
            shared.vitals.sample();
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
    let ended = ended(shard);
    if let Err(error) = &ended {
        error!(%error, "the shard failed");
    }
    ended.context("a shard failed, and there is no half-alive gateway")
}

fn ended(shard: ShardThread) -> anyhow::Result<()> {
    shard.join().unwrap_or_else(|_| Err(anyhow!("a shard panicked")))
}

fn banner(config: &Config, address: SocketAddr, brokers: &str) {
    let port = address.port();
    println!(
        "\n  odin-gateway --dev: {rate} simulated events/s through an embedded Kafka\n\n  \
         console    http://localhost:{port}/\n  \
         websocket  ws://localhost:{port}/ws\n  \
         health     http://localhost:{port}/health\n  \
         metrics    http://localhost:{port}/metrics\n  \
         kafka      {brokers}\n\n  \
         try        websocat ws://localhost:{port}/ws <<< '{{\"type\":\"subscribe\",\"data\":{{\"channels\":[\"*.trade\"]}}}}'\n",
        rate = config.dev_event_rate,
    );
}
