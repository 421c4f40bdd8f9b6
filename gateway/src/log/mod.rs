//! The log: standard output, one line per event, as JSON or as text, with UTC timestamps (RFC 3339).
//!
//! A thread of its own writes the lines; other threads only put them into its bounded queue. So a standard output that is closed,
//! full or not read costs lines, which are counted (`ws_log_lines_dropped_total`), and never delays or ends the gateway. The
//! price: the last lines are lost when the process is killed. [`flush`] waits for them, for a limited time, at a regular end.
//! Messages of libraries that use `log` arrive here too.

pub(crate) mod throttle;
pub(crate) mod writer;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Subscriber, dispatcher, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use self::writer::{Queue, Stdout, Writer};
use crate::limits;

/// Level and format of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: tracing::Level,
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a line: for machines or for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One sentence per line.
    Text,
}

/// One queue for the process, because standard output is the process's.
static QUEUE: Queue = Queue::new();

/// Starts logging, for all threads. `main` calls it once, after signals are handled.
///
/// # Errors
/// No thread can be made.
pub fn start(log: Log) -> io::Result<()> {
    use tracing_subscriber::util::SubscriberInitExt;

    let has_colors = io::stdout().is_terminal();
    thread::Builder::new().name("log".into()).spawn(move || {
        let mut writer = Writer::new(&QUEUE, Stdout, reporter(log, has_colors));
        loop {
            writer.step();
        }
    })?;
    // An error means that logging has already started, as in a test process.
    let _ = subscriber(log, has_colors, || Line).try_init();
    Ok(())
}

/// Writes a text to standard output, in order with the log's lines and like one of them: it does not block, and the text may be
/// dropped.
pub fn print(text: &str) {
    QUEUE.push(text.as_bytes());
}

/// Log lines since the start that could not be written or queued.
pub fn dropped() -> u64 {
    QUEUE.dropped()
}

/// Waits, for a limited time, until all lines are written. For the end of the process.
pub fn flush() {
    QUEUE.flush(limits::LOG_FLUSH_PATIENCE);
}

/// A line on its way into the queue: the subscriber writes it at once and never gets an error.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        QUEUE.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the line that counts the missing lines. It does not go through the queue, because the writer must know whether it was
/// written.
fn reporter(log: Log, has_colors: bool) -> impl FnMut(u64) -> Vec<u8> {
    let memory = Memory::default();
    let writer = memory.clone();
    let dispatch = Dispatch::new(subscriber(log, has_colors, move || writer.clone()));
    move |lines| {
        dispatcher::with_default(&dispatch, || {
            warn!(lines, "log lines were dropped: standard output was closed, full or not read");
        });
        memory.take()
    }
}

fn subscriber<W>(log: Log, has_colors: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let level = LevelFilter::from_level(log.level);
    // With little locked memory glommio warns that it cannot register buffers; the gateway does not use those buffers.
    let targets = Targets::new().with_default(level).with_target("glommio", level.min(LevelFilter::ERROR));
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        // The subscriber reports its own errors with `eprintln!`, which panics if standard error is closed.
        .log_internal_errors(false)
        .with_writer(writer);
    match log.format {
        LogFormat::Json => {
            let json = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(json.finish().with(targets))
        }
        LogFormat::Text => Box::new(builder.with_ansi(has_colors).finish().with(targets)),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn logged(level: Level, format: LogFormat, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(Log { level, format }, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(memory.take()).unwrap()
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top_and_a_utc_timestamp() {
        let text = logged(Level::INFO, LogFormat::Json, || {
            tracing::warn!(shard = 3, reason = "a \"quoted\"\nreason", "it happened");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "it happened");
        assert_eq!(line["shard"], 3);
        assert_eq!(line["reason"], "a \"quoted\"\nreason");
        assert_eq!(line["level"], "WARN");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z'), "{timestamp}");
        humantime::parse_rfc3339(timestamp).unwrap();
    }

    #[test]
    fn a_text_line_off_a_terminal_has_no_color_codes() {
        let text = logged(Level::INFO, LogFormat::Text, || tracing::error!(shard = 3, "it happened"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("ERROR") && text.contains("it happened") && text.contains("shard=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let (timestamp, _) = text.split_once(' ').unwrap();
        humantime::parse_rfc3339(timestamp).unwrap();
    }

    #[test]
    fn what_is_less_severe_than_the_level_is_not_logged() {
        let log = || {
            tracing::debug!("one");
            tracing::info!("two");
            tracing::warn!("three");
            tracing::error!("four");
        };
        for (level, lines) in [(Level::DEBUG, 4), (Level::INFO, 3), (Level::WARN, 2), (Level::ERROR, 1)] {
            assert_eq!(logged(level, LogFormat::Json, log).lines().count(), lines, "{level}");
        }
    }

    #[test]
    fn the_report_of_dropped_lines_is_a_line_of_the_log_and_has_its_number() {
        let mut report = reporter(Log { level: Level::INFO, format: LogFormat::Json }, false);
        for lines in [7, 1] {
            let text = String::from_utf8(report(lines)).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&line["lines"], &line["level"]), (&lines.into(), &"WARN".into()));
        }
        let mut silent = reporter(Log { level: Level::ERROR, format: LogFormat::Text }, false);
        assert!(silent(7).is_empty());
    }
}
