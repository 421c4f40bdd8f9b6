//! The queue of log lines, and the thread that writes them.
//!
//! A thread puts a line into the queue under a lock that is held for a push, never for a write. A line that finds no room is
//! dropped and counted, and so is one that cannot be written: a closed pipe, a full disk and a blocked reader cost lines and
//! nothing else. When lines can be written again, one of them gives the number of missing lines.
//!
//! tracing-appender's non-blocking writer also has a thread and a bounded queue. It limits lines instead of bytes, does not count
//! failed writes, and does not report when writing works again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits;

/// The bounded queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Signals that the queue has a line.
    filled: Condvar,
    /// Signals that the queue is empty and no line is being written.
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Whether the writer has a line that is not written yet.
    is_writing: bool,
    dropped: u64,
}

/// Memory of a queued line beside its text.
const LINE_OVERHEAD_BYTES: usize = 32;

impl Queue {
    pub(crate) const fn new() -> Self {
        let state = State { lines: VecDeque::new(), bytes: 0, is_writing: false, dropped: 0 };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Queues a line with its line end, or drops it if there is no room.
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

    /// Lines dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until every line has been written or dropped, but no longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let is_pending = |state: &mut State| state.is_writing || !state.lines.is_empty();
        // Either way, the waiting time is over.
        let _ = self.emptied.wait_timeout_while(self.lock(), patience, is_pending);
    }

    /// Takes the next line, and waits for it until `until`, then returns `None`. The previously taken line counts as done.
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
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the queue's lines. After a loss it writes the line that `report` makes of the number of missing lines.
pub(crate) struct Writer<'a, W, R> {
    queue: &'a Queue,
    output: Output<W>,
    report: R,
    /// Dropped lines that a report has already counted.
    reported: u64,
    /// When the next report may be written: reports must not fill a disk that is full from time to time.
    report_at: Instant,
}

impl<'a, W: Write, R: FnMut(u64) -> Vec<u8>> Writer<'a, W, R> {
    pub(crate) fn new(queue: &'a Queue, output: W, report: R) -> Self {
        let output = Output { file: output, is_torn: false };
        Self { queue, output, report, reported: 0, report_at: Instant::now() }
    }

    /// Writes one line or one report. Waits for it; without missing lines, for ever.
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

/// Where lines are written.
struct Output<W> {
    file: W,
    /// The last line was written in part, so the next one must begin on a new line.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    /// Writes a line. Whether all of it was written.
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

    /// Writes all bytes, or returns the number written before an error.
    fn write(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another program with the same terminal or pipe made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(limits::LOG_WRITE_RETRY_INTERVAL);
                }
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

/// Standard output without the library's buffer, which keeps unwritten bytes, and its lock while it waits.
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
