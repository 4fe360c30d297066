//! What is said to the user.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use super::client::Failure;

/// Prints a line on standard output, at once. A reader that went away does not stop us.
pub(super) fn say(line: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
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

/// Prints a failure on standard error; in red on a terminal.
pub(super) fn complain(failure: &Failure) {
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "\x1b[31m{failure}\x1b[0m");
}
