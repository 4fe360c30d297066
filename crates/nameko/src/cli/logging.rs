//! Logging on standard error: lines for people, or JSON for machines.

use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::arguments::{LogArguments, LogFormat};
use super::client::Failure;
use crate::config::Config;

/// Whether our log is JSON. What `run` tells the user goes there too then, so that nothing else is between the lines.
static JSON: AtomicBool = AtomicBool::new(false);

/// Starts logging, unless the program has done so itself before. `default` is what is logged when the user did not say.
/// `process` is the number of this one among several.
pub(super) fn start(
    arguments: &LogArguments,
    config: &Config,
    default: &str,
    process: Option<u16>,
) -> Result<(), Failure> {
    let text = match arguments.log.as_deref().filter(|it| !it.trim().is_empty()) {
        Some(text) => text,
        None => config.str("LOG")?.unwrap_or(default),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::new("Error", format!("`{text}` is no log filter: {error}"))
            .hint("write error, warn, info, debug or trace, or a filter like `nameko=debug,info`")
    })?;
    let format = match (arguments.log_format, config.str("LOG_FORMAT")?) {
        (Some(format), _) => format,
        (None, Some(text)) => LogFormat::parse(text).map_err(|_| {
            let error = config.invalid("LOG_FORMAT", "must be text or json");
            Failure::from(error)
        })?,
        (None, None) => LogFormat::Text,
    };
    let subscriber = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(Lines { format, process });
    match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
            // An error means that there is a subscriber already: the program's own. Here and below.
            let _ = subscriber.with(layer.with_ansi(colours)).try_init();
        }
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true);
            if subscriber.with(layer).try_init().is_ok() {
                JSON.store(true, Ordering::Relaxed);
                panic::set_hook(Box::new(log_panic));
            }
        }
    }
    Ok(())
}

/// Whether our log is JSON.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let message = info.payload_as_str().unwrap_or("no text");
    tracing::error!(target: "nameko::panic", place, "panicked: {message}");
}

/// Standard error, where each event is written at once, with the number of the process before it.
struct Lines {
    format: LogFormat,
    process: Option<u16>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl io::Write for &Lines {
    /// Gets one event, with its line end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        match marked(event, self.format, self.process) {
            Some(line) => stderr.write_all(&line)?,
            None => stderr.write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event that tells of which process it is; `None` where there is only one.
fn marked(event: &[u8], format: LogFormat, process: Option<u16>) -> Option<Vec<u8>> {
    let process = process?;
    let (mark, event) = match format {
        LogFormat::Text => (format!("[{process}] "), event),
        LogFormat::Json => (
            format!("{{\"process\":{process},"),
            event.strip_prefix(b"{")?,
        ),
    };
    Some([mark.as_bytes(), event].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_of_which_process_it_is() {
        let text = |event: &str, format, process| {
            let line = marked(event.as_bytes(), format, process);
            line.map(|it| String::from_utf8(it).expect("text"))
        };
        assert_eq!(text("INFO up\n", LogFormat::Text, None), None);
        assert_eq!(
            text("INFO up\n", LogFormat::Text, Some(2)).as_deref(),
            Some("[2] INFO up\n")
        );
        assert_eq!(
            text("{\"level\":\"INFO\"}\n", LogFormat::Json, Some(2)).as_deref(),
            Some("{\"process\":2,\"level\":\"INFO\"}\n")
        );
    }
}
