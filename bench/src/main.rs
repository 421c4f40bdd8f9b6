//! `odin-bench`: arguments -> run -> summary -> exit code (0 passed, 1 failed, 2 wrong use).

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bench::args::{Arguments, LaunchArguments, OutputFlags, Scenario};
use bench::host::child;
use bench::report::measurement::{Measurement, write_html, write_json};
use bench::run::{RunError, worker};
use bench::scenarios::{
    admission, burst, capacity, compare, drain, fanout, filtered, hostile, idle, overload, resume, stall,
    storm, sustained,
};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use signal_hook::consts::{SIGINT, SIGTERM};

const EXIT_FAILED: u8 = 1;
const EXIT_WRONG_USE: u8 = 2;
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.check() {
        Arguments::command().error(ErrorKind::ValueValidation, error).exit();
    }
    if let Scenario::Launch(arguments) = &arguments.scenario {
        return launch(arguments);
    }
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("odin-bench: cannot handle signals: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match run(&arguments.scenario, &stop) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("odin-bench: {error}");
            ExitCode::from(if error.is_wrong_use() { EXIT_WRONG_USE } else { EXIT_FAILED })
        }
    }
}

/// Runs the scenario; returns whether it passed.
fn run(scenario: &Scenario, stop: &AtomicBool) -> Result<bool, RunError> {
    match scenario {
        Scenario::Sustained(arguments) => {
            let report = sustained::run(arguments, stop)?;
            print!("{}", report.summary());
            write(arguments.json.as_deref(), |path| write_json(path, &report))?;
            Ok(report.passed)
        }
        Scenario::Fanout(arguments) => show(&fanout::run(arguments, stop)?, &arguments.output),
        Scenario::Burst(arguments) => burst::run(arguments, stop),
        Scenario::Filtered(arguments) => show(&filtered::run(arguments, stop)?, &arguments.output),
        Scenario::Idle(arguments) => {
            let idleness = idle::run(arguments, stop)?;
            print!("{}", idleness.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &idleness))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &idleness.page()))?;
            Ok(idleness.passed())
        }
        Scenario::Storm(arguments) => {
            if let Some(addresses) = arguments.forwarded {
                let admission = admission::run(arguments, addresses, stop)?;
                print!("{}", admission.summary());
                write(arguments.output.json.as_deref(), |path| write_json(path, &admission))?;
                write(arguments.output.html.as_deref(), |path| write_html(path, &admission.page()))?;
                return Ok(admission.passed());
            }
            let result = storm::run(arguments, stop)?;
            print!("{}", result.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &result))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &result.page()))?;
            Ok(result.passed())
        }
        Scenario::Stall(arguments) => {
            let stalls = stall::run(arguments, stop)?;
            print!("{}", stalls.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &stalls))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &stalls.page()))?;
            Ok(stalls.passed())
        }
        Scenario::Resume(arguments) => {
            let resumption = resume::run(arguments, stop)?;
            print!("{}", resumption.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &resumption))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &resumption.page()))?;
            Ok(resumption.passed())
        }
        Scenario::Drain(arguments) => {
            let departure = drain::run(arguments, stop)?;
            print!("{}", departure.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &departure))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &departure.page()))?;
            Ok(departure.passed())
        }
        Scenario::Overload(arguments) => {
            let overloads = overload::run(arguments, stop)?;
            print!("{}", overloads.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &overloads))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &overloads.page()))?;
            Ok(overloads.passed())
        }
        Scenario::Hostile(arguments) => {
            let hostility = hostile::run(arguments, stop)?;
            print!("{}", hostility.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &hostility))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &hostility.page()))?;
            Ok(hostility.passed)
        }
        Scenario::Capacity(arguments) => {
            let climb = capacity::run(arguments, stop)?;
            print!("{}", climb.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &climb))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &climb.page()))?;
            Ok(climb.passed())
        }
        Scenario::Compare(arguments) => {
            let Some(comparison) = compare::run(arguments, stop)? else {
                eprintln!("odin-bench: interrupted before the end of the first round");
                return Ok(false);
            };
            print!("{}", comparison.summary());
            write(arguments.output.json.as_deref(), |path| write_json(path, &comparison))?;
            write(arguments.output.html.as_deref(), |path| write_html(path, &comparison.page()))?;
            Ok(comparison.passed())
        }
        Scenario::Worker => worker::work().map(|()| true),
        Scenario::Launch(_) => unreachable!("main launches it"),
    }
}

fn show(measurement: &Measurement, output: &OutputFlags) -> Result<bool, RunError> {
    print!("{}", measurement.summary());
    write(output.json.as_deref(), |path| write_json(path, measurement))?;
    write(output.html.as_deref(), |path| write_html(path, &measurement.page()))?;
    Ok(measurement.passed)
}

fn write(path: Option<&Path>, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), RunError> {
    let Some(path) = path else { return Ok(()) };
    write(path).map_err(|error| RunError::Write { path: path.to_owned(), error })
}

fn launch(arguments: &LaunchArguments) -> ExitCode {
    let [program, rest @ ..] = arguments.program.as_slice() else {
        return ExitCode::from(EXIT_WRONG_USE);
    };
    let error = child::launch(arguments.cpu, program, rest);
    eprintln!("odin-bench: cannot run {}: {error}", program.display());
    ExitCode::from(EXIT_FAILED)
}

/// The first signal stops the run early, the second one ends the program immediately.
fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered in this order, because at the first signal the flag must not be set yet.
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
