//! `odin-publisher`: settings -> logging -> publisher -> HTTP until a signal -> flush -> exit code.
//!
//! Exit codes: 0 after a signal, 1 if the program cannot run, 64 for invalid settings, 130 if a second signal
//! interrupts the flush.

mod settings;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use publisher::producer::client_config;
use publisher::{Publisher, http};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use settings::{Arguments, LogFormat, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CANNOT_RUN: u8 = 1;
const EXIT_SETTINGS: u8 = 64;
const EXIT_CUT_SHORT: u8 = 130;

/// Each command blocks a thread; further commands wait for a free one.
const COMMAND_THREADS_MAX: usize = 4;

fn main() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    start_logging(&settings);
    let config = client_config(&settings.brokers, &settings.properties);
    let publisher = match Publisher::connect(&config, settings.seed) {
        Ok(publisher) => Arc::new(publisher),
        Err(error) => return fail(EXIT_SETTINGS, &error.to_string()),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(COMMAND_THREADS_MAX)
        .build()
        .expect("the operating system has room for an event loop");
    match runtime.block_on(serve(&settings, Arc::clone(&publisher))) {
        Ok(interrupt) => finish(runtime, publisher, interrupt),
        Err(error) => fail(EXIT_CANNOT_RUN, &error),
    }
}

fn settings() -> Result<Settings, ExitCode> {
    let arguments = Arguments::try_parse().map_err(|error| {
        // If the terminal is gone, there is no other way to report the error.
        _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
            _ => ExitCode::from(EXIT_SETTINGS),
        }
    })?;
    arguments.check().map_err(|error| fail(EXIT_SETTINGS, &error))
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("odin-publisher: {error}");
    ExitCode::from(code)
}

fn start_logging(settings: &Settings) {
    let logging = tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_ansi(io::stdout().is_terminal())
        // The logger reports its own errors by `eprintln!`, which panics when standard error is closed.
        .log_internal_errors(false);
    match settings.log_format {
        LogFormat::Json => logging.json().flatten_event(true).init(),
        LogFormat::Text => logging.init(),
    }
}

/// Serves until the first signal. Returns the signal handler, which then waits for the second one.
async fn serve(settings: &Settings, publisher: Arc<Publisher>) -> Result<Interrupt, String> {
    let mut interrupt = Interrupt::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let listener =
        TcpListener::bind(settings.address).await.map_err(|error| bind_trouble(settings, &error))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!(%address, brokers = settings.brokers, seed = settings.seed, "listening");
    http::serve(listener, publisher, interrupt.heard()).await;
    Ok(interrupt)
}

fn bind_trouble(settings: &Settings, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that has it or choose another PORT",
        io::ErrorKind::PermissionDenied => "choose a PORT from 1024 on",
        _ => "correct HOST and PORT",
    };
    format!("cannot listen on {}: {error}; {remedy}", settings.address)
}

/// Flushes the queued records; a second signal ends the wait.
fn finish(runtime: Runtime, publisher: Arc<Publisher>, mut interrupt: Interrupt) -> ExitCode {
    tracing::info!("stopping: what is queued is flushed first");
    let code = runtime.block_on(async {
        let stopping = Arc::clone(&publisher);
        tokio::select! {
            _ = tokio::task::spawn_blocking(move || stopping.stop()) => ExitCode::SUCCESS,
            () = interrupt.heard() => ExitCode::from(EXIT_CUT_SHORT),
        }
    });
    runtime.shutdown_background();
    let status = publisher.status();
    let (delivered, failed, given_up) = (status.delivered, status.failed, status.queued());
    tracing::info!(delivered, failed, given_up, "stopped");
    // Dropping the publisher would flush again, for the records that were just given up.
    std::mem::forget(publisher);
    code
}

/// SIGTERM and SIGINT.
struct Interrupt {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupt {
    fn new() -> io::Result<Interrupt> {
        Ok(Interrupt {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn heard(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
