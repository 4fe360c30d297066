//! The embedded broker as a program: `nameko-broker broker --port 5672`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nameko::cli::tool()
}
