//! The life of the process between its configuration and its exit code: starts the threads, waits for signals, stops the threads.
//!
//! Runs on the main thread, which then only waits for signals, takes readings and renders the pages.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tracing::{error, info, warn};
use wire::SocketOptions;

use crate::config::Config;
use crate::dev::Dev;
use crate::http::{Http, Renderer, SharedPages};
use crate::kafka::control::Control;
use crate::kafka::replay::Replay;
use crate::monitor::overload::OverloadMonitor;
use crate::monitor::shards::ShardMonitor;
use crate::process::placement::{self, PlacementError};
use crate::process::signals::Signals;
use crate::shard::mesh::Mesh;
use crate::shard::{self, Setup};
use crate::shared::Shared;
use crate::{limits, log};

/// Time that a shard may take to set up its ring: milliseconds, but longer on a machine that starts many programs at once.
const SHARD_START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the main thread checks whether a shard has ended.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Serves until a signal requests the end, then drains; a second signal exits at once.
///
/// # Errors
/// The port is taken, a thread or a ring cannot be made, or a shard failed.
pub fn run(mut config: Config, signals: Signals) -> anyhow::Result<()> {
    let cpus = place(&config)?;
    let listeners = listen(&config)?;
    let address = listeners[0].local_addr()?;
    let mut dev = if config.dev { Some(Dev::start(&mut config)?) } else { None };
    let shared = Arc::new(Shared::new(config.shards.count, dev.as_ref().map(Dev::brokers)));
    let config = Arc::new(config);
    shared.kafka.observe(thread::current());
    let pages = Arc::new(SharedPages::default());
    let http = Http::new(&config, Arc::clone(&pages));
    let pages = Renderer::new(Arc::clone(&config), Arc::clone(&shared), pages, Instant::now());
    let mut front = MainThread { signals, pages, config: Arc::clone(&config), shared: Arc::clone(&shared) };
    // Shards serve the pages as soon as they accept.
    front.tick();
    let control = Control::start(config.kafka.clone(), config.history.warmup, Arc::clone(&shared.kafka))?;
    let replay = Replay::start(
        config.kafka.clone(),
        config.session.record_bytes_max,
        config.shards.count,
        config.resume.age_max,
        &shared.kafka,
    )?;
    shared.replay.set(replay.sender()).expect("it is started once");
    let shards = start_shards(&mut front, &http, listeners, &cpus, &control, &replay)?;
    if let Some(dev) = &mut dev {
        dev.simulate(config.dev_event_rate)?;
        banner(&config, address, &dev.brokers());
    }
    info!(version = env!("CARGO_PKG_VERSION"), %address, shards = config.shards.count, "serving");
    let result = watch(&mut front, shards);
    replay.stop(limits::CONTROL_STOP_TIMEOUT);
    control.stop(limits::CONTROL_STOP_TIMEOUT);
    drop(dev);
    if result.is_ok() {
        info!("stopped");
    }
    result
}

/// Chooses each shard's CPU and keeps all other threads off it, because this thread starts all of them. Does nothing without
/// pinning.
fn place(config: &Config) -> anyhow::Result<Vec<usize>> {
    let cpus = choose_cpus(config)?;
    if cpus.is_empty() {
        return Ok(cpus);
    }
    let allowed = placement::allowed_cpus();
    placement::leave_to_shards(&allowed, &cpus)
        .context("the other threads could not be kept off the shards' CPUs")?;
    Ok(cpus)
}

/// Each shard's CPU; none without pinning.
///
/// # Errors
/// There are fewer CPUs than shards.
pub fn choose_cpus(config: &Config) -> Result<Vec<usize>, PlacementError> {
    if !config.shards.pinning {
        return Ok(Vec::new());
    }
    placement::choose(&placement::allowed_cpus(), config.shards.count)
}

/// A listener for each shard, all at one address: the kernel spreads connections by a hash of the peer's address.
pub(crate) fn listen(config: &Config) -> anyhow::Result<Vec<TcpListener>> {
    let mut address = config.listen.address;
    let reuse_port = config.shards.count > 1;
    if reuse_port {
        // Any process of the same user can join a SO_REUSEPORT group, so the gateway first binds without it: a second gateway
        // then fails instead of taking half of the connections.
        listen_at(config, address, false)?;
    }
    let mut listeners = Vec::new();
    for _ in 0..config.shards.count {
        let listener = listen_at(config, address, reuse_port)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen_at(config: &Config, address: SocketAddr, reuse_port: bool) -> anyhow::Result<TcpListener> {
    let send_buffer_bytes = config.listen.socket_send_bytes;
    let options = SocketOptions { send_buffer_bytes, reuse_port, ..SocketOptions::default() };
    let listened = match listen_when_free(address, config.listen.backlog, &options) {
        // `[::]` means every interface; where IPv6 is switched off, every interface of IPv4.
        Err(error) if address.ip().is_unspecified() && error.raw_os_error() == Some(EAFNOSUPPORT) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            wire::listen(address, config.listen.backlog, &options)
        }
        listened => listened,
    };
    listened.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "WS_ADDR={address}: the port is taken; stop the program that listens there \
             (`ss -ltnp 'sport = :{port}'` names it) or choose another port",
            port = address.port()
        ),
        io::ErrorKind::PermissionDenied => anyhow!(
            "WS_ADDR={address}: {error}; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!(
                "WS_ADDR={address}: this machine has no address {} (`ip -br addr` lists them)",
                address.ip()
            )
        }
        _ => anyhow!("WS_ADDR={address}: {error}"),
    })
}

