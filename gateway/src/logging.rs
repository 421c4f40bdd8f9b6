//! Where the log goes: standard output, a line an event, as JSON or as text, with UTC timestamps (RFC 3339).
//!
//! Writes directly, without a queue: nothing that was logged is lost when the process dies. The price is that a reader which
//! stalls stalls the writer, so nothing on the way of an event logs. Messages of libraries that use `log` come through here too.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// Starts logging, for all threads. Called once, by `main`; a second call changes nothing.
pub fn start(log: Log) {
    use tracing_subscriber::util::SubscriberInitExt;

    let has_colors = io::stdout().is_terminal();
    // An error says that logging runs already, as it does in a test process.
    let _ = subscriber(log, has_colors, io::stdout).try_init();
}

fn subscriber<W>(log: Log, has_colors: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_max_level(LevelFilter::from_level(log.level)).with_writer(writer);
    match log.format {
        LogFormat::Json => Box::new(
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        ),
        LogFormat::Text if has_colors => Box::new(builder.finish()),
        LogFormat::Text => Box::new(builder.with_ansi(false).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, format: LogFormat, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(Log { level, format }, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
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
}
