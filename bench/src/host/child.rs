//! A program under test: pinned to a CPU, with an explicit environment, its output in a file, and never left
//! running.
//!
//! The program is started through this program's subcommand `launch` (see [`launch`]), which pins itself,
//! asks the kernel for a kill signal when its parent dies, and then executes the program. Both settings
//! survive execve(2), and neither needs unsafe code. A load generator that is killed therefore leaves no
//! server running that would distort the next run.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::HostError;
use crate::machine;

/// The subcommand that executes the program under test.
pub const LAUNCH: &str = "launch";
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const END_OF_LOG_BYTES: u64 = 4 * 1024;

/// A program to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path of the program.
    pub path: PathBuf,
    /// Arguments of the program.
    pub arguments: Vec<OsString>,
    /// The complete environment.
    pub environment: Vec<(String, String)>,
    /// The CPU that all threads of the program run on.
    pub cpu: Option<usize>,
    /// The file for standard output and standard error.
    pub log: PathBuf,
}

/// A running program; it is stopped when dropped.
#[derive(Debug)]
pub struct RunningProgram {
    child: Child,
    path: PathBuf,
    log: PathBuf,
}

/// Executes `program` on that CPU; returns only on failure. For the child process of [`Program::start`].
pub fn launch(cpu: Option<usize>, program: &OsStr, arguments: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    if let Some(Err(error)) = cpu.map(machine::bind) {
        return io::Error::other(error);
    }
    Command::new(program).args(arguments).exec()
}

/// A port that is free at the moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A file in the temporary directory, named after this process.
pub fn log_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("odin-bench-{}-{name}.log", std::process::id()))
}

impl Program {
    /// Starts the program. The calling thread has to outlive the program: the kernel kills the program when
    /// that thread ends.
    pub fn start(&self) -> Result<RunningProgram, HostError> {
        let spawn_error = |error| HostError::Spawn { program: self.path.display().to_string(), error };
        let log = File::create(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(LAUNCH);
        if let Some(cpu) = self.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        command
            .arg("--")
            .arg(&self.path)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C goes to this program only, which then stops the child itself.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(spawn_error)?;
        Ok(RunningProgram { child, path: self.path.clone(), log: self.log.clone() })
    }
}

impl RunningProgram {
    /// Process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Path of the output file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends SIGTERM. The program keeps running until it exits.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// The exit status, if the program has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `url` answers 200. If the program exits or `patience` elapses, the error shows the end of
    /// the log.
    pub fn wait_ready(&mut self, url: &str, patience: Duration) -> Result<(), HostError> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2)));
        let agent = config.http_status_as_error(false).build().new_agent();
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.exited() {
                return Err(self.not_ready(format!("ended at once ({status})")));
            }
            if agent.get(url).call().is_ok_and(|response| response.status() == 200) {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
        let patience = humantime::format_duration(patience);
        Err(self.not_ready(format!("was not ready after {patience} ({url})")))
    }

    /// An error that shows the end of the log.
    pub fn not_ready(&self, what: String) -> HostError {
        HostError::NotReady {
            program: self.path.display().to_string(),
            what,
            log: self.log.clone(),
            end_of_log: self.end_of_log(),
        }
    }

    /// The last lines of the output.
    pub fn end_of_log(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }

    /// Sends SIGTERM, and SIGKILL after `patience`. The log is removed if the program exited successfully.
    pub fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        let status = self.end(patience);
        if status.is_some_and(|status| status.success()) {
            let _ = fs::remove_file(&self.log);
        }
        status
    }

    fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        if let Some(status) = self.exited() {
            return Some(status);
        }
        let _ = self.terminate();
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.end(Duration::from_secs(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on() {
        let port = free_port().expect("a port");
        TcpListener::bind(("127.0.0.1", port)).expect("nothing else took it");
    }
}
