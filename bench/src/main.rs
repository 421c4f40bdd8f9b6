//! `odin-bench`: arguments -> run -> summary -> exit code (0 passed, 1 failed, 2 wrong use).

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bench::args::{Arguments, Scenario, SustainedArguments};
use bench::scenarios::sustained;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use signal_hook::consts::{SIGINT, SIGTERM};

const EXIT_FAILED: u8 = 1;
const EXIT_WRONG_USE: u8 = 2;
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let Arguments { scenario: Scenario::Sustained(arguments) } = Arguments::parse();
    if let Err(error) = arguments.check() {
        Arguments::command().error(ErrorKind::ValueValidation, error).exit();
    }
    match stop_on_signals().map(|stop| run(&arguments, &stop)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("odin-bench: cannot handle signals: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(arguments: &SustainedArguments, stop: &AtomicBool) -> ExitCode {
    let report = match sustained::run(arguments, stop) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("odin-bench: {error}");
            return ExitCode::from(if error.is_wrong_use() { EXIT_WRONG_USE } else { EXIT_FAILED });
        }
    };
    print!("{}", report.summary());
    if let Some(path) = &arguments.json
        && let Err(error) = report.write_json(path)
    {
        eprintln!("odin-bench: cannot write {}: {error}", path.display());
        return ExitCode::from(EXIT_FAILED);
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// The first signal stops the run early, the second ends the program at once.
fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: at the first signal the flag is not yet set.
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
