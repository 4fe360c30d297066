//! What is said to the user.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use anstream::ColorChoice;
use tracing::Level;

use super::client::Failure;
use super::logging;

/// Prints a line on standard output, at once. A reader that went away does not stop us.
pub(super) fn say(line: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells what `run` and `broker` are at: on standard output; in the log where that is JSON.
pub(super) fn announce(line: impl Display) -> io::Result<()> {
    if logging::is_json() {
        tracing::info!(target: "nameko::run", "{line}");
        Ok(())
    } else {
        say(line)
    }
}

/// Ends the line on which a terminal shows ^C.
pub(super) fn end_line() -> io::Result<()> {
    if io::stdout().is_terminal() {
        say("")
    } else {
        Ok(())
    }
}

/// Prints a failure on standard error; in red on a terminal, and in the log where that is JSON.
pub(super) fn complain(failure: &Failure) {
    if logging::is_json() && tracing::enabled!(target: "nameko::run", Level::ERROR) {
        tracing::error!(target: "nameko::run", "{failure}");
        return;
    }
    let (red, plain) = match anstream::stderr().current_choice() {
        ColorChoice::Never => ("", ""),
        _ => ("\x1b[31m", "\x1b[0m"),
    };
    // In one piece: other processes may write there too. With standard error gone there is nobody to tell.
    let text = format!("{red}{failure}{plain}\n");
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
