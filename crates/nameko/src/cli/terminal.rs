//! Output to the user.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use anstream::ColorChoice;
use tracing::Level;

use super::failure::Failure;
use super::logging;

/// Prints a line on standard output and flushes it. Ignores a broken pipe.
pub(super) fn echo(line: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Reports the progress of `run` and `broker` on standard output, or in the log if that is JSON.
pub(super) fn announce(line: impl Display) -> io::Result<()> {
    if logging::is_json() {
        tracing::info!(target: "nameko::run", "{line}");
        Ok(())
    } else {
        echo(line)
    }
}

/// Ends the line on which the terminal echoed ^C.
pub(super) fn end_line() -> io::Result<()> {
    if io::stdout().is_terminal() {
        echo("")
    } else {
        Ok(())
    }
}

/// Prints a warning on standard error.
pub(super) fn print_warning(warning: &str) {
    // A closed standard error is ignored.
    let _ = writeln!(anstream::stderr().lock(), "warning: {warning}");
}

/// Prints a failure on standard error (in red on a terminal), or in the log if that is JSON.
pub(super) fn print_failure(failure: &Failure) {
    if logging::is_json() && tracing::enabled!(target: "nameko::run", Level::ERROR) {
        tracing::error!(target: "nameko::run", "{failure}");
        return;
    }
    let (red, plain) = match anstream::stderr().current_choice() {
        ColorChoice::Never => ("", ""),
        _ => ("\x1b[31m", "\x1b[0m"),
    };
    // In one write, since other processes may write there too. A closed standard error is ignored.
    let text = format!("{red}{failure}{plain}\n");
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
