//! A program as a child process: its output is read line by line, and it is never left running.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::eventually;

/// A running program. It is killed at the end of the test, whatever the result, and its output is printed if
/// the test failed.
pub struct Program {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// A program that has exited.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal ended the program.
    pub code: Option<i32>,
    /// Standard output and standard error.
    pub output: String,
}

impl Program {
    /// Starts the program without input, and collects its output.
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_it_is(command)
    }

    /// Starts the program without input, and with the command's own standard output and standard error;
    /// [`Program::output`] contains those that are pipes.
    pub fn start_as_it_is(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().map(|pipe| -> Box<dyn Read + Send> { Box::new(pipe) });
        let stderr = child.stderr.take().map(|pipe| -> Box<dyn Read + Send> { Box::new(pipe) });
        let pipes = [stdout, stderr].into_iter().flatten();
        let readers = pipes.map(|pipe| collect(pipe, Arc::clone(&output))).collect();
        Self { child, output, readers }
    }

    /// Starts the program and waits for its exit.
    pub fn run(command: Command) -> Ended {
        Self::start(command).end()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last line of the log with this message.
    pub fn line(&self, message: &str) -> Option<Value> {
        let output = self.output.lock().unwrap();
        let mut lines = output.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["message"] == message)
    }

    /// Waits for a line of the log with this message: a line written before a response may be read after it.
    pub fn line_when(&self, message: &str) -> Value {
        eventually(message, || self.line(message))
    }

    /// Waits for a line that contains the `address` that the program listens on.
    ///
    /// # Panics
    /// Panics if the program exits before that.
    pub fn address_when<A: std::str::FromStr>(&mut self, message: &str) -> A {
        eventually(message, || {
            let said = self.line(message);
            if said.is_none()
                && let Some(status) = self.exited()
            {
                panic!("the program ended at once: {status}");
            }
            said.and_then(|line| line["address"].as_str().unwrap().parse().ok())
        })
    }

    /// The output so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().join("\n")
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends SIGKILL; returns once the program has exited.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The exit status, if the program has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the exit.
    pub fn end(mut self) -> Ended {
        let status = eventually("the program ends", || self.exited());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended { code: status.code(), output: self.output() }
    }
}

fn collect(pipe: Box<dyn Read + Send>, output: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            output.lock().unwrap().push(line.unwrap());
        }
    })
}

impl Drop for Program {
    fn drop(&mut self) {
        // Has no effect after `end`. SIGKILL also ends a stopped process.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap_or_default());
        if thread::panicking() {
            println!("--- the program's output ---\n{}\n---", self.output());
        }
    }
}
