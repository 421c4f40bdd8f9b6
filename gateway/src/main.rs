//! `odin-gateway`: arguments -> signals -> configuration -> logging -> preflight -> run -> exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

use gateway::args;
use gateway::args::{Command, EXIT_UNAVAILABLE, EXIT_USAGE};
use gateway::config::Config;
use gateway::process::signals::Signals;
use gateway::{check, kafka, limits, log, preflight, run};
use tracing::{error, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(&args::help()),
        Ok(Command::Version) => print(&format!("{}\n", args::VERSION)),
        Ok(Command::Check { dev }) => check(dev),
        Ok(Command::CheckConfig { dev }) => check_config(dev),
        Ok(Command::Run { dev }) => serve(dev),
        Err(error) => misused(&error),
    }
}

fn serve(dev: bool) -> ExitCode {
    // First of all; `signals` explains why.
    let signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format!("signals cannot be handled: {error}"));
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    let config = match read_config(dev) {
        Ok(config) => config,
        Err(exit_code) => return exit_code,
    };
    if let Err(error) = log::start(config.log) {
        complain(format!(
            "the log's thread could not be made ({error}): raise the limit of processes (`ulimit -u`)"
        ));
        return ExitCode::from(EXIT_UNAVAILABLE);
    }
    end_with_the_first_panic();
    let exit_code = serve_logging(config, signals);
    log::flush();
    exit_code
}

fn serve_logging(config: Config, signals: Signals) -> ExitCode {
    for warning in &config.warnings {
        warn!(reason = %warning, "configuration warning");
    }
    if let Err(error) = run::choose_cpus(&config) {
        error!(%error, "the gateway failed");
        return ExitCode::FAILURE;
    }
    if let Err(error) = preflight::run(&config) {
        error!(%error, "the gateway cannot run on this machine");
        return ExitCode::from(EXIT_UNAVAILABLE);
    }
    match run::run(config, signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %format_args!("{error:#}"), "the gateway failed");
            ExitCode::FAILURE
        }
    }
}

/// There is no half-alive gateway: a panic of any thread ends the process, with a line that names the thread and the place.
fn end_with_the_first_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        error!(thread = thread.name(), location, reason, "panicked: the process ends");
        log::flush();
        std::process::abort();
    }));
}

/// The configuration in force, checked by librdkafka too.
fn read_config(dev: bool) -> Result<Config, ExitCode> {
    let config = Config::from_env(dev).map_err(|error| misused(&error))?;
    match kafka::control::check_config(&config.kafka) {
        Ok(()) => Ok(config),
        Err(error) => Err(misused(&format!("librdkafka does not take KAFKA_PROPERTIES: {error}"))),
    }
}

fn check_config(dev: bool) -> ExitCode {
    let config = match read_config(dev) {
        Ok(config) => config,
        Err(exit_code) => return exit_code,
    };
    for warning in &config.warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let mut text = Vec::new();
    config.print(&mut text).expect("writing to memory does not fail");
    if let Err(error) = run::choose_cpus(&config) {
        return misused(&error);
    }
    print(&String::from_utf8_lossy(&text))
}

fn check(dev: bool) -> ExitCode {
    let config = match read_config(dev) {
        Ok(config) => config,
        Err(exit_code) => return exit_code,
    };
    let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let problems = check::problems(&config);
    let is_well = problems.is_empty();
    let problems = problems.iter().map(|problem| format!("problem: {problem}\n"));
    let mut text: String = warnings.chain(problems).collect();
    if is_well {
        text.push_str("no problem found: the gateway can start\n");
    }
    print(&text);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(text: &str) -> ExitCode {
    // `odin-gateway --help | head` closes the pipe early, which is not an error.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn misused(error: &impl std::fmt::Display) -> ExitCode {
    complain(error.to_string());
    ExitCode::from(EXIT_USAGE)
}

/// Writes to standard error. A standard error that is closed or not read does not delay the end of the process.
fn complain(text: String) {
    let (done, written) = channel();
    let thread = thread::Builder::new().spawn(move || {
        let _ = writeln!(io::stderr(), "{text}");
        let _ = done.send(());
    });
    if thread.is_ok() {
        let _ = written.recv_timeout(limits::LOG_FLUSH_PATIENCE);
    }
}
