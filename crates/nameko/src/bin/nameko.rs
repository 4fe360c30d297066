//! The command `nameko`, for people with no service at hand: a shell, single calls, a broker to try things out.

use std::process::ExitCode;

fn main() -> ExitCode {
    nameko::cli::tool()
}