/// Waits a moment for a port that is taken: the kernel closes the listening sockets of a killed process only when its io_uring
/// rings are gone, after its parent has learned of its end (liburing issue 1627).
fn listen_when_free(address: SocketAddr, backlog: u32, options: &SocketOptions) -> io::Result<TcpListener> {
    let deadline = Instant::now() + limits::PORT_PATIENCE;
    loop {
        match wire::listen(address, backlog, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(limits::PORT_RETRY_INTERVAL);
            }
            listened => return listened,
        }
    }
}

/// Linux's number; std has no `ErrorKind` for it.
const EAFNOSUPPORT: i32 = 97;

type ShardThread = JoinHandle<anyhow::Result<()>>;

/// Starts all shards and waits until they have started.
fn start_shards(
    front: &mut MainThread,
    http: &Http,
    listeners: Vec<TcpListener>,
    cpus: &[usize],
    control: &Control,
    replay: &Replay,
) -> anyhow::Result<Vec<ShardThread>> {
    let (started, starts) = channel();
    let (config, shared) = (Arc::clone(&front.config), Arc::clone(&front.shared));
    let meshes = Mesh::connect(config.shards.count, limits::MESH_NEWS, limits::MESH_REQUESTS);
    let mut threads = Vec::new();
    for (shard, (listener, mesh)) in listeners.into_iter().zip(meshes).enumerate() {
        threads.push(shard::start(Setup {
            config: Arc::clone(&config),
            shard,
            cpu: cpus.get(shard).copied(),
            shared: Arc::clone(&shared),
            http: http.clone(),
            listener,
            mesh,
            control: control.requests(),
            replay: replay.sender(),
            started: started.clone(),
        })?);
    }
    let deadline = Instant::now() + SHARD_START_TIMEOUT;
    for _ in 0..threads.len() {
        while starts.recv_timeout(WATCH_INTERVAL).is_err() {
            front.tick();
            if let Some(shard) = threads.iter().position(JoinHandle::is_finished) {
                ended(shard, threads.swap_remove(shard))?;
                bail!("shard {shard} ended at once");
            }
            if Instant::now() >= deadline {
                bail!("the shards did not start within {} s", SHARD_START_TIMEOUT.as_secs());
            }
        }
    }
    Ok(threads)
}

/// The main thread's share of the process: signals, pages, and what they need.
struct MainThread {
    signals: Signals,
    pages: Renderer,
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl MainThread {
    /// Handles signals, and renders pages that are due.
    fn tick(&mut self) {
        for signal in self.signals.ending() {
            self.end(signal);
        }
        self.pages.refresh(Instant::now());
    }

    fn end(&mut self, signal: &str) {
        if self.shared.drain.has_begun() {
            warn!(signal, "the second signal: exiting at once");
            log::flush();
            std::process::exit(1);
        }
        self.pages.begin_drain(Instant::now());
        self.shared.drain.begin();
        let sessions = self.shared.sessions.load(Ordering::Relaxed);
        info!(signal, sessions, lasts_s = self.config.drain.as_secs_f64(), "draining");
        self.shared.wake_shards();
    }
}

/// Waits for a signal, then for the shards to drain.
fn watch(front: &mut MainThread, shards: Vec<ShardThread>) -> anyhow::Result<()> {
    let (config, shared) = (Arc::clone(&front.config), Arc::clone(&front.shared));
    let (config, shared) = (&*config, &*shared);
    let mut overload_monitor = OverloadMonitor::new(config);
    let mut shard_monitor = ShardMonitor::new(config.shards.count, Instant::now())?;
    let mut sample_at = Instant::now();
    let mut shards: Vec<_> = shards.into_iter().enumerate().collect();
    while !shards.is_empty() {
        front.tick();
        if let Some(found) = shards.iter().position(|(_, thread)| thread.is_finished()) {
            let (shard, thread) = shards.swap_remove(found);
            ended(shard, thread)?;
            if !shared.drain.has_begun() {
                // A shard that ends by itself ends the process: there is no half-alive gateway.
                bail!("shard {shard} ended while the gateway was serving");
            }
            continue;
        }
        shard_monitor.tick(shared, shards.iter().map(|(shard, _)| *shard), Instant::now())?;
        if Instant::now() >= sample_at {
            sample_at = Instant::now() + overload_monitor.sample(config, shared);
        }
        // A change of readiness unparks this thread.
        thread::park_timeout(WATCH_INTERVAL.min(sample_at.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Reports how a shard ended. (A panic ends the process by itself, see `main`.)
fn ended(shard: usize, thread: ShardThread) -> anyhow::Result<()> {
    let result = thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
    result.map_err(|error| {
        error!(shard, %error, "the shard failed");
        error.context(format!("shard {shard} failed, and there is no half-alive gateway"))
    })
}

fn banner(config: &Config, address: SocketAddr, brokers: &str) {
    let port = address.port();
    log::print(&format!(
        "\n  odin-gateway --dev: {rate} simulated events/s through an embedded Kafka\n\n  \
         console    http://localhost:{port}/\n  \
         websocket  ws://localhost:{port}/ws\n  \
         health     http://localhost:{port}/health\n  \
         metrics    http://localhost:{port}/metrics\n  \
         kafka      {brokers}\n\n  \
         try        websocat -n ws://localhost:{port}/ws <<< '{{\"type\":\"subscribe\",\"data\":{{\"channels\":[\"*.trade\"]}}}}'\n",
        rate = config.dev_event_rate,
    ));
}
