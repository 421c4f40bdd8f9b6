//! Tries what the gateway needs of this machine, before anything else starts.
//!
//! Raises the soft limits of open files and locked memory to the hard ones. Then a thread sets up a socket driver of a shard's
//! size, has one connection over loopback accepted, read, answered and closed, and makes an executor. Each failure names its
//! likely cause and a remedy. The port, the CPUs and the brokers are checked elsewhere. Called once, on the main thread.

use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use glommio::GlommioError;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;
use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SocketId, SocketOptions};

use crate::config::Config;
use crate::limits;
use crate::shard::executor;
use crate::shard::sizes::driver_options;

/// For one connection over loopback, which takes less than a millisecond on a machine that is not busy.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the gateway cannot run here, with the remedy. Not recoverable: `main` logs it and exits.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The limit of open files is lower than the number of files that may be open.
    #[error(
        "{needed} files may have to be open at once ({connections_max} connections of WS_MAX_CONNECTIONS, the others the \
         gateway's own), but the limit is {allowed}: raise it (`ulimit -n {needed}`; systemd: LimitNOFILE={needed}; Docker: \
         --ulimit nofile={needed}) or lower WS_MAX_CONNECTIONS"
    )]
    Descriptors {
        /// Files that may be open at once.
        needed: u64,
        /// WS_MAX_CONNECTIONS.
        connections_max: usize,
        /// The hard limit.
        allowed: u64,
    },
    /// The kernel refused a step of using io_uring.
    #[error("io_uring does not work here ({failure}): {remedy}")]
    Uring {
        /// The step and the error.
        failure: String,
        /// Likely cause and command.
        remedy: String,
    },
    /// No thread can be made.
    #[error(
        "a thread could not be made ({0}): raise the limit of processes (`ulimit -u`, systemd: TasksMax)"
    )]
    Thread(#[source] io::Error),
}

/// Tries what the gateway needs of the machine.
///
/// # Errors
/// The first check that failed, with its remedy.
pub fn run(config: &Config) -> Result<(), PreflightError> {
    findings(config).into_iter().next().map_or(Ok(()), Err)
}

/// Every check that failed.
pub fn findings(config: &Config) -> Vec<PreflightError> {
    raise(Resource::Memlock);
    let descriptors = check_descriptors(config, raise(Resource::Nofile));
    [descriptors, check_uring(config)].into_iter().filter_map(Result::err).collect()
}

