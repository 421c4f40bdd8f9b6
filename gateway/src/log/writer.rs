//! The lines that wait for the log's thread, and what that thread does with them.
//!
//! Whoever logs puts a line into the queue under a lock that is held for a push, never for a write. A line that finds no room is
//! dropped and counted, and so is one that cannot be written: a closed pipe, a full disk and a reader that stands still cost lines and
//! nothing else. Once lines can be written again, one of them says how many are missing.
//!
//! tracing-appender's non-blocking writer has a thread and a bounded queue, too. It bounds lines instead of bytes, counts none that
//! fails to be written, and says nothing when writing works again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// There is a line to be written.
    filled: Condvar,
    /// There is none, and none is being written.
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// The writer has a line that it has not written yet.
    is_writing: bool,
    dropped: u64,
}

/// Memory of a line in the queue beside its text.
const LINE_OVERHEAD_BYTES: usize = 32;

impl Queue {
    pub(crate) const fn new() -> Self {
        let state = State { lines: VecDeque::new(), bytes: 0, is_writing: false, dropped: 0 };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Takes a line, with its end, or drops it for want of room.
    pub(crate) fn push(&self, line: &[u8]) {
        let bytes = line.len() + LINE_OVERHEAD_BYTES;
        let line: Box<[u8]> = line.into();
        let mut state = self.lock();
        if state.bytes + bytes > limits::LOG_QUEUE_BYTES {
            state.dropped += 1;
            return;
        }
        state.bytes += bytes;
        state.lines.push_back(line);
        drop(state);
        self.filled.notify_one();
    }

    /// Lines that were dropped since the process started.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until every line has been written or dropped, but no longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let is_pending = |state: &mut State| state.is_writing || !state.lines.is_empty();
        // Whatever came of it, the time is over.
        let _ = self.emptied.wait_timeout_while(self.lock(), patience, is_pending);
    }

    /// The next line, once there is one; `None` at `until`. What was taken before counts as done.
    fn take(&self, until: Option<Instant>) -> Option<Box<[u8]>> {
        let mut state = self.lock();
        state.is_writing = false;
        if state.lines.is_empty() {
            self.emptied.notify_all();
        }
        let is_empty = |state: &mut State| state.lines.is_empty();
        let mut state = match until {
            Some(until) => {
                let patience = until.saturating_duration_since(Instant::now());
                let waited = self.filled.wait_timeout_while(state, patience, is_empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.filled.wait_while(state, is_empty).unwrap_or_else(PoisonError::into_inner),
        };
        let line = state.lines.pop_front()?;
        state.bytes -= line.len() + LINE_OVERHEAD_BYTES;
        state.is_writing = true;
        Some(line)
    }

    fn note_unwritten(&self) {
        self.lock().dropped += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the queue's lines, and after a loss the line that `report` makes of the number of lines that are missing.
pub(crate) struct Writer<'a, W, R> {
    queue: &'a Queue,
    output: Output<W>,
    report: R,
    /// Dropped lines of which the log says that they are missing.
    reported: u64,
    /// When the next report may be written: a disk that is full now and then must not be filled with reports.
    report_at: Instant,
}

impl<'a, W: Write, R: FnMut(u64) -> Vec<u8>> Writer<'a, W, R> {
    pub(crate) fn new(queue: &'a Queue, output: W, report: R) -> Self {
        let output = Output { file: output, is_torn: false };
        Self { queue, output, report, reported: 0, report_at: Instant::now() }
    }

    /// One line, or one report: waits for it, for ever if nothing is missing.
    pub(crate) fn step(&mut self) {
        let is_due = self.queue.dropped() > self.reported;
        let line = self.queue.take(is_due.then_some(self.report_at));
        if let Some(line) = line
            && !self.output.write_line(&line)
        {
            self.queue.note_unwritten();
        }
        let (dropped, now) = (self.queue.dropped(), Instant::now());
        if dropped > self.reported && now >= self.report_at {
            self.report_at = now + limits::LOG_LINE_INTERVAL;
            if self.output.write_line(&(self.report)(dropped - self.reported)) {
                self.reported = dropped;
            }
        }
    }
}

/// Where lines go.
struct Output<W> {
    file: W,
    /// The last line was written in part: the next must not be glued to it.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    /// Whether it is written as a whole.
    fn write_line(&mut self, line: &[u8]) -> bool {
        if self.is_torn {
            if self.write(b"\n").is_err() {
                return false;
            }
            self.is_torn = false;
        }
        match self.write(line) {
            Ok(()) => true,
            Err(written) => {
                self.is_torn = written > 0;
                false
            }
        }
    }

    /// All of it, or how much of it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another program that has the same terminal or pipe made it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(limits::LOG_WRITE_RETRY_INTERVAL);
                }
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

/// Standard output without the library's buffer, which keeps what could not be written and its lock while it waits.
pub(crate) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/writer.rs"]
mod tests;
