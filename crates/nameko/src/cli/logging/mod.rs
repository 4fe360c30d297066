//! Logging on standard error, as text or JSON.
//!
//! A custom layer keeps the cost per call low: every call creates a worker span, but most calls log
//! nothing. The layer stores the fields of spans unformatted and formats them only for a line
//! inside the span.

mod fields;
mod layer;
mod line;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use super::arguments::{LogArguments, LogFormat};
use super::failure::Failure;
use crate::config::Config;
use layer::Log;

/// The log of `nameko::main`, which formats the fields of workers itself.
pub(crate) type InstalledLog = Log<fn(&str)>;

/// Whether the log is JSON. Messages of `run` then go to the log too, so that the output is JSON
/// only.
static JSON: AtomicBool = AtomicBool::new(false);

/// Installs the log, unless the program has installed a subscriber.
///
/// `default` is the filter if the user configured none, `process` the number of this process under
/// a supervisor.
pub(super) fn start(
    arguments: &LogArguments,
    config: &Config,
    default: &str,
    process: Option<u16>,
) -> Result<(), Failure> {
    let text = match arguments
        .log
        .as_deref()
        .filter(|filter| !filter.trim().is_empty())
    {
        Some(text) => text,
        None => config.str("LOG")?.unwrap_or(default),
    };
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::new("Error", format!("`{text}` is not a log filter: {error}"))
            .hint("use error, warn, info, debug or trace, or a filter like `nameko=debug,info`")
    })?;
    let format = match (arguments.log_format, config.str("LOG_FORMAT")?) {
        (Some(format), _) => format,
        (None, Some(text)) => LogFormat::parse(text).map_err(|_| {
            let error = config.invalid("LOG_FORMAT", "must be text or json");
            Failure::from(error)
        })?,
        (None, None) => LogFormat::Text,
    };
    let log = InstalledLog {
        format,
        process,
        colours: io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        write,
    };
    let started = registry().with(filter).with(log).try_init();
    // An error means that the program has installed a subscriber.
    if started.is_err() {
        warn_about_ignored(&arguments.given(config));
    } else if format == LogFormat::Json {
        JSON.store(true, Ordering::Relaxed);
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Reports settings without effect, since the program logs by itself.
fn warn_about_ignored(settings: &[&str]) {
    if settings.is_empty() {
        return;
    }
    let settings = settings.join(" and ");
    let message = format!("{settings}: ignored, since the program installs a log of its own");
    if tracing::enabled!(target: "nameko::run", Level::WARN) {
        tracing::warn!(target: "nameko::run", "{message}");
    } else {
        write(&format!("{message}\n"));
    }
}

/// Returns `true` if the log is JSON.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Writes a line with a single write. Ignores a closed standard error.
fn write(line: &str) {
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let message = info.payload_as_str().unwrap_or("no text");
    tracing::error!(target: "nameko::panic", place, "panicked: {message}");
}
