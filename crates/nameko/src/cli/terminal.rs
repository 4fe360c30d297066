//! What is said to the user.

use std::fmt::Display;
use std::io::{self, Write as _};

use super::client::Failure;

/// Prints a line on standard output, at once.
pub(super) fn say(line: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Prints a failure on standard error; in red on a terminal.
pub(super) fn complain(failure: &Failure) {
    // With standard error gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "\x1b[31m{failure}\x1b[0m");
}
