//! Logging on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::arguments::LogArguments;
use super::client::Failure;

/// Starts logging, unless the program has done so itself before. `default` is for when the user did not say.
pub(super) fn start(arguments: &LogArguments, default: &str) -> Result<(), Failure> {
    let text = arguments
        .log
        .as_deref()
        .filter(|text| !text.trim().is_empty())
        .unwrap_or(default);
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::new("Error", format!("`{text}` is no log filter: {error}"))
            .hint("write error, warn, info, debug or trace, or a filter like `nameko=debug,info`")
    })?;
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours);
    // An error means that there is a subscriber already: the program's own.
    let _ = subscriber.try_init();
    Ok(())
}
