//! Logging on standard error: lines for people, or JSON for machines.
//!
//! The layer is our own, because a worker's span is made for every call while most calls log nothing: what a span knows is kept
//! as it is, and becomes text only in a line that is written inside it.

mod fields;
mod layer;
mod line;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use super::arguments::{LogArguments, LogFormat};
use super::client::Failure;
use crate::config::Config;
use layer::Log;

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
    let log = Log {
        format,
        process,
        colours: io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        write,
    };
    let started = registry().with(filter).with(log).try_init();
    // An error means that there is a subscriber already: the program's own.
    if started.is_ok() && format == LogFormat::Json {
        JSON.store(true, Ordering::Relaxed);
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Whether our log is JSON.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Writes a line, at once and in one piece. With standard error gone there is nobody to tell.
fn write(line: &str) {
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let message = info.payload_as_str().unwrap_or("no text");
    tracing::error!(target: "nameko::panic", place, "panicked: {message}");
}