fn check_uring(config: &Config) -> Result<(), PreflightError> {
    let options = driver_options(config);
    // A ring belongs to the thread that made it, and no shard runs on the main thread.
    let trial = thread::Builder::new().name("preflight".into()).spawn(move || try_out(&options));
    trial.map_err(PreflightError::Thread)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Raises a soft limit to the hard one. Returns the limit then in force; `None` if unlimited.
fn raise(resource: Resource) -> Option<u64> {
    let limit = getrlimit(resource);
    if let Err(error) = setrlimit(resource, Rlimit { current: limit.maximum, ..limit }) {
        debug!(?resource, %error, "a soft limit could not be raised to the hard one");
    }
    getrlimit(resource).current
}

fn check_descriptors(config: &Config, allowed: Option<u64>) -> Result<(), PreflightError> {
    let connections_max = config.listen.connections_max;
    let spare = limits::SOCKETS_SPARE + limits::DESCRIPTORS_SPARE;
    let needed = (connections_max + config.shards.count * spare) as u64;
    match allowed {
        Some(allowed) if allowed < needed => {
            Err(PreflightError::Descriptors { needed, connections_max, allowed })
        }
        _ => Ok(()),
    }
}

fn try_out(options: &DriverOptions) -> Result<(), PreflightError> {
    try_driver(options)?;
    // Made as the shards make theirs, except for the CPU. glommio 0.9 leaves one eventfd open.
    executor::make("preflight", None).map_err(executor_refused)?.run(async {});
    Ok(())
}

fn try_driver(options: &DriverOptions) -> Result<(), PreflightError> {
    let mut driver = Driver::new(options).map_err(|error| {
        let errno = error.errno().map(Errno::from_raw_os_error);
        refused(&error, errno)
    })?;
    exchange(&mut driver).map_err(|error| refused(&format!("on loopback: {error}"), errno_of(&error)))
}

/// The life of one connection, as in a shard: accept, receive, send, close.
fn exchange(driver: &mut Driver) -> io::Result<()> {
    const WORD: [u8; 4] = *b"ping";
    let listener = wire::listen((Ipv4Addr::LOCALHOST, 0).into(), 1, &SocketOptions::default())?;
    let address = listener.local_addr()?;
    driver.accept_from(listener);
    let mut client = TcpStream::connect_timeout(&address, TRIAL_TIMEOUT)?;
    client.set_read_timeout(Some(TRIAL_TIMEOUT))?;
    client.write_all(&WORD)?;
    let deadline = Instant::now() + TRIAL_TIMEOUT;
    while Instant::now() < deadline {
        match turn(driver)? {
            Progress::Waiting => sleep(driver, deadline)?,
            Progress::Received(socket) => {
                answer(driver, socket, &WORD)?;
                client.read_exact(&mut [0; WORD.len()])?;
                client.shutdown(std::net::Shutdown::Write)?;
                driver.close(socket, Instant::now());
            }
            Progress::Closed => return Ok(()),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a connection was not accepted, answered and closed in 10 s"))
}

enum Progress {
    Waiting,
    Received(SocketId),
    Closed,
}

fn turn(driver: &mut Driver) -> io::Result<Progress> {
    let now = Instant::now();
    driver.begin_turn(now)?;
    while let Some(event) = driver.next_event(now)? {
        match event {
            Event::Received { socket, .. } => return Ok(Progress::Received(socket)),
            Event::Closed(_) => return Ok(Progress::Closed),
            Event::AcceptFailed(error) | Event::Failed { error, .. } => return Err(error),
            Event::Accepted { .. } | Event::Connected(_) | Event::PeerFinished(_) | Event::Writable(_) => {}
        }
    }
    Ok(Progress::Waiting)
}

fn answer(driver: &mut Driver, socket: SocketId, bytes: &[u8]) -> io::Result<()> {
    let mut outcomes = Vec::new();
    driver.send_batch(&[Outgoing { socket, bytes }], &mut outcomes);
    match outcomes.first() {
        Some(SendOutcome::Sent) => Ok(()),
        Some(SendOutcome::Failed(errno)) => Err(io::Error::from_raw_os_error(*errno)),
        other => Err(io::Error::other(format!("a send of {} bytes ended as {other:?}", bytes.len()))),
    }
}

/// Sleeps until the driver has an event, which tries its sleep as well.
fn sleep(driver: &mut Driver, deadline: Instant) -> io::Result<()> {
    if !driver.may_sleep()? {
        return Ok(());
    }
    let until = driver.next_deadline().map_or(deadline, |due| due.min(deadline));
    driver.sleep(until.saturating_duration_since(Instant::now()))
}

fn executor_refused(error: GlommioError<()>) -> PreflightError {
    let failure = format!("the executor: {error}");
    let errno = match error {
        // glommio checks the limit itself, and its error has no number.
        _ if failure.contains("MemLockLimit") => Some(Errno::NOMEM),
        GlommioError::IoError(error) | GlommioError::EnhancedIoError { source: error, .. } => {
            errno_of(&error)
        }
        _ => None,
    };
    refused(&failure, errno)
}

fn errno_of(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

fn refused(failure: &impl Display, errno: Option<Errno>) -> PreflightError {
    PreflightError::Uring { failure: failure.to_string(), remedy: remedy(errno, &Machine::read()) }
}

/// Facts of the kernel that errors do not contain.
#[derive(Debug, Default)]
struct Machine {
    /// `kernel.io_uring_disabled`; `None` before Linux 6.6, which does not have it.
    io_uring_disabled: Option<u8>,
    /// As `uname -r` prints it.
    kernel: String,
}

impl Machine {
    fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        Self {
            io_uring_disabled: read("io_uring_disabled").trim().parse().ok(),
            kernel: read("osrelease").trim().to_owned(),
        }
    }
}

fn remedy(errno: Option<Errno>, machine: &Machine) -> String {
    let Machine { io_uring_disabled, kernel } = machine;
    match (errno, io_uring_disabled) {
        (Some(Errno::PERM), Some(disabled @ 1..)) => format!(
            "kernel.io_uring_disabled is {disabled}, which keeps {} from it. On the machine itself, not in a container: \
             `sysctl -w kernel.io_uring_disabled=0`, and the same line in /etc/sysctl.d to keep it",
            if *disabled == 1 { "all but privileged processes" } else { "every process" }
        ),
        (Some(Errno::PERM), _) => "a seccomp filter forbids it, as Docker's default profile does. Allow io_uring_setup, \
             io_uring_enter and io_uring_register: `docker run --security-opt seccomp=PROFILE.json`, or seccomp=unconfined \
             to see whether it is that; systemd: SystemCallFilter"
            .to_owned(),
        (Some(Errno::ACCESS), _) => "a security module (SELinux, AppArmor) forbids it: `dmesg | grep -i denied` names the \
             rule"
            .to_owned(),
        (Some(Errno::NOSYS), _) => format!(
            "this kernel ({kernel}) has no io_uring: a sandbox such as gVisor takes the kernel's place, a seccomp profile \
             hides it (Podman's does; `--security-opt seccomp=PROFILE.json` with io_uring_setup, io_uring_enter and \
             io_uring_register allowed), or it was built without CONFIG_IO_URING. Run on Linux 6.1 or later"
        ),
        (Some(Errno::INVAL), _) => {
            format!("Linux 6.1 or later is needed, and this is {kernel}: `uname -r` on the machine itself")
        }
        (Some(Errno::NOMEM), _) => "memory that may be locked, or memory, is short: raise the limit (`ulimit -l unlimited`; \
             systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1) or lower WS_MAX_CONNECTIONS"
            .to_owned(),
        (Some(Errno::MFILE | Errno::NFILE), _) => "no descriptor is left: raise the limit of open files (`ulimit -n`; \
             systemd: LimitNOFILE; Docker: --ulimit nofile; of the machine: sysctl fs.file-max)"
            .to_owned(),
        _ => format!("Linux 6.1 or later with a loopback interface (`ip link set lo up`) is needed, and this is {kernel}"),
    }
}

#[cfg(test)]
#[path = "tests/preflight.rs"]
mod tests;
